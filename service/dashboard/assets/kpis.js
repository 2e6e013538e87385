// The head of the fleet's page: figures of now and of today.

import { draw, make, part, say, sign } from "./dom.js";
import { clock, duration, number, percent, scale, scaled } from "./format.js";
import { now } from "./time.js";

const GAUGE = { from: 0.6, to: 1 };

/** Shows an overview. */
export function showKpis(overview) {
  const { vehicles, power, today, ingest, alerts, threshold } = overview;
  part("kpis").removeAttribute("aria-busy");
  say(part("charging"), number(vehicles.charging));
  say(part("charging-sub"), `of ${number(vehicles.reporting)} reporting, ${number(vehicles.known)} known`);
  const kw = scale(Math.max(power.acKw, power.dcKw), "kW");
  say(part("power-ac"), scaled(power.acKw, kw));
  say(part("power-dc"), scaled(power.dcKw, kw));
  say(part("power-sub"), `mean of the last ${duration(power.seconds)}`);
  showEnergy(today);
  showRatio(today, threshold);
  say(part("rate"), `${number(ingest.readingsPerSecond, ingest.readingsPerSecond < 10 ? 1 : 0)} /s`);
  say(part("lag"), ingest.lagMeanSeconds === null ? "no reading in the last minute" : `readings, ${duration(ingest.lagMeanSeconds)} old when stored`);
  say(part("alerts"), number(alerts.open));
  say(part("alerts-sub"), alerts.open === 0 ? "all chargers do well" : "chargers that lose energy");
  document.querySelector('[data-test="kpi-alerts"]').classList.toggle("bad", alerts.open > 0);
}

function showEnergy(today) {
  const kwh = scale(Math.max(today.totalAcConsumedKwh, today.totalDcDeliveredKwh));
  say(part("billed"), scaled(today.totalAcConsumedKwh, kwh));
  say(part("delivered"), scaled(today.totalDcDeliveredKwh, kwh));
  say(part("lost"), scaled(today.energyLossKwh, kwh));
  const bar = part("split");
  const share = today.totalAcConsumedKwh > 0 ? today.totalDcDeliveredKwh / today.totalAcConsumedKwh : 0;
  if (!bar.hasChildNodes()) bar.append(make("i", { class: "dc" }), make("i", { class: "lost" }));
  const [delivered, lost] = bar.children;
  delivered.style.inlineSize = `${Math.min(100, share * 100)}%`;
  lost.style.inlineSize = `${today.totalAcConsumedKwh > 0 ? Math.max(0, 100 - share * 100) : 0}%`;
  bar.title = `Since ${clock(Date.parse(today.periodStart), now())}`;
}

function showRatio(today, threshold) {
  const ratio = today.efficiencyRatio;
  const card = document.querySelector('[data-test="kpi-efficiency"]');
  const below = ratio !== null && ratio < threshold;
  card.classList.toggle("bad", below);
  const figure = part("efficiency");
  const told = verdict(ratio, threshold);
  const shown = `${percent(ratio)} ${told}`;
  if (figure.dataset.shown === shown) return;
  figure.dataset.shown = shown;
  figure.replaceChildren(
    percent(ratio),
    make("span", { class: below ? "verdict bad" : "verdict good" }, ...(ratio === null ? [] : [sign(below ? "warning" : "good")]), told),
  );
  part("gauge").replaceChildren(gauge(ratio, threshold));
}

/** Says in words how a ratio stands to the threshold. */
export function verdict(ratio, threshold) {
  if (ratio === null) return "nothing billed yet";
  const points = Math.abs(ratio - threshold) * 100;
  return `${number(points, 1)} points ${ratio < threshold ? "below" : "above"} ${number(threshold * 100)} %`;
}

/** Draws a ratio on a bar from 60 to 100 %, with a mark at the threshold. */
function gauge(ratio, threshold) {
  const at = (value) => `${((Math.min(GAUGE.to, Math.max(GAUGE.from, value)) - GAUGE.from) / (GAUGE.to - GAUGE.from)) * 100}%`;
  const below = ratio !== null && ratio < threshold;
  const line = at(threshold);
  return draw(
    "svg",
    { height: 44, role: "img", "aria-label": `Efficiency ${percent(ratio)}, threshold ${percent(threshold, 0)}` },
    draw("rect", { x: 0, y: 6, width: "100%", height: 12, rx: 6, class: "track" }),
    draw("rect", { x: 0, y: 6, width: ratio === null ? 0 : at(ratio), height: 12, rx: 6, class: below ? "fill bad" : "fill" }),
    draw("line", { x1: line, x2: line, y1: 1, y2: 23, class: "mark" }),
    words("0%", "start", percent(GAUGE.from, 0)),
    words(line, "middle", percent(threshold, 0)),
    words("100%", "end", percent(GAUGE.to, 0)),
  );
}

function words(x, anchor, text) {
  return draw("text", { x, y: 40, "text-anchor": anchor }, text);
}
