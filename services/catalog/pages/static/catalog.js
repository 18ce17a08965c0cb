/** What is chosen among the images narrows the notebook's cell and the download. */

/** @type {Set<string>} */
const chosen = new Set();

document.addEventListener("change", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || !box.dataset.choose) return;
  if (box.checked) chosen.add(box.dataset.choose);
  else chosen.delete(box.dataset.choose);
  show();
});

document.addEventListener("click", async (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (target?.closest("[data-unchoose]")) {
    chosen.clear();
    show();
  }
  const button = target?.closest("[data-copy]");
  if (button instanceof HTMLButtonElement) await copy(button);
});

/** Where a menu is open, Escape closes it, and the focus goes back to what opened it. */
document.addEventListener("keydown", (event) => {
  const open = document.querySelector("details.menu[open]");
  if (event.key !== "Escape" || !(open instanceof HTMLDetailsElement)) return;
  open.open = false;
  open.querySelector("summary")?.focus();
});

/** The part that htmx brought knows nothing of what was chosen. */
document.addEventListener("htmx:afterSettle", show);

/** A select that changes asks at once. */
document.addEventListener("change", (event) => {
  if (event.target instanceof HTMLSelectElement && event.target.form?.getAttribute("role") === "search") {
    event.target.form.requestSubmit();
  }
});

function show() {
  for (const box of document.querySelectorAll("[data-choose]")) {
    if (box instanceof HTMLInputElement) box.checked = chosen.has(box.dataset.choose ?? "");
  }
  const line = document.getElementById("chosen");
  if (line instanceof HTMLElement) {
    line.hidden = chosen.size === 0;
    const text = line.querySelector("[role=status]");
    if (text) text.textContent = `${chosen.size} chosen: the cell and the download are about them alone.`;
  }
  const cell = document.getElementById("cell");
  if (cell instanceof HTMLTextAreaElement) {
    const ids = [...chosen].map((id) => `"${id}"`).join(", ");
    cell.value = chosen.size === 0 ? (cell.dataset.all ?? "") : `from theatrum import catalog\n\ncatalog.images.filter(id__in=[${ids}])`;
  }
  for (const link of document.querySelectorAll("a[data-words]")) {
    if (!(link instanceof HTMLAnchorElement)) continue;
    const address = new URL(link.href);
    const words = chosen.size === 0 ? JSON.parse(link.dataset.words ?? "{}") : { id__in: [...chosen].join(",") };
    address.search = new URLSearchParams({ ...words, ...JSON.parse(link.dataset.also ?? "{}") }).toString();
    link.href = address.href;
  }
}

/** @param {HTMLButtonElement} button */
async function copy(button) {
  const field = document.getElementById(button.dataset.copy ?? "");
  if (!(field instanceof HTMLTextAreaElement)) return;
  let copied = true;
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    // The clipboard is for secure pages only; elsewhere the old command does it.
    field.select();
    copied = document.execCommand("copy");
  }
  const said = document.getElementById("copied");
  if (said) said.textContent = copied ? "Copied." : "Press Ctrl+C to copy the marked text.";
}

/** The planes of a scan: the picture follows the slider, and the address keeps it. */
document.addEventListener("input", (event) => {
  const field = event.target;
  if (!(field instanceof HTMLInputElement) || field.dataset.index === undefined) return;
  const form = field.form;
  const picture = document.getElementById("plane");
  const plane = form?.querySelector("[data-plane]");
  if (!form || !(picture instanceof HTMLImageElement) || !(plane instanceof HTMLSelectElement)) return;
  const words = new URLSearchParams({ plane: plane.value, index: field.value });
  ask(picture, `${form.dataset.slices}?${words}`);
  picture.alt = `${plane.value} plane ${field.value}`;
  const said = form.querySelector("output");
  if (said) said.textContent = `${field.value} of ${field.max}`;
  history.replaceState(null, "", `?${words}`);
});

/** @type {string | undefined} */
let wanted;

/**
 * One picture at a time: of those that are passed over on the way only the last is asked.
 * @param {HTMLImageElement} picture
 * @param {string} address
 */
async function ask(picture, address) {
  const waits = wanted !== undefined;
  wanted = address;
  if (waits) return;
  while (wanted !== undefined) {
    const now = wanted;
    await new Promise((next) => {
      for (const end of ["load", "error"]) picture.addEventListener(end, next, { once: true });
      picture.src = now;
    });
    if (wanted === now) wanted = undefined;
  }
}

/** Another plane has another number of slices: the page knows how many. */
document.addEventListener("change", (event) => {
  if (event.target instanceof HTMLSelectElement && event.target.dataset.plane !== undefined) {
    location.search = new URLSearchParams({ plane: event.target.value }).toString();
  }
});

/** One box chooses all of its kind that can be chosen. */
document.addEventListener("change", (event) => {
  const all = event.target;
  if (!(all instanceof HTMLInputElement) || all.dataset.all === undefined) return;
  for (const box of document.querySelectorAll(`[data-one="${all.dataset.all}"]`)) {
    if (box instanceof HTMLInputElement && !box.disabled) box.checked = all.checked;
  }
});

/** While somebody is asked whether it is meant, the page does not change under them. */
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.querySelector("#live details[open], #live input:focus, #live input:checked")) event.preventDefault();
});
