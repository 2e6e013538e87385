// The last day of the fleet as bars, hour by hour: small enough to be drawn by hand, without the script of the charts.

import { ask } from "./api.js";
import { draw, make } from "./dom.js";
import { percent, scale, scaled, zone } from "./format.js";

const SIZE = { height: 110, foot: 20 };
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const AGAIN_MS = 5 * 60_000;

/** Shows the bars, now and every five minutes; the page does well without them, so what goes wrong is not told. */
export async function showHours(card) {
  setTimeout(() => showHours(card), AGAIN_MS);
  if (document.hidden) return;
  const fleet = await ask("/v1/analytics/fleet", { by: "hour", tz: zone() }).catch(() => null);
  const hours = fleet?.hours.filter((hour) => hour.totalAcConsumedKwh > 0 || hour.totalDcDeliveredKwh > 0) ?? [];
  card.hidden = hours.length < 2;
  if (card.hidden) return;
  const lost = scale(fleet.energyLossKwh);
  card.replaceChildren(
    make("h2", {}, "Billed by hour ", make("span", { class: "dim" }, `last 24 finished hours: ${percent(fleet.efficiencyRatio)} arrived, ${scaled(fleet.energyLossKwh, lost)} lost`)),
    bars(fleet.hours, Math.max(300, card.clientWidth - 34)),
  );
}

function bars(hours, width) {
  const { height, foot } = SIZE;
  const largest = Math.max(...hours.map((hour) => hour.totalAcConsumedKwh));
  const kwh = scale(largest);
  const step = width / hours.length;
  const tall = (value) => (largest > 0 ? (value / largest) * (height - foot - 4) : 0);
  const shapes = hours.flatMap((hour, index) => {
    const ac = tall(hour.totalAcConsumedKwh);
    const dc = Math.min(ac, tall(hour.totalDcDeliveredKwh));
    const base = { x: index * step + 2, width: Math.max(1, step - 4), rx: 2 };
    const begins = TIME.format(new Date(hour.start));
    const words = `${begins}: ${scaled(hour.totalAcConsumedKwh, kwh)} billed, ${scaled(hour.totalDcDeliveredKwh, kwh)} delivered, ${percent(hour.efficiencyRatio)}`;
    return [
      draw("g", {},
        draw("title", {}, words),
        draw("rect", { ...base, y: height - foot - ac, height: ac, class: "lost" }),
        draw("rect", { ...base, y: height - foot - dc, height: dc, class: "dc" }),
        draw("rect", { x: index * step, width: step, y: 0, height: height - foot, class: "hit" })),
      ...(index % 3 === 0 ? [draw("text", { x: index * step + 2, y: height - 4 }, begins)] : []),
    ];
  });
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Energy by hour, at most ${scaled(largest, kwh)} billed in one` }, ...shapes);
}
