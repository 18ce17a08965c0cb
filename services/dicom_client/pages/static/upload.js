/** Sends a zip file as it lies on the disk, tells how far that is, and can be stopped. */

/** @param {string} id @returns {HTMLElement} */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`#${id} is missing`);
  return found;
}

/** @param {number} bytes */
function size(bytes) {
  return bytes < 1 << 20 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / (1 << 20)).toFixed(1)} MiB`;
}

/** @param {string} text */
function complain(text) {
  const told = element("upload-problem");
  told.textContent = text;
  told.hidden = text === "";
}

/** @param {boolean} going */
function show(going) {
  element("sending").hidden = !going;
  element("stop-upload").hidden = !going;
  const button = element("do-upload");
  if (button instanceof HTMLButtonElement) button.disabled = going;
}

/** @param {XMLHttpRequest} request */
function ended(request) {
  show(false);
  if (request.status === 201) {
    const form = element("upload");
    if (form instanceof HTMLFormElement) form.reset();
    document.getElementById("live")?.dispatchEvent(new CustomEvent("changed"));
    return;
  }
  let text = "";
  try {
    text = JSON.parse(request.responseText).text;
  } catch {
    // Not our own answer: of a proxy, or of the sign-in.
  }
  complain(text || `The file was not taken (status ${request.status}). Load the page anew and try again.`);
}

/** @param {HTMLFormElement} form @param {File} file */
function send(form, file) {
  const request = new XMLHttpRequest();
  const bar = element("sending").querySelector("progress");
  const percent = element("sending").querySelector(".percent");
  request.upload.addEventListener("progress", (event) => {
    const share = Math.floor((100 * event.loaded) / Math.max(1, event.total));
    if (bar) bar.value = share;
    if (percent) percent.textContent = `${share} %`;
    element("sent-bytes").textContent = `${size(event.loaded)} of ${size(event.total)}`;
  });
  request.addEventListener("load", () => ended(request));
  request.addEventListener("error", () => {
    show(false);
    complain("The connection was lost, or the server refused the file early: see the list below, then try again.");
  });
  request.addEventListener("abort", () => show(false));
  element("stop-upload").onclick = () => request.abort();
  const headers = JSON.parse(document.body.getAttribute("hx-headers") ?? "{}");
  request.open("PUT", form.dataset.address ?? "upload");
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, String(value));
  request.setRequestHeader("Content-Type", "application/zip");
  show(true);
  request.send(file);
}

const form = document.getElementById("upload");
if (form instanceof HTMLFormElement) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    complain("");
    const field = element("archive");
    const file = field instanceof HTMLInputElement ? field.files?.[0] : null;
    if (!file) return;
    if (file.size > Number(form.dataset.limit)) {
      complain(`The file has ${size(file.size)}, and may have ${size(Number(form.dataset.limit))}: send it in parts.`);
      return;
    }
    send(form, file);
  });
}
