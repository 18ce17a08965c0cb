/** A button with `data-copy` copies the field that it names, and says so. */

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (!(button instanceof HTMLButtonElement)) return;
  const field = document.getElementById(button.dataset.copy ?? "");
  if (!(field instanceof HTMLInputElement)) return;
  const copied = await copy(field);
  say(copied ? "The address is copied." : "Press Ctrl+C to copy the marked address.");
  button.classList.toggle("copied", copied);
  setTimeout(() => button.classList.remove("copied"), 2000);
});

/**
 * The clipboard is for secure pages only; elsewhere the old command does it.
 * @param {HTMLInputElement} field
 * @returns {Promise<boolean>}
 */
async function copy(field) {
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch {
    field.focus();
    field.select();
    return document.execCommand("copy");
  }
}

/** @param {string} text */
function say(text) {
  const place = document.getElementById("copied");
  if (place) place.textContent = text;
}
