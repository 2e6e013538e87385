// The window of a page: the last 24 hours, 7 or 30 days, or from and to by hand. It stands in the address, so that a link
// shows to others what one sees. Nothing here touches the page.

const HOUR = 3_600_000;
export const LENGTHS = { "24h": 24 * HOUR, "7d": 7 * 24 * HOUR, "30d": 30 * 24 * HOUR };
const BY_DAY_FROM = 8 * 24 * HOUR;

/** Reads a window from an address; what cannot be read is the last 24 hours. */
export function readSpan(search) {
  const query = new URLSearchParams(search);
  const from = Date.parse(query.get("from") ?? "");
  const to = Date.parse(query.get("to") ?? "");
  if (from < to) return { name: "custom", from, to };
  const name = query.get("window");
  return { name: Object.hasOwn(LENGTHS, name ?? "") ? name : "24h" };
}

/** Writes a window for an address. */
export function writeSpan(span) {
  if (span.name === "custom") return `?from=${new Date(span.from).toISOString()}&to=${new Date(span.to).toISOString()}`;
  return span.name === "24h" ? "" : `?window=${span.name}`;
}

/** Gives the parameters of a question about a window; long ones go by day. */
export function parametersOf(span, now) {
  const to = span.name === "custom" ? span.to : now;
  const from = span.name === "custom" ? span.from : now - LENGTHS[span.name];
  return {
    from: new Date(from).toISOString(),
    to: new Date(to).toISOString(),
    by: to - from > BY_DAY_FROM ? "day" : "hour",
  };
}

/** Says a time as a field for it takes it: without a zone, in the reader's. */
export function asField(ms) {
  const at = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return at.toISOString().slice(0, 16);
}
