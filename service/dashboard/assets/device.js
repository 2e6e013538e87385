// What the pages of a vehicle and of a meter have in common: the window, the series over it, sessions, alerts, the stream.

import { alertList } from "./alert_list.js";
import { ask } from "./api.js";
import { make, part, say } from "./dom.js";
import { showCharts } from "./device_charts.js";
import { ago, moment, quantity, zone } from "./format.js";
import { frame, noteReading, showLive, whyRefused } from "./frame.js";
import { Live } from "./live.js";
import { clear, loader, showEmpty } from "./note.js";
import { sessionList } from "./sessions.js";
import { chooseSpan } from "./span_chooser.js";
import { parametersOf } from "./span.js";
import { total } from "./series.js";
import { now } from "./time.js";
import { showEfficiency } from "./vehicle_rows.js";

const AGAIN_MS = 60_000;

/** Gives the id that the address of this page names. */
export function deviceId() {
  return decodeURIComponent(location.pathname.split("/")[2]);
}

/**
 * Sets a device's page up. `kind` is "vehicle" or "meter"; `showState(state, row)` writes a state, `charts(series, list)` gives
 * the charts, `sums` maps parts of the page to figures of the series, `refresh` loads what else the page has.
 */
export function devicePage({ kind, showState, charts, sums, refresh = () => {}, onSessions }) {
  const id = deviceId();
  const path = `/v1/analytics/${kind}s/${encodeURIComponent(id)}`;
  document.title = `${id} · fleetwatt`;
  say(part("device-id"), id);
  let seen = null;
  let zoned = zone();

  const show = (state) => {
    const at = Date.parse(state.timestamp);
    if (seen !== null && at < seen) return;
    seen = at;
    noteReading(at);
    showState(state, at);
    showSeen();
  };
  const showSeen = () => {
    say(part("seen"), ago(seen, now()));
    say(part("seen-sub"), seen === null ? "" : moment(new Date(seen).toISOString()));
  };
  const loadState = loader(part("now-note"), (signal) => stateOf(kind, id, signal), (state) => {
    if (state) show(state);
    else showEmpty(part("now-note"), make("p", {}, `No reading of ${kind} ${id} has come in yet.`));
  });
  const loadSeries = loader(
    part("series-note"),
    async (span, signal) => {
      const asked = { ...parametersOf(span, now()), tz: zoned };
      try {
        return await ask(`${path}/hourly`, asked, { signal });
      } catch (error) {
        if (error.status === 404) return null;
        if (error.status !== 400 || error.body?.field !== "tz") throw error;
        zoned = "UTC";
        return ask(`${path}/hourly`, { ...asked, tz: zoned }, { signal });
      }
    },
    (series) => {
      part("sums").hidden = series === null;
      if (series) showSeries(series, charts, sums);
      else showEmpty(part("series-note"), make("p", {}, `No ${kind} ${id} has ever reported or had a session. Is the id right? Capitals matter.`));
    },
  );
  const loadSessions = sessionList(part("sessions"), kind, id, onSessions);
  const loadAlerts = alertList(part("alerts"), `No alert has named this ${kind} in this window.`, `Alerts of ${id}`);

  const load = (span) => {
    const { from, to } = parametersOf(span, now());
    loadSeries(span);
    loadSessions({ from, to });
    loadAlerts({ [`${kind}Id`]: id, from, to });
  };
  let span = chooseSpan(part("window"), (chosen) => {
    span = chosen;
    load(chosen);
  });
  frame();
  load(span);
  refresh();
  new Live(`${kind}Id=${encodeURIComponent(id)}`, {
    hello: loadState,
    states: (told) => told[`${kind}s`].forEach(show),
    poll: loadState,
    state: showLive,
    refused: whyRefused,
  }).start();
  setInterval(showSeen, 1_000);
  setInterval(() => {
    if (document.hidden) return;
    refresh();
    if (span.name !== "custom") loadSeries(span);
  }, AGAIN_MS);
}

/** Gives the newest state of a device, null if it never reported. Raises ApiError. */
async function stateOf(kind, id, signal) {
  try {
    return await ask(`/v1/ingest/${kind}/${encodeURIComponent(id)}/current`, {}, { signal });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function isMeasured({ readingsCount, avgVoltage }) {
  return readingsCount.vehicle + readingsCount.meter > 0 || (avgVoltage ?? null) !== null;
}

function showSeries(series, charts, sums) {
  const intervals = series.hours ?? series.days;
  const all = total(intervals);
  for (const [name, figure] of Object.entries(sums)) say(part(name), quantity(all[figure], "kWh", 2));
  const ratio = all.efficiencyRatio;
  showEfficiency(part("sum-efficiency"), ratio, ratio !== null && ratio < series.threshold);
  const place = part("charts");
  place.hidden = !intervals.some(isMeasured);
  if (place.hidden) {
    showEmpty(part("series-note"), make("p", {}, "Nothing was measured in this window. Choose a longer one, or an earlier one by hand."));
    return;
  }
  clear(part("series-note"));
  showCharts(place, series, intervals, charts);
}
