/**
 * A part of a page that follows what happens is asked for again by htmx when the feed
 * of changes tells of one. Not while the page is hidden, and not while a person is about
 * to confirm or fill in something in it: what is under the pointer must not move.
 */

const SPACING_MS = 800;
/** @type {EventSource | null} */
let feed = null;
let last = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let due;

function part() {
  const found = document.getElementById("live");
  return found?.dataset.follow ? found : null;
}

/** Ask for the part once, and not more often than it can be read. */
function ask() {
  clearTimeout(due);
  due = setTimeout(() => {
    last = Date.now();
    part()?.dispatchEvent(new CustomEvent("changed"));
  }, Math.max(0, last + SPACING_MS - Date.now()));
}

/** @param {MessageEvent<string>} message */
function hear(message) {
  const followed = part()?.dataset.follow;
  const change = JSON.parse(message.data);
  if (followed === "*" || followed === change.id) ask();
}

/** How far a step is, or an upload: its bar moves, and nothing else is touched.
 * @param {MessageEvent<string>} message */
function move(message) {
  const told = JSON.parse(message.data);
  const followed = part()?.dataset.follow;
  const bar = document.querySelector(`[data-progress="${CSS.escape(told.id)}"]`);
  const phase = `${told.state ?? told.phase}`;
  if (!bar || (bar instanceof HTMLElement && bar.dataset.phase && bar.dataset.phase !== phase)) {
    if (followed === told.id || followed === (message.type === "upload" ? "uploads" : "*")) ask();
    return;
  }
  const meter = bar.querySelector("progress");
  const text = bar.querySelector(".percent");
  if (meter) meter.value = told.percent;
  if (text) text.textContent = `${told.percent} %`;
}

function listen() {
  const address = document.body.dataset.feed;
  if (!address || !part() || document.hidden) {
    feed?.close();
    feed = null;
    return;
  }
  if (feed) return;
  feed = new EventSource(address);
  feed.addEventListener("change", hear);
  feed.addEventListener("progress", move);
  feed.addEventListener("upload", move);
  feed.addEventListener("hello", () => {
    document.body.classList.remove("cut-off");
    document.body.classList.add("live-feed");
    ask();
  });
  feed.addEventListener("error", () => document.body.classList.add("cut-off"));
}

document.addEventListener("visibilitychange", listen);
document.addEventListener("DOMContentLoaded", listen);
listen();

/** @param {Event} event */
function holdBack(event) {
  const target = event.target;
  if (!(target instanceof HTMLElement) || target.id !== "live") return;
  const asking = target.querySelector("details[open].confirm") !== null;
  const ticking = target.querySelector("input[type=checkbox]:checked") !== null;
  const typing = target.querySelector("input:focus, select:focus, textarea:focus") !== null;
  const marking = (getSelection()?.toString() ?? "") !== "";
  if (document.hidden || asking || ticking || typing || marking) event.preventDefault();
}

document.addEventListener("htmx:beforeRequest", holdBack);

/** Escape puts a question aside, and the focus back to what asked it. */
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const asking = document.querySelector("details.confirm[open]");
  if (!(asking instanceof HTMLDetailsElement)) return;
  asking.open = false;
  asking.querySelector("summary")?.focus();
});
