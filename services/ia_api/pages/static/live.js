/**
 * Parts of a page that follow what happens are asked for again by htmx. Not while the
 * page is hidden, and not while a person is about to confirm something in it, or marks
 * text to copy: what is under the pointer must not move.
 */

/** @param {Event} event */
function holdBack(event) {
  const part = event.target;
  if (!(part instanceof HTMLElement) || part.id !== "live") return;
  const asking = part.querySelector("details.confirm[open]") !== null;
  const marked = getSelection();
  const marking = marked !== null && !marked.isCollapsed && part.contains(marked.anchorNode);
  if (document.hidden || asking || marking) event.preventDefault();
}

document.addEventListener("htmx:beforeRequest", holdBack);

/** Whoever reads is told when the parts can no longer follow. */
document.addEventListener("htmx:afterRequest", (event) => {
  const stale = document.getElementById("stale");
  const detail = event instanceof CustomEvent ? event.detail : null;
  if (stale && detail) stale.hidden = detail.successful;
});

/** Where the focus is in a table that scrolls, it stays where it was scrolled to. */
/** @type {Map<string, number>} */
const scrolled = new Map();

document.addEventListener("htmx:beforeSwap", () => {
  for (const region of document.querySelectorAll("#live .scroll[aria-label], #live .scroll[aria-labelledby]")) {
    scrolled.set(nameOf(region), region.scrollLeft);
  }
});

document.addEventListener("htmx:afterSwap", () => {
  for (const region of document.querySelectorAll("#live .scroll")) {
    region.scrollLeft = scrolled.get(nameOf(region)) ?? 0;
  }
});

/** @param {Element} region */
function nameOf(region) {
  return region.getAttribute("aria-label") ?? region.getAttribute("aria-labelledby") ?? "";
}

/** Escape puts a question aside, and the focus back to what asked it. */
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const asking = document.querySelector("details.confirm[open]");
  if (!(asking instanceof HTMLDetailsElement)) return;
  asking.open = false;
  asking.querySelector("summary")?.focus();
});
