// What stands around each page: who is signed in, colours, the zone of all times, whether figures come in live, and
// whether they are stale.

import { ask, signIn, tell } from "./api.js";
import { part, say } from "./dom.js";
import { clock, duration, moment, number, offset, zone } from "./format.js";
import { watchOverview } from "./overview.js";
import { isStale, now } from "./time.js";

const WORDS = {
  connecting: "connecting",
  live: "live",
  again: "connecting again",
  polling: "no stream: asking every 15 s",
  paused: "paused",
  // Pages without a stream
  timer: "asks every minute",
  timer5: "asks every 5 s",
  none: "",
};
const OVERVIEW_MS = { fast: 5_000, slow: 15_000 };

let newestAt = null;
let lostAt = null;

/** Sets the frame up; `onOverview` and `onTrouble` are for a page that shows the overview itself. */
export function frame({ onOverview = null, onTrouble = null } = {}) {
  markPage();
  bindTheme();
  say(part("zone"), `Times in ${zone()} (${offset(new Date().getTimezoneOffset())})`);
  showWho();
  const every = onOverview ? OVERVIEW_MS.fast : OVERVIEW_MS.slow;
  const look = watchOverview(
    every,
    (overview) => {
      lostAt = null;
      newestAt = overview.newestReadingAt ? Date.parse(overview.newestReadingAt) : null;
      showAlerts(overview.alerts.open);
      showStale();
      onOverview?.(overview);
    },
    (error) => {
      lostAt ??= now();
      showStale();
      onTrouble?.(error, look);
    },
  );
  setInterval(showStale, 5_000);
}

/** Tells how figures come in; one of the words of live.js. */
export function showLive(state) {
  const badge = part("live");
  badge.dataset.state = state;
  badge.hidden = state === "none";
  say(part("live-words"), WORDS[state]);
}

/** Takes note of a reading that came by the stream: figures may be fresh again before the next overview. */
export function noteReading(at) {
  if (newestAt === null || at > newestAt) newestAt = at;
}

/** Finds out why a stream is refused: without a good sign-in nothing else works either. */
export async function whyRefused() {
  const me = await ask("/v1/me").catch(() => null);
  if (me?.keysRequired && !me.signedIn) await signIn();
}

function showStale() {
  const bar = part("stale");
  let words = "";
  if (lostAt !== null && now() - lostAt > 10_000) {
    words = `The engine does not answer since ${clock(lostAt, now())}: figures are those of then.`;
  } else if (isStale(newestAt)) {
    const age = duration((now() - newestAt) / 1000);
    words = `Data are stale: the newest reading is of ${moment(new Date(newestAt).toISOString())}, ${age} ago.`;
  }
  say(bar, words);
  bar.hidden = words === "";
}

function showAlerts(open) {
  const count = part("alert-count");
  say(count, number(open));
  count.hidden = open === 0;
  count.setAttribute("aria-label", `${open} open`);
}

function markPage() {
  for (const link of document.querySelectorAll('[data-test="nav"] a')) {
    const path = link.getAttribute("href");
    const within = path === "/" && /^\/(vehicles|meters)\//.test(location.pathname);
    if (path === location.pathname) link.setAttribute("aria-current", "page");
    else if (within) link.classList.add("within");
  }
}

async function showWho() {
  const me = await ask("/v1/me").catch(() => null);
  if (!me?.keysRequired || !me.signedIn) return;
  const name = part("signed-in");
  say(name, me.name ?? "signed in");
  if (me.expiresAt) name.title = `signed in until ${moment(me.expiresAt)}`;
  part("who").hidden = false;
  part("sign-out").addEventListener("click", async () => {
    try {
      await tell("/v1/sign-out", {});
    } catch (error) {
      say(name, `not signed out: ${error.message}`);
      return;
    }
    location.replace("/sign-in");
  });
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Has the button for the colours work. */
export function bindTheme() {
  const button = part("theme");
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("fleetwatt-theme", theme);
    } catch {
      // It holds for this page, then.
    }
    show();
    dispatchEvent(new Event("themechange"));
  });
}
