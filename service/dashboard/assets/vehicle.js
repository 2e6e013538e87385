// The page of a vehicle.

import { ask } from "./api.js";
import { batteryChart, efficiencyChart, energyChart } from "./device_charts.js";
import { deviceId, devicePage } from "./device.js";
import { make, part, say } from "./dom.js";
import { moment, quantity } from "./format.js";
import { stateOf } from "./rows.js";
import { now } from "./time.js";
import { stateBadge } from "./vehicle_rows.js";

let newest = null;

function showBadge() {
  if (!newest) return;
  const word = stateOf(newest, now());
  const place = part("state");
  if (place.dataset.state === word) return;
  place.dataset.state = word;
  place.replaceChildren(stateBadge(word));
}

function showState(state, seen) {
  newest = { seen, kwh: state.kwhDeliveredDc };
  say(part("soc"), quantity(state.soc, "%", 1));
  part("soc-bar").style.inlineSize = `${state.soc}%`;
  say(part("reading"), quantity(state.kwhDeliveredDc, "kWh", 3));
  say(part("temp"), quantity(state.batteryTemp, "°C", 1));
  showBadge();
}

async function showMeter() {
  const place = part("meter");
  try {
    const { meterId, since } = await currentMeter();
    place.replaceChildren(meterId ? make("a", { href: `/meters/${encodeURIComponent(meterId)}` }, meterId) : "none");
    say(part("meter-sub"), meterId ? `since ${moment(since)}` : "no session is open");
  } catch (error) {
    // A vehicle that never reported and had no session has no meter either; what else goes wrong the page tells elsewhere.
    say(part("meter-sub"), error.status === 404 ? "" : error.message);
  }
}

/** Gives the meter of the session that goes on now: one with an end ahead counts as much as an open one. */
async function currentMeter() {
  const at = now();
  const asked = { vehicleId: deviceId(), from: new Date(at).toISOString(), to: new Date(at + 1_000).toISOString(), limit: 1 };
  const { sessions } = await ask("/v1/sessions", asked);
  return sessions.length > 0 ? { meterId: sessions[0].meterId, since: sessions[0].startedAt } : { meterId: null };
}

devicePage({
  kind: "vehicle",
  showState,
  refresh: showMeter,
  charts: (series, intervals) => [
    energyChart(intervals),
    efficiencyChart(intervals, series.threshold),
    batteryChart(intervals),
  ],
  sums: { "sum-ac": "totalAcConsumedKwh", "sum-dc": "totalDcDeliveredKwh", "sum-lost": "energyLossKwh" },
});
setInterval(showBadge, 5_000);
