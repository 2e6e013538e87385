// Where a sign-in leads: only to one of our own pages, whatever an address asks for. Nothing here touches the page.

const PAGES = /^\/(?:$|alerts$|engine$|api$|(?:vehicles|meters)\/[^/]+$)/;

/** Gives the page that `wanted` names, the fleet's for whatever is none of ours. */
export function safeNext(wanted, origin) {
  let found;
  try {
    found = new URL(wanted ?? "/", origin);
  } catch {
    return "/";
  }
  if (found.origin !== origin || !PAGES.test(found.pathname)) return "/";
  return found.pathname + found.search;
}
