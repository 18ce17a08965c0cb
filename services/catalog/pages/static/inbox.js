/**
 * The inbox by keyboard: on the box of an item the arrows move, with Shift they choose on
 * the way, Ctrl+A chooses all, Delete asks why the chosen are kept out. Space and Enter do
 * what they do in any form: choose one, and let in what is chosen.
 */

const boxes = () => /** @type {HTMLInputElement[]} */ ([...document.querySelectorAll('[data-one="item"]:enabled')]);

/** @type {HTMLInputElement | undefined} */
let last;

document.addEventListener("keydown", (event) => {
  const here = event.target;
  if (!(here instanceof HTMLInputElement) || here.dataset.one !== "item") return;
  const every = boxes();
  const at = every.indexOf(here);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: every.length - 1 }[event.key];
  if (to !== undefined) {
    const next = every[Math.min(Math.max(to, 0), every.length - 1)];
    if (event.shiftKey) between(here, next, true);
    next.focus();
    next.closest("li")?.scrollIntoView({ block: "nearest" });
  } else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) {
    const all = every.every((box) => box.checked);
    for (const box of every) box.checked = !all;
  } else if (event.key === "Delete") {
    const asking = document.querySelector("#waiting details.confirm");
    if (asking instanceof HTMLDetailsElement) asking.open = true;
    document.getElementById("reason")?.focus();
  } else return;
  event.preventDefault();
  count();
});

/** With Shift a click chooses all from the last one that was clicked. */
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || box.dataset.one !== "item") return;
  if (event.shiftKey && last?.isConnected) between(last, box, box.checked);
  last = box;
});

document.addEventListener("change", count);

/**
 * @param {HTMLInputElement} one
 * @param {HTMLInputElement} other
 * @param {boolean} chosen
 */
function between(one, other, chosen) {
  const every = boxes();
  const ends = [every.indexOf(one), every.indexOf(other)].sort((a, b) => a - b);
  for (const box of every.slice(ends[0], ends[1] + 1)) box.checked = chosen;
}

function count() {
  const said = document.getElementById("n-chosen");
  const number = boxes().filter((box) => box.checked).length;
  if (said) said.textContent = number ? `${number} chosen` : "";
}

count();
