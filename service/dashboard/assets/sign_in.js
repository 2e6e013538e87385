// The page that asks for a key, once. The key goes into one request and nowhere else.

import { ApiError, ask, tell } from "./api.js";
import { part, say } from "./dom.js";
import { bindTheme, showLive } from "./frame.js";
import { safeNext } from "./next.js";

const WORDS = {
  bad_key: "The service does not know this key. Was all of it copied? It begins with fw_.",
  expired_key: "The time of this key is over. Ask for a new one.",
  revoked_key: "This key was revoked. Ask for a new one.",
  not_allowed: "This key may not read. Ask for one with the scope read.",
};

const form = part("form");
const key = form.elements.namedItem("key");
const next = safeNext(new URLSearchParams(location.search).get("next"), location.origin);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const submit = part("submit");
  submit.disabled = true;
  say(part("problem"), "");
  try {
    await tell("/v1/sign-in", { key: key.value.trim() });
    key.value = "";
    location.replace(next);
    return;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const wait = error.status === 429 && error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
    say(part("problem"), (WORDS[error.code] ?? error.message) + wait);
    key.setAttribute("aria-invalid", "true");
    key.focus();
  } finally {
    submit.disabled = false;
  }
});

part("show").addEventListener("click", (event) => {
  const shown = key.type === "text";
  key.type = shown ? "password" : "text";
  event.currentTarget.setAttribute("aria-pressed", String(!shown));
  say(event.currentTarget, shown ? "Show" : "Hide");
});

bindTheme();
showLive("none");
key.focus();
ask("/v1/me")
  .then((me) => {
    if (me.signedIn) location.replace(next);
    part("open").hidden = me.keysRequired;
  })
  .catch(() => say(part("problem"), "The service does not answer."));
