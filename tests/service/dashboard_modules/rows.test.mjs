import assert from "node:assert/strict";
import test from "node:test";

import { natural, Rows, stateOf } from "./rows.js";

const NOW = Date.parse("2026-01-31T12:00:00Z");
const state = (vehicleId, { soc = 50, kwh = 0, seconds = 10, temp = 20 } = {}) => ({
  vehicleId, soc, kwhDeliveredDc: kwh, batteryTemp: temp, timestamp: new Date(NOW - seconds * 1000).toISOString(),
});
const ids = (rows, asked) => rows.view(asked, NOW).rows.map((row) => row.id);

function fleet() {
  const rows = new Rows();
  rows.applyStates([
    state("VH-10", { soc: 10, kwh: 0.5 }),
    state("VH-9", { soc: 90 }),
    state("vh-2", { soc: 90, seconds: 301, kwh: 0.5 }),
    state("VH-1", { soc: 40, kwh: 0.1, seconds: 299 }),
  ]);
  rows.applyBalances([
    { vehicleId: "VH-9", efficiencyRatio: 0.7, belowThreshold: true, totalAcConsumedKwh: 9 },
    { vehicleId: "VH-1", efficiencyRatio: 0.9, belowThreshold: false, totalAcConsumedKwh: 3 },
    { vehicleId: "VH-10", efficiencyRatio: null, belowThreshold: false, totalAcConsumedKwh: 0 },
    { vehicleId: "never-reported", efficiencyRatio: 0.5, belowThreshold: true, totalAcConsumedKwh: 1 },
  ]);
  return rows;
}

test("ids in the order of their numbers", () => {
  assert.ok(natural("VH-9") < natural("VH-10"));
  assert.ok(natural("a2b10") < natural("a10b2"));
  assert.deepEqual(ids(fleet(), {}), ["VH-1", "vh-2", "VH-9", "VH-10"]);
});

test("charging while the newest reading brought energy, silent after five minutes", () => {
  assert.equal(stateOf({ seen: NOW - 300_000, kwh: 0.1 }, NOW), "charging");
  assert.equal(stateOf({ seen: NOW - 300_001, kwh: 0.1 }, NOW), "silent");
  assert.equal(stateOf({ seen: NOW, kwh: 0 }, NOW), "idle");
  const { counts } = fleet().view({}, NOW);
  assert.deepEqual(counts, { all: 4, charging: 2, idle: 1, silent: 1, below: 1 });
});

test("each order, both ways; equals in the order of ids, what has no figure last", () => {
  const rows = fleet();
  const order = (sort, descending = false) => ids(rows, { sort, descending });
  assert.deepEqual(order("soc"), ["VH-10", "VH-1", "vh-2", "VH-9"]);
  assert.deepEqual(order("soc", true), ["vh-2", "VH-9", "VH-1", "VH-10"]);
  assert.deepEqual(order("efficiency"), ["VH-9", "VH-1", "vh-2", "VH-10"]);
  assert.deepEqual(order("efficiency", true), ["VH-1", "VH-9", "vh-2", "VH-10"]);
  assert.deepEqual(order("state"), ["VH-1", "VH-10", "VH-9", "vh-2"]);
  assert.deepEqual(order("seen"), ["VH-9", "VH-10", "VH-1", "vh-2"]);
  assert.deepEqual(order("seen", true), ["vh-2", "VH-1", "VH-9", "VH-10"]);
  assert.deepEqual(order("energy", true), ["VH-9", "VH-1", "VH-10", "vh-2"]);
  assert.deepEqual(order("no such column"), ids(rows, {}));
});

test("search and filter go together, and counts follow the search alone", () => {
  const { rows, counts } = fleet().view({ search: " vh-1", filter: "charging" }, NOW);
  assert.deepEqual(rows.map((row) => row.id), ["VH-1", "VH-10"]);
  assert.deepEqual(counts, { all: 2, charging: 2, idle: 0, silent: 0, below: 0 });
  assert.deepEqual(ids(fleet(), { filter: "below" }), ["VH-9"]);
  assert.deepEqual(ids(fleet(), { search: "nothing" }), []);
});

test("a newer state changes the row, an older one does not, and a balance stays", () => {
  const rows = fleet();
  rows.applyStates([state("VH-9", { soc: 91, kwh: 0.2, seconds: 5 })]);
  rows.applyStates([state("VH-9", { soc: 1, seconds: 60 })]);
  assert.equal(rows.get("VH-9").soc, 91);
  assert.equal(rows.get("VH-9").efficiency, 0.7);
  rows.view({}, NOW);
  assert.equal(rows.get("VH-9").state, "charging");
  assert.equal(rows.size, 4);
});

test("the order holds against a plain one, for ten thousand rows", () => {
  const rows = new Rows();
  const many = Array.from({ length: 10_000 }, (_, index) => state(`VH-${(index * 7919) % 10_000}`, { soc: (index * 31) % 101 }));
  rows.applyStates(many);
  const shown = rows.view({ sort: "soc", descending: true }, NOW).rows;
  assert.equal(shown.length, 10_000);
  for (let index = 1; index < shown.length; index += 1) {
    const [a, b] = [shown[index - 1], shown[index]];
    assert.ok(a.soc > b.soc || (a.soc === b.soc && a.natural < b.natural));
  }
});
