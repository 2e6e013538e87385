// The choice of a window on a page, kept in its address.

import { make } from "./dom.js";
import { asField, LENGTHS, readSpan, writeSpan } from "./span.js";
import { now } from "./time.js";

const WORDS = { "24h": "24 h", "7d": "7 days", "30d": "30 days", custom: "From … to" };

/** Builds the choice into a place; `changed(span)` is called for each new one, not for the first. Gives the first. */
export function chooseSpan(place, changed) {
  let span = readSpan(location.search);
  const from = make("input", { type: "datetime-local", "data-test": "from", "aria-label": "From", step: 60 });
  const to = make("input", { type: "datetime-local", "data-test": "to", "aria-label": "To", step: 60 });
  const apply = make("button", { type: "button", "data-test": "apply" }, "Show");
  const problem = make("span", { class: "below", role: "alert" });
  const custom = make("div", { class: "custom" }, from, make("span", { "aria-hidden": "true" }, "to"), to, apply, problem);
  const choice = make("fieldset", { class: "filter" }, make("legend", { class: "visually-hidden" }, "Window"));

  const use = (next) => {
    span = next;
    history.replaceState(null, "", location.pathname + writeSpan(span));
    changed(span);
  };
  for (const name of Object.keys(WORDS)) {
    const radio = make("input", { type: "radio", name: "window", value: name, "data-test": `window-${name}`, checked: span.name === name });
    radio.addEventListener("change", () => {
      custom.hidden = name !== "custom";
      if (name === "custom") fillFields();
      else use({ name });
    });
    choice.append(make("label", {}, radio, make("span", {}, WORDS[name])));
  }
  apply.addEventListener("click", () => {
    const wanted = { name: "custom", from: Date.parse(from.value), to: Date.parse(to.value) };
    const good = wanted.from < wanted.to;
    problem.textContent = good ? "" : "The start must lie before the end.";
    if (good) use(wanted);
  });
  const fillFields = () => {
    from.value = asField(span.from ?? now() - LENGTHS[span.name]);
    to.value = asField(span.to ?? now());
  };
  custom.hidden = span.name !== "custom";
  if (!custom.hidden) fillFields();
  place.append(choice, custom);
  return span;
}
