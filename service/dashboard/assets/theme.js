// A classic script at the head of a page, so that the colours are right from the first paint on. Without a choice of the
// reader's, the style sheet follows the system.
(() => {
  const KEY = "fleetwatt-theme";
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // No storage here: the choice then lasts as long as the page.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
