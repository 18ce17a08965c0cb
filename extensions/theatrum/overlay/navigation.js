// Finding one's way on the slide: fit, magnification, scale bar, position, and what is
// shown when tiles do not come. All of it works while the kernel is busy.

/** Wheel over a map without the focus scrolls the page; this says how to zoom. */
const WHEEL_HINT = "Click the slide, or hold Ctrl, to zoom with the wheel";
const HINT_MS = 1600;
const SCALE_BAR_MAX_PX = 140;
/** On a lower map the tools stand in two columns. */
const LOW_PX = 380;

export default {
  /** @param {{model: any, el: HTMLElement}} context */
  render({ model, el }) {
    const stop = new AbortController();
    attach(model, el, stop.signal).catch(console.error);
    return () => stop.abort();
  },
};

/** @param {any} model @param {HTMLElement} el @param {AbortSignal} signal */
async function attach(model, el, signal) {
  const scale = element("div", { class: "theatrum-scale", hidden: "" });
  el.append(scale);
  const view = await viewAround(await linked(model, "map"), el, signal);
  if (!view) return;
  const map = view.obj;
  const container = map.getContainer();
  const name = model.get("name");
  const [width, height] = [model.get("width"), model.get("height")];
  container.setAttribute("role", "application");
  container.setAttribute("aria-roledescription", "slide viewer");
  container.setAttribute(
    "aria-label",
    `${name}, ${width} by ${height} pixels. Arrow keys move, plus and minus zoom, 0 fits.`,
  );
  container.style.background = model.get("background");
  withholdMouseMoves(view);
  keepFit(model, map, signal);
  zoomByWheelWhenFocused(map, signal);
  watchTiles(model, map, signal);
  addMagnification(model, map, signal);
  addPosition(model, map, signal);
  const measure = () => drawScale(scale, model.get("mpp_x"), map.getZoom());
  listen(map, "zoom zoomend viewreset", measure, signal);
  measure();
  container.dataset.theatrum = "ready";
}

/** @param {any} map @param {string} events @param {(e: any) => void} act @param {AbortSignal} signal */
function listen(map, events, act, signal) {
  map.on(events, act);
  signal.addEventListener("abort", () => map.off(events, act));
}

/**
 * ipyleaflet sends each movement of the mouse to the kernel, asked for or not: sixty
 * messages a second and person over the hub's websockets. The position is shown here.
 * @param {any} view
 */
function withholdMouseMoves(view) {
  const send = view.send.bind(view);
  view.send = (/** @type {any} */ content, /** @type {any[]} */ ...rest) => {
    if (content?.event === "interaction" && content.type === "mousemove") return;
    send(content, ...rest);
  };
}

// ---- fit ---------------------------------------------------------------------------

/** @param {any} model @param {any} map */
function fit(model, map) {
  const size = map.getSize();
  if (!size.x || !size.y) return;
  const [width, height] = [model.get("width"), model.get("height")];
  const zoom = Math.floor(Math.log2(Math.min(size.x / width, size.y / height)) + 1e-9);
  const within = Math.min(Math.max(zoom, map.getMinZoom()), map.getMaxZoom());
  map.setView(latLng(width / 2, height / 2), within, { animate: false });
}

/**
 * The kernel does not know how large the map is on screen. Until somebody moves, the
 * whole slide stays in view, also when the window or the side bar changes.
 * @param {any} model @param {any} map @param {AbortSignal} signal
 */
function keepFit(model, map, signal) {
  let fitting = false;
  const refit = () => {
    fitting = true;
    fit(model, map);
    fitting = false;
  };
  const told = (/** @type {any} */ message) => {
    if (message.kind !== "fit") return;
    refit();
    setFitted(model, true);
  };
  const resized = new ResizeObserver(() => {
    map.invalidateSize({ animate: false });
    const { x, y } = map.getSize();
    if (!x || !y) return;
    map.getContainer().classList.toggle("theatrum-low", y < LOW_PX);
    if (model.get("fitted")) refit();
    model.set("viewport", [x, y]);
    model.save_changes();
  });
  resized.observe(map.getContainer());
  signal.addEventListener("abort", () => resized.disconnect());
  const moved = () => {
    if (!fitting) setFitted(model, false);
  };
  listen(map, "dragstart zoomstart keydown", moved, signal);
  model.on("msg:custom", told);
  signal.addEventListener("abort", () => model.off("msg:custom", told));
}

/** @param {any} model @param {any} map */
function fitNow(model, map) {
  fit(model, map);
  setFitted(model, true);
}

/** @param {any} model @param {boolean} fitted */
function setFitted(model, fitted) {
  if (model.get("fitted") === fitted) return;
  model.set("fitted", fitted);
  model.save_changes();
}

// ---- wheel -------------------------------------------------------------------------

/** @param {any} map @param {AbortSignal} signal */
function zoomByWheelWhenFocused(map, signal) {
  const container = map.getContainer();
  const hint = element("div", { class: "theatrum-hint", "aria-hidden": "true" }, WHEEL_HINT);
  container.append(hint);
  map.scrollWheelZoom.disable();
  container.addEventListener("focusin", () => map.scrollWheelZoom.enable(), { signal });
  container.addEventListener("focusout", (/** @type {FocusEvent} */ e) => {
    if (!container.contains(/** @type {Node|null} */ (e.relatedTarget))) {
      map.scrollWheelZoom.disable();
    }
  }, { signal });
  let timer = 0;
  container.addEventListener("wheel", (/** @type {WheelEvent} */ e) => {
    if (map.scrollWheelZoom.enabled()) return;
    if (e.ctrlKey || e.metaKey) {
      e.preventDefault(); // else the browser zooms the page
      container.focus({ preventScroll: true });
      return;
    }
    hint.classList.add("theatrum-shown");
    clearTimeout(timer);
    timer = window.setTimeout(() => hint.classList.remove("theatrum-shown"), HINT_MS);
  }, { signal, capture: true, passive: false });
  signal.addEventListener("abort", () => hint.remove());
}

// ---- magnification and position ----------------------------------------------------

/** @param {any} model @param {any} map @param {AbortSignal} signal */
function addMagnification(model, map, signal) {
  const bar = element("div", { class: "theatrum-bar", role: "group", "aria-label": "Magnification" });
  const whole = button("Fit the whole slide", "Fit", () => fitNow(model, map), "0");
  bar.append(whole);
  const buttons = model.get("magnifications").map((/** @type {any} */ step) => {
    const made = button(`Magnification ${step.label}`, step.label, () => map.setZoom(step.zoom));
    made.dataset.zoom = step.zoom;
    bar.append(made);
    return made;
  });
  place(map, "topright", bar, signal);
  const press = () => {
    for (const made of buttons) {
      made.setAttribute("aria-pressed", String(Number(made.dataset.zoom) === map.getZoom()));
    }
  };
  listen(map, "zoomend", press, signal);
  press();
  map.getContainer().addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => {
    if (e.key === "0" && !e.ctrlKey && !e.metaKey && !e.altKey) fitNow(model, map);
  }, { signal });
}

/** @param {any} model @param {number} zoom */
function magnification(model, zoom) {
  const base = model.get("base_magnification");
  if (base) return `${Number((base * 2 ** zoom).toPrecision(3))}×`;
  return zoom < 0 ? `1:${2 ** -zoom}` : `${2 ** zoom}:1`;
}

/** @param {any} model @param {any} map @param {AbortSignal} signal */
function addPosition(model, map, signal) {
  const shown = element("div", { class: "theatrum-position", "aria-hidden": "true" });
  const spoken = element("div", { class: "theatrum-spoken", role: "status" });
  place(map, "bottomright", shown, signal);
  map.getContainer().append(spoken);
  signal.addEventListener("abort", () => spoken.remove());
  const [width, height] = [model.get("width"), model.get("height")];
  const show = (/** @type {any} */ position) => {
    const [x, y] = pixel(position).map(Math.floor);
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    const where = inside ? `x ${x}  y ${y}` : "";
    shown.textContent = [magnification(model, map.getZoom()), where].filter(Boolean).join("   ");
  };
  listen(map, "mousemove", (e) => show(e.latlng), signal);
  listen(map, "moveend", () => {
    show(map.getCenter());
    const [x, y] = pixel(map.getCenter()).map(Math.floor);
    spoken.textContent = `${magnification(model, map.getZoom())}, centre x ${x}, y ${y}`;
  }, signal);
  show(map.getCenter());
}

// ---- scale bar ---------------------------------------------------------------------

/**
 * The longest of 1, 2, 5, 10, 20 ... µm that fits.
 * @param {HTMLElement} scale @param {number|null} mpp @param {number} zoom
 */
function drawScale(scale, mpp, zoom) {
  scale.hidden = !mpp;
  if (!mpp) return;
  const umPerPx = mpp / 2 ** zoom; // one screen pixel is 2**-zoom level-0 pixels
  const most = umPerPx * SCALE_BAR_MAX_PX;
  const decade = 10 ** Math.floor(Math.log10(most));
  const um = [5, 2, 1].map((n) => n * decade).find((length) => length <= most) ?? decade;
  const label = um >= 1000 ? `${um / 1000} mm` : `${Number(um.toPrecision(3))} µm`;
  const line = element("div", { class: "theatrum-scale-line" });
  line.style.width = `${um / umPerPx}px`;
  scale.dataset.um = String(um);
  scale.setAttribute("role", "img");
  scale.setAttribute("aria-label", `Scale bar: ${label}`);
  scale.replaceChildren(element("div", { class: "theatrum-scale-label" }, label), line);
}

// ---- tiles that do not come --------------------------------------------------------

/**
 * What a refusal concerns. "address": it has ended, and the kernel is asked for a new
 * one. "slide": all of it (tiles that the browser still has do not mean that it is
 * back). "tile": this one only. Any other is the service's, and over when a tile comes.
 * @type {Record<number, string>}
 */
const SCOPES = { 401: "address", 403: "address", 410: "slide", 404: "tile", 422: "tile" };

/**
 * An <img> does not say why it failed, so the first that fails is asked for once more
 * by fetch, and the service's own words are shown on the map.
 * @param {any} model @param {any} map @param {AbortSignal} signal
 */
function watchTiles(model, map, signal) {
  const container = map.getContainer();
  let notice = /** @type {HTMLElement|null} */ (null);
  let asked = false; // until the notice is gone, no second tile is asked about
  let lasting = false;
  let toldOfTile = false; // once is enough, however many are damaged
  let renewed = false; // by itself only once, until tiles come again
  const hide = () => {
    notice?.remove();
    notice = null;
    asked = false;
    lasting = false;
  };
  const reload = () => {
    lasting = false;
    asked = false;
    notice?.querySelector("[role=status]")?.replaceChildren("Asking the kernel ...");
    model.send({ kind: "reload" });
  };
  const show = (/** @type {Problem} */ problem) => {
    const one = problem.scope === "tile";
    asked = !one; // another tile may fail for a reason that concerns the whole slide
    if (one && toldOfTile) return;
    toldOfTile ||= one;
    notice?.remove();
    lasting = ["slide", "address"].includes(problem.scope);
    notice = one
      ? noticeOf(problem, button("Close this message", "Close", () => notice?.remove()))
      : noticeOf(problem, button("Reload the slide", "Reload", reload));
    container.append(notice);
  };
  container.addEventListener("error", async (/** @type {Event} */ e) => {
    const tile = /** @type {HTMLImageElement} */ (e.target);
    if (asked || !tile.classList?.contains("leaflet-tile")) return;
    if (tile.src.startsWith("data:")) return; // Leaflet blanks the tiles it gives up
    asked = true;
    const problem = await whyNot(tile.src);
    if (signal.aborted) return;
    if (problem) {
      show(problem);
      if (problem.scope === "address" && !renewed) {
        renewed = true;
        reload();
      }
      return;
    }
    if (tile.dataset.theatrumAgain) {
      show(UNDECODABLE); // it came twice, and the browser can make nothing of it
      return;
    }
    asked = false;
    tile.dataset.theatrumAgain = "once";
    tile.src = tile.src; // it is there after all: a hitch on the way
  }, { capture: true, signal });
  container.addEventListener("load", (/** @type {Event} */ e) => {
    if (lasting || !(/** @type {Element} */ (e.target).classList?.contains("leaflet-tile"))) return;
    renewed = false;
    if (notice?.querySelector("[aria-label^=Reload]")) hide();
  }, { capture: true, signal });
  const told = () => {
    const problem = model.get("problem");
    if (problem.title) show(problem);
    else hide();
  };
  model.on("change:problem", told);
  signal.addEventListener("abort", () => {
    model.off("change:problem", told);
    notice?.remove();
  });
  told();
}

/** @typedef {{title: string, detail: string, scope: string}} Problem */

/** @type {Problem} */
const UNDECODABLE = {
  title: "A part of this slide is damaged",
  detail: "A tile holds no picture. The rest of the slide can be used.",
  scope: "tile",
};

/** @param {Problem} problem @param {HTMLElement} way out */
function noticeOf(problem, way) {
  const notice = element(
    "div",
    { class: "theatrum-notice", role: "alert" },
    element("strong", {}, problem.title),
    element("p", {}, problem.detail),
    way,
    element("span", { role: "status" }),
  );
  keepFromMap(notice);
  return notice;
}

/**
 * `no-cors` because the single-user server wants an XSRF token from any other fetch;
 * within one origin the answer can be read all the same.
 * @param {string} url @returns {Promise<Problem | null>}
 */
async function whyNot(url) {
  let answer;
  try {
    answer = await fetch(url, { mode: "no-cors", credentials: "same-origin", cache: "no-store" });
  } catch {
    return {
      title: "The tile service does not answer",
      detail: "The network is interrupted, or the service was stopped. Reload tries again.",
      scope: "service",
    };
  }
  if (answer.ok) return null;
  const problem = await answer.json().catch(() => ({}));
  return {
    title: problem.title ?? "The slide cannot be shown",
    detail: problem.detail ?? `The tile service answered ${answer.status || "nothing readable"}.`,
    scope: SCOPES[answer.status] ?? "service",
  };
}
