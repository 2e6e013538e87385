// Which rows of a long table stand in the window. Nothing here touches the page.

/**
 * Gives the rows to draw, [first, last), and the heights (px) of what is left out before and after them. `top` is how far the
 * first row lies above the upper edge of the window (negative while it is below), `spare` how many rows beyond each edge are
 * drawn, so that a quick scroll meets rows and not white.
 */
export function visibleRows({ top, height, rowHeight, count, spare = 12 }) {
  const first = Math.min(Math.max(0, Math.floor(top / rowHeight) - spare), Math.max(0, count - 1));
  const last = Math.min(count, Math.max(first, Math.ceil((top + height) / rowHeight) + spare));
  return { first, last, before: first * rowHeight, after: (count - last) * rowHeight };
}
