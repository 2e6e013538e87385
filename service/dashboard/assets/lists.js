// Tables that come page by page: the newest first, more on demand.

import { ask } from "./api.js";
import { make } from "./dom.js";
import { clear, loader, showEmpty, showError } from "./note.js";

/**
 * Builds a list into a place. `path` and `name` are where the API has it; `columns` are [words, class]; `row(item)` makes a tr;
 * `empty` says what there is not. Gives a function that loads it anew with other parameters.
 */
export function pagedList(place, { path, name, columns, caption, row, empty, limit = 25, test, onItems = () => {} }) {
  const note = make("div");
  const body = make("tbody");
  const heads = columns.map(([words, style]) => make("th", { scope: "col", class: style ?? null }, words));
  const table = make("table", { class: "plain" }, make("caption", { class: "visually-hidden" }, caption), make("thead", {}, make("tr", {}, ...heads)), body);
  const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption, "data-test": test }, table);
  const more = make("button", { type: "button", "data-test": `${test}-more` }, "Show more");
  scroll.hidden = true;
  more.hidden = true;
  place.append(scroll, note, more);
  let asked = {};
  let next = null;

  function add(page) {
    body.append(...page[name].map(row));
    onItems(page[name]);
    next = page.next;
    more.hidden = next === null;
    scroll.hidden = !body.hasChildNodes();
  }
  const first = async (parameters, signal) => {
    try {
      return await ask(path, { ...parameters, limit }, { signal });
    } catch (error) {
      if (error.status === 400) {
        // What was asked for is wrong: rows of another question must not look like its answer.
        body.replaceChildren();
        scroll.hidden = more.hidden = true;
      }
      if (error.status !== 404) throw error;
      return { [name]: [], next: null }; // nobody ever heard of the device
    }
  };
  const load = loader(note, first, (page) => {
    body.replaceChildren();
    add(page);
    if (scroll.hidden) showEmpty(note, make("p", {}, empty));
  });
  const loadMore = async () => {
    more.disabled = true;
    try {
      add(await ask(path, { ...asked, limit, after: next }));
      clear(note);
    } catch (error) {
      showError(note, error, loadMore);
    } finally {
      more.disabled = false;
    }
  };
  more.addEventListener("click", loadMore);
  return (parameters) => {
    asked = parameters;
    return load(parameters);
  };
}
