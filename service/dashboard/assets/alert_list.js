// Alerts as a table: on their own page, and on those of their vehicle and meter.

import { make, sign } from "./dom.js";
import { duration, moment, percent, quantity } from "./format.js";
import { pagedList } from "./lists.js";
import { now } from "./time.js";

const KINDS = { low_efficiency: "Loses energy", data_fault: "More arrived than was billed" };
const REASONS = { recovered: "recovered", changed: "became the other kind", withdrawn: "sessions were corrected", stale: "nothing to tell it by" };

/** Builds a list of alerts into a place; gives a function that loads it with filters. */
export function alertList(place, empty, caption = "Alerts") {
  return pagedList(place, {
    path: "/v1/alerts",
    name: "alerts",
    test: "alerts",
    caption,
    empty,
    columns: [["State"], ["Vehicle"], ["DC / AC now", "num"], ["Meter"], ["Kind"], ["Worst", "num"], ["Threshold", "num"], ["Lost in 24 h", "num"], ["Opened"], ["Lasted", "num"]],
    row: alertRow,
  });
}

function alertRow(alert) {
  const open = alert.state === "open";
  const end = open ? now() : Date.parse(alert.closedAt);
  const badge = make("span", { class: `state ${open ? "alarm" : "idle"}` }, sign(open ? "warning" : "good"), open ? "Open" : "Closed");
  const why = open ? null : make("span", { class: "dim" }, ` ${REASONS[alert.closeReason] ?? alert.closeReason ?? ""}`);
  return make(
    "tr",
    { "data-id": alert.alertId, "data-state": alert.state, "data-test": "alert-row" },
    make("td", {}, badge, why),
    make("td", {}, device("vehicles", alert.vehicleId)),
    make("td", { class: open ? "num below" : "num" }, percent(alert.ratioLatest)),
    make("td", {}, device("meters", alert.meterId)),
    make("td", {}, KINDS[alert.kind] ?? alert.kind),
    make("td", { class: "num" }, percent(alert.ratioWorst)),
    make("td", { class: "num" }, percent(alert.threshold, 0)),
    make("td", { class: "num" }, quantity(alert.totalAcConsumedKwh - alert.totalDcDeliveredKwh, "kWh")),
    make("td", { title: open ? null : `closed ${moment(alert.closedAt)}` }, moment(alert.openedAt)),
    make("td", { class: "num" }, alert.openedAt ? duration((end - Date.parse(alert.openedAt)) / 1000) : "–"),
  );
}

function device(pages, id) {
  return make("a", { href: `/${pages}/${encodeURIComponent(id)}` }, id);
}
