// The sessions of a vehicle or a meter, each with its energy.

import { make } from "./dom.js";
import { duration, moment, quantity } from "./format.js";
import { pagedList } from "./lists.js";
import { now } from "./time.js";
import { showEfficiency } from "./vehicle_rows.js";

/** Builds the list of sessions of a device ("vehicle" or "meter") into a place; gives a function that loads it. */
export function sessionList(place, kind, id, onItems) {
  const other = kind === "vehicle" ? "meter" : "vehicle";
  return pagedList(place, {
    path: `/v1/analytics/${kind}s/${encodeURIComponent(id)}/sessions`,
    name: "sessions",
    test: "sessions",
    caption: `Charging sessions of ${id}`,
    empty: "No session touches this window. A session says which vehicle drew from which meter: POST /v1/sessions, or a file with fleetwatt sessions import.",
    columns: [["Start"], ["Lasted", "num"], ["DC / AC", "num"], ["Billed AC", "num"], ["Delivered DC", "num"], ["Lost", "num"], [other === "meter" ? "Meter" : "Vehicle"], ["End"]],
    row: (session) => sessionRow(session, other),
    onItems,
  });
}

function sessionRow(session, other) {
  const started = Date.parse(session.startedAt);
  const open = session.endedAt === null || Date.parse(session.endedAt) > now();
  const seconds = ((session.endedAt && !open ? Date.parse(session.endedAt) : now()) - started) / 1000;
  const efficiency = make("td", { class: "num" });
  showEfficiency(efficiency, session.efficiencyRatio, session.belowThreshold);
  const id = session[`${other}Id`];
  return make(
    "tr",
    { "data-id": session.sessionId, "data-test": "session-row", title: `Session ${session.sessionId}` },
    make("th", { scope: "row" }, moment(session.startedAt)),
    make("td", { class: "num" }, seconds < 0 ? "ahead" : duration(seconds)),
    efficiency,
    make("td", { class: "num" }, quantity(session.totalAcConsumedKwh, "kWh", 2)),
    make("td", { class: "num" }, quantity(session.totalDcDeliveredKwh, "kWh", 2)),
    make("td", { class: "num" }, quantity(session.energyLossKwh, "kWh", 2)),
    make("td", {}, make("a", { href: `/${other}s/${encodeURIComponent(id)}` }, id)),
    make("td", {}, session.endedAt === null ? "open" : open ? `until ${moment(session.endedAt)}` : moment(session.endedAt)),
  );
}
