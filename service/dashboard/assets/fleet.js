// The fleet's page. What arrives first is shown first: the overview, the first states, then all of them and what each
// vehicle made of its energy in the last day.

import { ask } from "./api.js";
import { atMost, make, part, say } from "./dom.js";
import { percent } from "./format.js";
import { frame, noteReading, showLive, whyRefused } from "./frame.js";
import { showHours } from "./fleet_hours.js";
import { showKpis } from "./kpis.js";
import { Live } from "./live.js";
import { clear, loader, showEmpty, showError } from "./note.js";
import { Rows, SORTS } from "./rows.js";
import { LongTable } from "./table.js";
import { now } from "./time.js";
import { createRow, updateRow } from "./vehicle_rows.js";

const FIRST_PAGE = 200; // on the screen while the rest comes
const PAGE = 5_000;
const BALANCES_MS = 5 * 60_000;
const HOLD_MS = 3_000;

const rows = new Rows();
const table = new LongTable(part("rows"), { create: createRow, update: updateRow });
const asked = readAddress();
let complete = false;
let pointedAt = -Infinity;

const refresh = atMost(1_000, () => {
  const { rows: shown, counts } = rows.view(asked, now());
  // Nobody should hit the wrong row because they changed places under the pointer.
  if (order.rows.length === shown.length && performance.now() - pointedAt < HOLD_MS) {
    table.draw();
    refresh();
  } else {
    keepOrder(shown);
  }
  for (const [name, count] of Object.entries(counts)) say(document.querySelector(`[data-count="${name}"]`), count.toLocaleString("en"));
  tellShown(order.rows.length);
});
const order = { rows: [] };

function keepOrder(shown) {
  order.rows = shown;
  table.show(shown);
}

function tellShown(count) {
  const all = rows.size.toLocaleString("en");
  const words = `${count.toLocaleString("en")} of ${all}${complete ? "" : ", loading"}`;
  say(part("shown"), words);
  const place = part("list-note");
  part("table").hidden = count === 0;
  if (count > 0) {
    if (place.querySelector('[data-test="empty"]')) clear(place);
  } else if (complete) {
    if (rows.size > 0) showEmpty(place, make("p", {}, "No vehicle matches. Clear the search or choose another state."));
    else showEmpty(place, ...firstSteps());
  }
}

function firstSteps() {
  const reading = { vehicleId: "VH-001", soc: 63.5, kwhDeliveredDc: 0.57, batteryTemp: 28.4, timestamp: new Date(Math.floor(now() / 1000) * 1000).toISOString() };
  return [
    make("h2", {}, "No vehicle has reported yet"),
    make("p", {}, "Vehicles appear with their first reading. Send one by hand:"),
    make("pre", { tabindex: 0 }, `curl '${location.origin}/v1/telemetry' -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(reading)}'`),
    make("p", {}, "Over MQTT the topic is telemetry/vehicle/{vehicleId}. A simulated fleet comes with ", make("code", {}, "fleetwatt demo"), "; all routes are at ", make("a", { href: "/api" }, "the API page"), "."),
  ];
}

const loadStates = loader(
  part("list-note"),
  async (signal) => {
    let after = null;
    do {
      const page = await ask("/v1/analytics/vehicles/states", { limit: after === null ? FIRST_PAGE : PAGE, after }, { signal });
      takeStates(page.vehicles);
      after = page.next;
    } while (after !== null);
  },
  () => {
    if (!complete) comeBack();
    complete = true;
    refresh();
    loadBalances();
  },
);

const loadBalances = loader(
  part("balances-note") ?? document.createElement("div"),
  (signal) => ask("/v1/analytics/fleet", { by: "vehicle", limit: 10_000, leastKwh: 0 }, { signal }),
  (fleet) => {
    rows.applyBalances(fleet.vehicles);
    say(part("below-word"), `Below ${percent(fleet.threshold, 0)}`);
    refresh();
  },
);

function takeStates(vehicles) {
  rows.applyStates(vehicles);
  for (const vehicle of vehicles) noteReading(Date.parse(vehicle.timestamp));
  refresh();
}

/** Goes to where a reader was before following a row: the browser tries before there are rows. */
function comeBack() {
  const place = history.state?.place ?? 0;
  if (place === 0 || scrollY > 0) return;
  keepOrder(rows.view(asked, now()).rows);
  scrollTo(0, place);
}

function readAddress() {
  const query = new URLSearchParams(location.search);
  const sort = query.get("sort") ?? "id";
  return {
    search: query.get("q") ?? "",
    filter: query.get("state") ?? "",
    sort: SORTS.includes(sort) ? sort : "id",
    descending: query.get("order") === "down",
  };
}

function change(changes) {
  Object.assign(asked, changes);
  const query = new URLSearchParams();
  if (asked.search) query.set("q", asked.search);
  if (asked.filter) query.set("state", asked.filter);
  if (asked.sort !== "id" || asked.descending) query.set("sort", asked.sort);
  if (asked.descending) query.set("order", "down");
  history.replaceState(history.state, "", query.size ? `?${query}` : location.pathname);
  showAsked();
  keepOrder(rows.view(asked, now()).rows);
  tellShown(order.rows.length);
}

function showAsked() {
  for (const head of document.querySelectorAll("th[data-key]")) {
    if (head.dataset.key === asked.sort) head.setAttribute("aria-sort", asked.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function bindTools() {
  const search = part("search");
  search.value = asked.search;
  search.addEventListener("input", () => change({ search: search.value }));
  for (const radio of part("filter").querySelectorAll("input")) {
    radio.checked = radio.value === asked.filter;
    radio.addEventListener("change", () => change({ filter: radio.value }));
  }
  for (const head of document.querySelectorAll("th[data-key]")) {
    const sort = head.dataset.key;
    head.firstElementChild.addEventListener("click", () =>
      change({ sort, descending: asked.sort === sort && !asked.descending }),
    );
  }
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
    event.preventDefault();
    search.focus();
  });
  part("rows").addEventListener("pointermove", () => (pointedAt = performance.now()), { passive: true });
  showAsked();
}

bindTools();
addEventListener("pagehide", () => history.replaceState({ place: scrollY }, ""));
frame({
  onOverview: (overview) => {
    clear(part("kpis-note"));
    showKpis(overview);
  },
  onTrouble: (error, retry) => showError(part("kpis-note"), error, retry),
});
new Live("kind=vehicle", {
  hello: loadStates,
  states: (told) => takeStates(told.vehicles),
  poll: loadStates,
  state: showLive,
  refused: whyRefused,
}).start();
setInterval(loadBalances, BALANCES_MS);
setInterval(refresh, 5_000); // what falls silent says nothing
showHours(part("hours"));
