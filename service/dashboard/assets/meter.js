// The page of a meter.

import { ask } from "./api.js";
import { efficiencyChart, energyChart, voltageChart } from "./device_charts.js";
import { deviceId, devicePage } from "./device.js";
import { make, part, say, sign } from "./dom.js";
import { moment, quantity } from "./format.js";
import { isStale, now } from "./time.js";

let newest = null;

function showBadge() {
  if (!newest) return;
  const word = isStale(newest.seen) ? "silent" : newest.kwh > 0 ? "charging" : "idle";
  const place = part("state");
  if (place.dataset.state === word) return;
  place.dataset.state = word;
  const words = { silent: "Silent", charging: "Delivering", idle: "Idle" }[word];
  place.replaceChildren(make("span", { class: `state ${word}` }, sign(word), words));
}

function showState(state, seen) {
  newest = { seen, kwh: state.kwhConsumedAc };
  say(part("reading"), quantity(state.kwhConsumedAc, "kWh", 3));
  say(part("voltage"), quantity(state.voltage, "V", 1));
  showBadge();
}

async function showVehicle() {
  const place = part("vehicle");
  const at = now();
  const asked = { meterId: deviceId(), from: new Date(at).toISOString(), to: new Date(at + 1_000).toISOString(), limit: 1 };
  try {
    const [session] = (await ask("/v1/sessions", asked)).sessions;
    place.replaceChildren(session ? make("a", { href: `/vehicles/${encodeURIComponent(session.vehicleId)}` }, session.vehicleId) : "none");
    say(part("vehicle-sub"), session ? `since ${moment(session.startedAt)}` : "no session is open");
  } catch (error) {
    say(part("vehicle-sub"), error.message);
  }
}

/** Says which vehicles the sessions that are shown belong to. */
const served = new Set();
function showVehicles(sessions) {
  for (const session of sessions) served.add(session.vehicleId);
  const links = [...served].sort().map((id) => make("a", { href: `/vehicles/${encodeURIComponent(id)}` }, id));
  part("vehicles").replaceChildren(...(links.length ? ["Vehicles that drew from it: ", ...links.flatMap((link, index) => (index ? [", ", link] : [link]))] : []));
}

devicePage({
  kind: "meter",
  showState,
  refresh: showVehicle,
  onSessions: showVehicles,
  charts: (series, intervals) => [
    energyChart(intervals, "meteredAcKwh", "Counted AC"),
    efficiencyChart(intervals, series.threshold),
    voltageChart(intervals),
  ],
  sums: { "sum-metered": "meteredAcKwh", "sum-ac": "totalAcConsumedKwh", "sum-dc": "totalDcDeliveredKwh" },
});
setInterval(showBadge, 5_000);
