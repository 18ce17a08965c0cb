/** A picture that cannot be drawn says so in words, where else a torn page would be. */

/** @param {HTMLImageElement} picture */
function lost(picture) {
  if (picture.hidden) return;
  const words = document.createElement("span");
  words.className = "lost";
  words.textContent = "No picture: the file cannot be read.";
  picture.hidden = true;
  picture.after(words);
}

/** @param {HTMLImageElement} picture */
function drawn(picture) {
  if (!picture.hidden) return;
  picture.hidden = false;
  if (picture.nextElementSibling?.className === "lost") picture.nextElementSibling.remove();
}

// Neither event bubbles; on its way down it is heard here for all pictures.
document.addEventListener("error", (event) => event.target instanceof HTMLImageElement && lost(event.target), true);
document.addEventListener("load", (event) => event.target instanceof HTMLImageElement && drawn(event.target), true);

for (const picture of document.images) {
  if (picture.complete && picture.src && picture.naturalWidth === 0) lost(picture);
}
