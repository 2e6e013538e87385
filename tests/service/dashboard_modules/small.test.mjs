import assert from "node:assert/strict";
import test from "node:test";

import { address } from "./api.js";
import { pauseMs } from "./live.js";
import { safeNext } from "./next.js";
import { sample } from "./prometheus.js";
import { visibleRows } from "./scroll.js";
import { column, localTime, ratioRange, starts, total, widths, withGaps } from "./series.js";
import { asField, LENGTHS, parametersOf, readSpan, writeSpan } from "./span.js";
import { isStale, noteServerTime, now } from "./time.js";

test("rows in the window: the heights add up wherever one scrolls", () => {
  for (const count of [0, 1, 7, 300, 10_000]) {
    for (let top = -5_000; top < count * 44 + 5_000; top += 997) {
      const { first, last, before, after } = visibleRows({ top, height: 800, rowHeight: 44, count });
      assert.ok(first >= 0 && first <= last && last <= count);
      assert.equal(before + (last - first) * 44 + after, count * 44);
      assert.ok(last - first <= Math.ceil(800 / 44) + 1 + 2 * 12);
      const seen = (row) => (row + 1) * 44 > top && row * 44 < top + 800;
      for (let row = 0; row < Math.min(count, 400); row += 1) if (seen(row)) assert.ok(row >= first && row < last);
    }
  }
});

test("pauses grow to a minute and are never the same for all", () => {
  assert.deepEqual([0, 1, 2, 3, 9].map((tries) => pauseMs(tries, 0)), [1_000, 2_000, 4_000, 8_000, 60_000]);
  assert.equal(pauseMs(3, 1), 4_000);
  for (let index = 0; index < 100; index += 1) assert.ok(pauseMs(2) > 2_000 - 1 && pauseMs(2) <= 4_000);
});

test("a sign-in leads to pages of ours only", () => {
  const origin = "https://fleet.example";
  const good = ["/", "/?sort=soc", "/alerts?state=all", "/engine", "/vehicles/VH-1?window=7d", "/meters/M:1", "/api"];
  for (const page of good) assert.equal(safeNext(page, origin), page);
  const bad = [
    null, "", "//evil.example/", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
    "data:text/html,x", "/v1/sign-out", "/sign-in", "/vehicles/", "/vehicles/a/b", "/../..//evil.example", "http://fleet.example/",
    "//", "http://[", " //evil.example", "/\t/evil.example",
  ];
  for (const page of bad) assert.equal(safeNext(page, origin), "/", page);
});

test("parameters that are not there are left out", () => {
  assert.equal(address("/v1/alerts", { state: "open", after: null, kind: "", limit: 0, x: undefined }), "/v1/alerts?state=open&limit=0");
  assert.equal(address("/v1/me", {}), "/v1/me");
  assert.equal(address("/v1/x", { tz: "Etc/GMT+1" }), "/v1/x?tz=Etc%2FGMT%2B1");
});

test("windows go through an address and come back", () => {
  for (const name of Object.keys(LENGTHS)) assert.deepEqual(readSpan(writeSpan({ name })), { name });
  const custom = { name: "custom", from: Date.parse("2026-01-01T00:00:00Z"), to: Date.parse("2026-01-02T00:00:00Z") };
  assert.deepEqual(readSpan(writeSpan(custom)), custom);
  const wrong = ["", "?window=7y", "?from=x&to=y", "?from=2026-01-02T00:00Z&to=2026-01-01T00:00Z", "?window=constructor"];
  for (const search of wrong) assert.deepEqual(readSpan(search), { name: "24h" }, search);
});

test("long windows go by day", () => {
  const at = Date.parse("2026-01-31T12:00:00Z");
  assert.deepEqual(parametersOf({ name: "24h" }, at), { from: "2026-01-30T12:00:00.000Z", to: "2026-01-31T12:00:00.000Z", by: "hour" });
  assert.equal(parametersOf({ name: "7d" }, at).by, "hour");
  assert.equal(parametersOf({ name: "30d" }, at).by, "day");
  const custom = { name: "custom", from: at - 9 * 86_400_000, to: at };
  assert.equal(parametersOf(custom, at + 5e9).by, "day");
});

test("a field for a time shows the reader's zone", () => {
  assert.equal(Date.parse(asField(Date.parse("2026-07-01T10:20:00Z"))), Date.parse("2026-07-01T10:20:00Z"));
});

const hour = (start, more = {}) => ({ start, end: new Date(Date.parse(start) + 3_600_000).toISOString(), ...more });

test("totals are sums, and their ratio is that of the sums", () => {
  const all = total([
    hour("2026-01-31T10:00:00Z", { totalAcConsumedKwh: 10, totalDcDeliveredKwh: 5, efficiencyRatio: 0.5 }),
    hour("2026-01-31T11:00:00Z", { totalAcConsumedKwh: 90, totalDcDeliveredKwh: 85, efficiencyRatio: 85 / 90 }),
  ]);
  assert.equal(all.efficiencyRatio, 0.9);
  assert.equal(all.energyLossKwh, 10);
  assert.equal(total([]).efficiencyRatio, null);
});

test("what is missing makes a gap, not a line", () => {
  const intervals = [hour("2026-01-31T10:00:00Z", { lastSoc: 1 }), hour("2026-01-31T11:00:00Z", { lastSoc: 2 }), hour("2026-01-31T14:00:00Z", { lastSoc: 0 })];
  assert.deepEqual(column(withGaps(intervals), "lastSoc"), [1, 2, null, 0]);
  assert.deepEqual(withGaps([]), []);
});

test("bars begin where their intervals do, in the reader's zone", () => {
  const [start] = starts([hour("2026-01-31T10:00:00Z")]);
  assert.equal(new Date(start.replace(" ", "T")).toISOString(), "2026-01-31T10:00:00.000Z");
  assert.equal(localTime("2026-01-31T10:00:00Z"), start);
  assert.deepEqual(widths([hour("2026-01-31T10:00:00Z")], 0.5), [1_800_000]);
});

test("the axis of ratios shows every point and the threshold", () => {
  assert.deepEqual(ratioRange([90, null, 95], 0.85), [80, 105]);
  assert.deepEqual(ratioRange([], 0.85), [80, 105]);
  const [low, high] = ratioRange([3, 250], 0.85);
  assert.ok(low >= 0 && low < 3 && high > 250);
});

test("metrics by name, summed over labels, and no other that begins so", () => {
  const text = '# HELP a b\na 1.0\na_max 7\nb{x="1"} 2\nb{x="a} 9"} 3.5\n';
  assert.deepEqual(["a", "a_max", "b", "c"].map((name) => sample(text, name)), [1, 7, 5.5, null]);
});

test("staleness by the engine's clock, not the reader's", () => {
  noteServerTime(new Date(Date.now() + 3_600_000).toISOString());
  assert.ok(Math.abs(now() - Date.now() - 3_600_000) < 5_000);
  assert.ok(isStale(Date.now()));
  assert.ok(!isStale(now() - 200_000));
  assert.ok(isStale(now() - 400_000));
  assert.ok(!isStale(null));
});
