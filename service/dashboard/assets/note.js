// What stands where figures cannot: why, and what to do about it.

import { ApiError } from "./api.js";
import { make } from "./dom.js";

/** Shows an error in a place, with a way to try again. */
export function showError(place, error, retry) {
  const shown = place.querySelector(".note.bad");
  if (shown?.firstChild.textContent === error.message) {
    // The same again: a reader is on the button perhaps, and need not hear of it twice.
    shown.lastChild.disabled = false;
    return;
  }
  const again = make("button", { type: "button", "data-test": "retry" }, "Try again");
  again.addEventListener("click", () => {
    again.disabled = true;
    retry();
  });
  place.replaceChildren(make("p", { class: "note bad", role: "alert" }, make("span", {}, error.message), again));
}

/** Shows in words that there is nothing, and what brings something. */
export function showEmpty(place, ...words) {
  place.replaceChildren(make("div", { class: "note", "data-test": "empty" }, ...words));
}

/** Takes away what was shown. */
export function clear(place) {
  if (place.hasChildNodes()) place.replaceChildren();
}

/** Gives a function that loads and shows a part of a page, tells errors in `place`, and drops answers that came too late. */
export function loader(place, load, show) {
  let current = null;
  return async function reload(...asked) {
    current?.abort();
    const mine = new AbortController();
    current = mine;
    place.setAttribute("aria-busy", "true");
    try {
      const found = await load(...asked, mine.signal);
      if (current !== mine) return;
      clear(place);
      show(found, ...asked);
    } catch (error) {
      if (current !== mine) return;
      if (!(error instanceof ApiError)) throw error;
      showError(place, error, () => reload(...asked));
    } finally {
      if (current === mine) place.removeAttribute("aria-busy");
    }
  };
}
