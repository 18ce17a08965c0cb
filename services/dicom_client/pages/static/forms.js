/** What forms need beyond what a browser does by itself. */

/** The table of structures is narrowed by words and by three choices. */
function narrow() {
  const rows = document.querySelectorAll("#structures tbody tr");
  const words = valueOf("find").toLowerCase().split(/\s+/).filter(Boolean);
  const only = document.getElementById("only-chosen");
  let shown = 0;
  let chosen = 0;
  for (const row of rows) {
    if (!(row instanceof HTMLElement)) continue;
    const box = row.querySelector("input[type=checkbox]");
    const ticked = box instanceof HTMLInputElement && box.checked;
    const text = (row.textContent ?? "").toLowerCase();
    const fits = words.every((word) => text.includes(word))
      && fitsChoice("category", row) && fitsChoice("group", row) && fitsChoice("model", row)
      && (!(only instanceof HTMLInputElement && only.checked) || ticked);
    row.hidden = !fits;
    shown += fits ? 1 : 0;
    chosen += ticked ? 1 : 0;
  }
  const told = document.getElementById("found");
  if (told) told.textContent = `${shown} of ${rows.length} structures shown, ${chosen} chosen`;
}

/** @param {string} id @returns {string} */
function valueOf(id) {
  const field = document.getElementById(id);
  return field instanceof HTMLInputElement || field instanceof HTMLSelectElement ? field.value : "";
}

/** @param {string} name @param {HTMLElement} row */
function fitsChoice(name, row) {
  const wanted = valueOf(`by-${name}`);
  return wanted === "" || row.dataset[name] === wanted;
}

if (document.getElementById("structures")) {
  document.addEventListener("input", narrow);
  narrow();
}

/** Forms of long work say that it goes on, and are sent once. */
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || !form.dataset.busy) return;
  const button = form.querySelector("button[type=submit]");
  if (!(button instanceof HTMLButtonElement)) return;
  button.textContent = form.dataset.busy;
  setTimeout(() => { button.disabled = true; });
});

/** A box in a table's head ticks all that are shown. */
document.addEventListener("change", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || !box.dataset.ticks) return;
  for (const one of document.querySelectorAll(`input[name="${box.dataset.ticks}"]`)) {
    if (one instanceof HTMLInputElement) one.checked = box.checked;
  }
});
