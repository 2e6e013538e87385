// A table of any length in the page's own scroll: only rows in the window exist. They are kept by id, so that a row keeps
// its focus while it moves.

import { make } from "./dom.js";
import { visibleRows } from "./scroll.js";

export class LongTable {
  #body;
  #create;
  #update;
  #rows = [];
  #drawn = new Map();
  #before = spacer();
  #after = spacer();
  #rowHeight = 0;

  /** `create(row)` makes a tr, `update(tr, row)` writes what changes. All rows are as high as --row-height says. */
  constructor(body, { create, update }) {
    this.#body = body;
    this.#create = create;
    this.#update = update;
    body.append(this.#before, this.#after);
    let asked = false;
    const redraw = () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        this.draw({ anew: false });
      });
    };
    addEventListener("scroll", redraw, { passive: true });
    addEventListener("resize", () => {
      this.#rowHeight = 0;
      redraw();
    });
  }

  /** Takes the rows to show, in order, each with an `id`. */
  show(rows) {
    this.#rows = rows;
    this.#body.parentElement.setAttribute("aria-rowcount", rows.length + 1);
    this.draw();
  }

  /** Gives the places of the first and the last row that a reader sees, from 1. */
  get seen() {
    const top = -this.#body.getBoundingClientRect().top;
    const { first, last } = visibleRows({
      top, height: innerHeight, rowHeight: this.#height(), count: this.#rows.length, spare: 0,
    });
    return [Math.min(first + 1, last), last];
  }

  /** Draws what stands in the window. A scroll writes only rows that come into it: figures change once a second at most. */
  draw({ anew = true } = {}) {
    const rowHeight = this.#height();
    const window = visibleRows({
      top: -this.#body.getBoundingClientRect().top, height: innerHeight, rowHeight, count: this.#rows.length,
    });
    const wanted = this.#rows.slice(window.first, window.last);
    const ids = new Set(wanted.map((row) => row.id));
    for (const [id, element] of this.#drawn) {
      if (ids.has(id)) continue;
      element.remove();
      this.#drawn.delete(id);
    }
    let place = this.#before.nextSibling;
    wanted.forEach((row, index) => {
      let element = this.#drawn.get(row.id);
      if (!element) {
        element = this.#create(row);
        this.#drawn.set(row.id, element);
        this.#update(element, row);
      } else if (anew) {
        this.#update(element, row);
      }
      const number = String(window.first + index + 2);
      if (element.ariaRowIndex !== number) element.ariaRowIndex = number;
      if (element === place) place = place.nextSibling;
      else this.#body.insertBefore(element, place);
    });
    stretch(this.#before, window.before);
    stretch(this.#after, window.after);
  }

  #height() {
    this.#rowHeight ||= parseFloat(getComputedStyle(this.#body).getPropertyValue("--row-height"));
    return this.#rowHeight;
  }
}

function spacer() {
  return make("tr", { class: "spacer", "aria-hidden": "true" }, make("td"));
}

function stretch(row, height) {
  const wanted = `${height}px`;
  if (row.firstChild.style.height !== wanted) row.firstChild.style.height = wanted;
  row.hidden = height === 0;
}
