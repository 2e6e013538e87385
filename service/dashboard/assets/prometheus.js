// Figures from the text that is there for Prometheus. Nothing here touches the page.

/** Gives the sum of a metric's samples over all their labels, null where there is none. */
export function sample(text, name) {
  let sum = null;
  for (const line of text.split("\n")) {
    if (!line.startsWith(name)) continue;
    const match = /^(?:\{.*\})? (\S+)/.exec(line.slice(name.length));
    if (match) sum = (sum ?? 0) + Number(match[1]);
  }
  return sum;
}
