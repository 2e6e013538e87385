// How a vehicle looks as a row of the fleet's table.

import { make, say, sign } from "./dom.js";
import { ago, number, percent, quantity } from "./format.js";
import { now } from "./time.js";

export const STATE_WORDS = { charging: "Charging", idle: "Idle", silent: "Silent" };

/** Makes the row of a vehicle, without figures. */
export function createRow(row) {
  const link = make("a", { href: `/vehicles/${encodeURIComponent(row.id)}` }, row.id);
  const bar = make("span", { class: "soc-bar", "aria-hidden": "true" }, make("i"));
  const element = make(
    "tr",
    { "data-id": row.id, "data-test": "vehicle-row" },
    // On a phone the state stands under the name, and its own column is left out.
    make("th", { scope: "row", class: "c-id" }, link, make("span", { class: "under" })),
    make("td", { class: "c-state", "data-test": "cell-state" }),
    make("td", { class: "c-soc", "data-test": "cell-soc" }, make("span", { class: "soc-figure" }), bar),
    make("td", { class: "c-efficiency num", "data-test": "cell-efficiency" }),
    make("td", { class: "c-energy num", "data-test": "cell-energy" }),
    make("td", { class: "c-temp num", "data-test": "cell-temp" }),
    make("td", { class: "c-seen num", "data-test": "cell-seen" }),
  );
  return element;
}

/** Writes the figures of a vehicle into its row. */
export function updateRow(element, row) {
  const [name, state, soc, efficiency, energy, temp, seen] = element.children;
  if (element.dataset.state !== row.state) {
    element.dataset.state = row.state;
    state.replaceChildren(stateBadge(row.state));
    name.lastChild.replaceChildren(stateBadge(row.state));
  }
  say(soc.firstChild, row.soc === null ? "–" : `${number(row.soc)} %`);
  const width = `${row.soc ?? 0}%`;
  const fill = soc.lastChild.firstChild;
  if (fill.style.inlineSize !== width) fill.style.inlineSize = width;
  showEfficiency(efficiency, row.efficiency, row.below);
  say(energy, quantity(row.energy, "kWh", 1));
  say(temp, quantity(row.temp, "°C", 1));
  say(seen, ago(row.seen, now()));
}

/** Makes the sign and the word of a state. */
export function stateBadge(state) {
  return make("span", { class: `state ${state}` }, sign(state), STATE_WORDS[state]);
}

/** Writes an efficiency; one below the threshold is marked by a sign and a word, not by colour alone. */
export function showEfficiency(cell, ratio, below) {
  const words = percent(ratio);
  const shown = `${words}|${below}`;
  if (cell.dataset.shown === shown) return;
  cell.dataset.shown = shown;
  cell.classList.toggle("below", below);
  cell.replaceChildren(
    ...(below ? [sign("warning"), make("span", { class: "visually-hidden" }, "below the threshold: ")] : []),
    words,
  );
}
