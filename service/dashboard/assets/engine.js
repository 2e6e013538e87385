// The page of the engine: whether it takes readings, how fast, how far rollups reach, what was refused, what it holds.

import { ApiError, ask, askText } from "./api.js";
import { make, part, say } from "./dom.js";
import { ago, bytes, duration, moment, number } from "./format.js";
import { frame, showLive } from "./frame.js";
import { loader } from "./note.js";
import { sample } from "./prometheus.js";
import { noteServerTime, now } from "./time.js";

const AGAIN_MS = 5_000;

/** Gives readiness; a service that is not ready says why in an error, which is an answer here. Raises other ApiErrors. */
async function readiness(signal) {
  try {
    return await ask("/health/ready", {}, { signal });
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 503) throw error;
    return { ...error.body, why: error.message };
  }
}

const loadReady = loader(part("ready-note"), readiness, (told) => {
  const good = !told.why;
  part("ready-card").dataset.state = good ? "good" : "bad";
  part("ready-card").classList.toggle("bad", !good);
  say(part("ready"), good ? "yes" : "no");
  say(part("ready-sub"), good ? "stores and answers" : told.why);
  say(part("breaker"), told.breaker ?? "–");
  part("breaker").parentElement.classList.toggle("bad", told.breaker !== undefined && told.breaker !== "closed");
  part("replica-card").hidden = !told.replica;
  if (told.replica) say(part("replica"), told.replica);
  if (told.version) say(part("version"), told.version);
});

async function showProcess() {
  const text = await askText("/metrics").catch(() => null);
  if (text === null) return; // the probes above say that nothing answers
  const most = sample(text, "fleetwatt_buffer_max_readings");
  say(part("buffer"), number(sample(text, "fleetwatt_buffer_readings")));
  say(part("buffer-sub"), most === null ? "readings until their commit" : `of ${number(most)} readings that it holds, in this process`);
  const streams = sample(text, "fleetwatt_stream_clients");
  say(part("streams"), number(streams));
  say(part("streams-sub"), "open in this process");
  const python = /fleetwatt_build_info\{[^}]*python="([^"]+)"/.exec(text)?.[1];
  if (python) say(part("version-sub"), `of the service that answers, on Python ${python}`);
}

const loadStats = loader(part("stats-note"), (signal) => ask("/v1/analytics/stats", {}, { signal }), (stats) => {
  noteServerTime(stats.time);
  const rate = stats.ingest.readingsPerSecond;
  say(part("rate"), number(rate, rate < 10 ? 1 : 0));
  say(part("devices"), number(stats.devices.vehicles + stats.devices.meters));
  say(part("devices-sub"), `${number(stats.devices.vehicles)} vehicles, ${number(stats.devices.meters)} meters`);
  show("sources", "Sources, last minute", ["Source", "Readings /s", "Lag, mean", "Lag, longest"], Object.entries(stats.ingest.sources).map(
    ([name, source]) => [name, number(source.readingsPerSecond, 1), duration(source.lagMeanSeconds), duration(source.lagMaxSeconds)],
  ), "No reading came in the last minute. Lag is how old each device's newest reading was when it was stored.");
  show("readings", "Readings, since ever", ["Kind", "Stored", "Repeats", "Conflicts", "Newest"], ["vehicle", "meter"].map((kind) => {
    const { accepted, duplicates, conflicts } = stats.readings[kind];
    const newest = stats.newestReading[kind];
    return [kind, number(accepted), number(duplicates), number(conflicts), newest ? ago(Date.parse(newest), now()) : "never"];
  }));
  show("rollups", "Rollups", ["Stream", "All hours until", "Refreshed", "Stale hours", "Failures"], Object.entries(stats.rollups).map(([name, each]) => [
    name, moment(each.refreshedUntil), each.refreshedAt ? ago(Date.parse(each.refreshedAt), now()) : "never", number(each.staleHours),
    each.failures ? `${number(each.failures)}: ${each.lastError ?? ""}` : "0",
  ]), "No hour has been rolled up yet: the first refresh comes within minutes.");
  show("letters", "Dead letters: what was refused", ["Reason", "Letters"], Object.entries(stats.deadLetters.byCode).sort((a, b) => b[1] - a[1]).map(([code, letters]) => [code, number(letters)]),
    "None. What is refused is kept here with its reason, and can be tried again: fleetwatt dead-letters.");
  const stored = Object.entries(stats.storage).sort((a, b) => b[1].bytes - a[1].bytes);
  const all = stored.reduce((sum, [, each]) => sum + each.bytes, 0);
  show("storage", `Storage: ${bytes(all)}`, ["Table", "Size", "Chunks"], stored.map(([name, each]) => [name, bytes(each.bytes), number(each.chunks)]));
});

/** Shows a table under a name; one that is there is written over, so that what a reader has selected elsewhere stays. */
function show(name, title, head, rows, empty = "") {
  const tables = part("tables");
  let box = tables.querySelector(`[data-test="${name}"]`);
  if (!box) {
    const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": `${name}-title` });
    box = make("section", { "data-test": name }, make("h2", { class: "title", id: `${name}-title` }), scroll);
    tables.append(box);
  }
  const [heading, scroll] = box.children;
  say(heading, title);
  const shown = JSON.stringify([head, rows]);
  if (scroll.dataset.shown === shown) return;
  scroll.dataset.shown = shown;
  if (rows.length === 0) {
    scroll.replaceChildren(make("p", { class: "sub none" }, empty));
    return;
  }
  const cell = (words, index) => make(index ? "td" : "th", { class: index ? "num" : null, scope: index ? null : "row" }, words);
  scroll.replaceChildren(
    make("table", { class: "plain" },
      make("thead", {}, make("tr", {}, ...head.map((words, index) => make("th", { scope: "col", class: index ? "num" : null }, words)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))),
    ),
  );
}

function look() {
  if (document.hidden) return;
  loadReady();
  loadStats();
  showProcess();
}

frame();
showLive("timer5");
look();
setInterval(look, AGAIN_MS);
document.addEventListener("visibilitychange", look);
