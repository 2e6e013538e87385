// The page of alerts: filters in the address, the list below.

import { alertList } from "./alert_list.js";
import { atMost, part } from "./dom.js";
import { frame, showLive } from "./frame.js";

const AGAIN_MS = 60_000;
const form = part("filters");
const load = alertList(part("alerts"), "No alert matches. Open ones appear after the refresh of the hour in which a charger began to lose energy.", "Alerts, newest first");

function asked() {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
}

const show = atMost(300, () => {
  const filters = asked();
  const query = new URLSearchParams(Object.entries(filters).filter(([name, value]) => value && !(name === "state" && value === "open")));
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  load(filters);
});

for (const [name, value] of new URLSearchParams(location.search)) {
  const field = form.elements.namedItem(name);
  if (field) field.value = value;
}
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(show));
frame();
showLive("timer");
load(asked());
setInterval(() => {
  // A reader who has gone on to older ones keeps them.
  if (!document.hidden && scrollY < 200) load(asked());
}, AGAIN_MS);
