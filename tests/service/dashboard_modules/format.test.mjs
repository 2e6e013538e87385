import assert from "node:assert/strict";
import test from "node:test";

import { ago, bytes, duration, number, offset, percent, quantity, scale, scaled } from "./format.js";

const spaced = (text) => text.replaceAll("\u202f", " ");

test("figures keep their digits, and nothing is a dash", () => {
  assert.equal(number(12345.678, 1), "12,345.7");
  for (const none of [null, undefined, NaN]) assert.equal(number(none), "–");
  assert.equal(spaced(quantity(0, "kWh")), "0.0 kWh");
  assert.equal(quantity(null, "kWh"), "–");
  assert.equal(spaced(percent(0.8496)), "85.0 %");
  assert.equal(percent(null), "–");
});

test("energies that stand together share a unit", () => {
  assert.deepEqual(scale(9_999), { unit: "kWh", factor: 1 });
  assert.equal(scale(10_000).unit, "MWh");
  assert.equal(scale(2e7, "kW").unit, "GW");
  assert.equal(spaced(scaled(128_400, scale(128_400))), "128.4 MWh");
  assert.equal(spaced(scaled(1_500, scale(128_400))), "1.50 MWh");
  assert.equal(spaced(scaled(0, scale(0))), "0.0 kWh");
});

test("bytes in the unit that reads well", () => {
  assert.equal(spaced(bytes(1023)), "1,023 B");
  assert.equal(spaced(bytes(1024)), "1.0 KiB");
  assert.equal(spaced(bytes(5 * 1024 ** 4)), "5.0 TiB");
  assert.equal(spaced(bytes(5000 * 1024 ** 4)), "5,000.0 TiB");
});

test("lengths of time in two units at most", () => {
  const told = [-5, 59.4, 60, 3599, 3600, 5400, 48 * 3600, 49 * 3600, 15 * 86400 + 3600].map((s) => spaced(duration(s)));
  assert.deepEqual(told, ["0 s", "59 s", "1 min", "59 min", "1 h", "1 h 30 min", "2 d", "2 d 1 h", "15 d"]);
});

test("how long ago, also of clocks that are ahead", () => {
  const now = 1_000_000_000_000;
  const told = [-60, 1, 2, 59, 60, 3600, 48 * 3600].map((s) => spaced(ago(now - s * 1000, now)));
  assert.deepEqual(told, ["now", "now", "2 s ago", "59 s ago", "1 min ago", "1 h ago", "2 d ago"]);
  assert.equal(ago(null, now), "never");
});

test("zones east and west, also at half past the hour", () => {
  assert.deepEqual([0, -60, 210, -345].map(offset), ["UTC", "UTC+1", "UTC-3:30", "UTC+5:45"]);
});
