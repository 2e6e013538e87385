// Elements by hand. Text always goes in as text: what devices and keys are called never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** Gives the element of the page that carries data-part=name. */
export function part(name, root = document) {
  return root.querySelector(`[data-part="${name}"]`);
}

/** Makes an element; `attributes` with the value null or false are left out. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an element of SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text only where it differs: writing the same one costs layout, and is read out again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Gives a function that runs `work` at most once in `everyMs`, and once more for what came in between. */
export function atMost(everyMs, work) {
  let timer = null;
  let last = -Infinity;
  const run = () => {
    timer = null;
    last = performance.now();
    work();
  };
  return () => {
    if (timer === null) timer = setTimeout(run, Math.max(0, last + everyMs - performance.now()));
  };
}

// 16 by 16; each has a shape of its own, so that a state is told without its colour.
const SHAPES = {
  charging: "M9.2 1.2 3.4 9h3.9l-1 5.8L12.6 7H8.6z",
  idle: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zm0 1.7a3.8 3.8 0 1 1 0 7.6 3.8 3.8 0 0 1 0-7.6z",
  silent: "M3.6 2.4 2.4 3.6 6.8 8l-4.4 4.4 1.2 1.2L8 9.2l4.4 4.4 1.2-1.2L9.2 8l4.4-4.4-1.2-1.2L8 6.8z",
  warning: "M8 1.6 15.2 14.2H.8zM7.2 6v4.2h1.6V6zm0 5.2v1.6h1.6v-1.6z",
  good: "M6.4 13 1.6 8.2l1.3-1.3 3.5 3.5 6.7-6.8L14.4 5z",
  up: "M8 4 3 10h10z",
};

/** Makes one of our signs; it only accompanies words. */
export function sign(name) {
  return draw(
    "svg",
    { viewBox: "0 0 16 16", width: 14, height: 14, class: `sign ${name}`, "aria-hidden": "true" },
    draw("path", { d: SHAPES[name], fill: "currentColor", "fill-rule": "evenodd" }),
  );
}
