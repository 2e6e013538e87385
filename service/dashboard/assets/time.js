// The engine's clock: a reader's computer may be minutes off, and would call fresh readings stale.

const STALE_AFTER_MS = 5 * 60_000; // as the overview counts devices that report

let ahead = 0;

/** Takes note of the time that an answer tells. */
export function noteServerTime(text) {
  if (text) ahead = Date.parse(text) - Date.now();
}

/** Gives the engine's time, ms since 1970. */
export function now() {
  return Date.now() + ahead;
}

/** Tells whether the newest reading is so old that figures of now are none. */
export function isStale(newestAt, at = now()) {
  return newestAt !== null && at - newestAt > STALE_AFTER_MS;
}

export { STALE_AFTER_MS };
