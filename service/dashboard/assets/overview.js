// The overview: what every page asks again and again, since it tells whether figures of now are any.

import { ask } from "./api.js";
import { zone } from "./format.js";
import { noteServerTime } from "./time.js";

let known = null;
let zoned = zone();

/** Gives the newest overview; a zone that the server does not know makes its days those of UTC. Raises ApiError. */
export async function askOverview() {
  try {
    known = await ask("/v1/analytics/overview", { tz: zoned });
  } catch (error) {
    if (error.status !== 400 || zoned === "UTC") throw error;
    zoned = "UTC";
    return askOverview();
  }
  noteServerTime(known.asOf);
  return known;
}

/** Has the overview shown now and every so often, while the page is seen; `failed` gets what goes wrong. */
export function watchOverview(everyMs, show, failed) {
  let asking = false;
  const look = async () => {
    if (asking || document.hidden) return;
    asking = true;
    try {
      show(await askOverview());
    } catch (error) {
      failed(error);
    } finally {
      asking = false;
    }
  };
  setInterval(look, everyMs);
  document.addEventListener("visibilitychange", look);
  look();
  return look;
}
