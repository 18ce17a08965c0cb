// Marks on the slide: the tools, their keys, and the ids that stay through every edit.
// ipyleaflet's draw control holds the marks; this gives each an id before the kernel
// hears of it, so that an id never depends on whether the kernel is busy.

/** @type {Record<string, {shape: string, label: string, key: string, icon: string}>} */
const SHAPES = {
  rectangle: {
    shape: "Rectangle",
    label: "Draw a rectangle",
    key: "R",
    icon: '<rect x="3" y="5" width="14" height="10" rx="1"/>',
  },
  polygon: {
    shape: "Polygon",
    label: "Draw a polygon",
    key: "P",
    icon: '<path d="M10 2.5 17.5 8l-3 9h-9l-3-9z"/>',
  },
  point: {
    shape: "Marker",
    label: "Place a point",
    key: "M",
    icon: '<path d="M10 17.5S4.5 12 4.5 8a5.5 5.5 0 0 1 11 0c0 4-5.5 9.5-5.5 9.5z"/><circle cx="10" cy="8" r="1.8"/>',
  },
};
const ICONS = {
  move: '<path d="M10 2v16M2 10h16M10 2 8 4.5M10 2l2 2.5M10 18l-2-2.5M10 18l2-2.5M2 10l2.5-2M2 10l2.5 2M18 10l-2.5-2M18 10l-2.5 2"/>',
  edit: '<path d="m13.5 3.5 3 3L7 16l-4 1 1-4z"/><path d="m11.5 5.5 3 3"/>',
  erase: '<path d="M3.5 5.5h13M8 5.5V3.5h4v2M5.5 5.5l.8 11h7.4l.8-11M8.5 8.5v5M11.5 8.5v5"/>',
  undo: '<path d="M7.5 4 3.5 8l4 4"/><path d="M3.5 8h8a5 5 0 0 1 0 9h-2"/>',
  redo: '<path d="m12.5 4 4 4-4 4"/><path d="M16.5 8h-8a5 5 0 0 0 0 9h2"/>',
};

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
  const view = await viewAround(await linked(model, "map"), el, signal);
  if (!view) return;
  const draw = await linked(model, "draw");
  const drawView = await drawViewOf(draw, view, signal);
  if (!drawView) return;
  const map = view.obj;
  map.pm.setGlobalOptions({ snappable: false }); // a corner lies where it was put
  const editable = model.get("tools").length > 0;
  const tidy = () => tidyMarks(draw, model.get("max_marks"));
  const label = () => labelMarks(map, drawView.feature_group, editable);
  keepFocus(map, signal);
  draw.on("change:data", tidy);
  draw.on("change:data", label);
  label();
  signal.addEventListener("abort", () => {
    draw.off("change:data", tidy);
    draw.off("change:data", label);
  });
  keepLabKeysAway(map.getContainer(), signal);
  if (editable) listenToKeys(map, addTools(model, map, el, signal), signal);
  map.getContainer().dataset.theatrumDrawing = "ready";
}

/** @param {any} draw @param {any} mapView @param {AbortSignal} signal */
async function drawViewOf(draw, mapView, signal) {
  while (!signal.aborted) {
    for (const view of await Promise.all(Object.values(draw.views ?? {}))) {
      if (view.map_view === mapView && view.feature_group) return view;
    }
    await new Promise((next) => requestAnimationFrame(next));
  }
  return null;
}

// ---- identity ----------------------------------------------------------------------

/**
 * Runs inside the control's change, before it is sent: shapes get their id and kind in
 * place (the control's own layers share these objects, so that both come back with
 * every later edit), copies that an edit left are dropped, and the oldest beyond the
 * limit.
 * @param {any} draw @param {number|null} limit
 */
function tidyMarks(draw, limit) {
  const drawn = draw.get("data");
  const before = new Map(draw.previous("data").map((/** @type {any} */ f) => [f.properties?.id, f]));
  const kept = new Map();
  let straightened = false;
  for (const feature of drawn) {
    const properties = (feature.properties ??= {});
    const geometry = JSON.stringify(feature.geometry);
    const copy = [...kept.values()].some((one) => JSON.stringify(one.geometry) === geometry);
    if (copy && !properties.id) continue;
    properties.id ??= uuid4();
    properties.kind ??= { rectangle: "rectangle", marker: "point" }[properties.type] ?? "polygon";
    const upright = properties.kind === "rectangle" && straight(before.get(properties.id), feature);
    straightened ||= Boolean(upright);
    kept.set(properties.id, upright || feature);
  }
  const tidied = [...kept.values()].slice(limit ? -limit : 0);
  if (straightened || tidied.length !== drawn.length) draw.set("data", tidied);
}

/**
 * Leaflet reads a rectangle from GeoJSON as a polygon, so that a dragged corner skews
 * it: the corner stays where it was put, its neighbours follow.
 * @param {any} before @param {any} after @returns {any} null where nothing is to be done
 */
function straight(before, after) {
  const [old, ring] = [before, after].map((feature) => feature?.geometry.coordinates[0]);
  if (old?.length !== 5 || ring.length !== 5) return null;
  const moved = [0, 1, 2, 3].filter((i) => String(old[i]) !== String(ring[i]));
  if (moved.length !== 1) return null;
  const corner = moved[0];
  const [x, y] = ring[corner];
  const [left, right] = [(corner + 3) % 4, (corner + 1) % 4];
  const across = ring[(corner + 2) % 4];
  const leftSharesX = old[left][0] === old[corner][0];
  const corners = ring.slice(0, 4);
  corners[left] = leftSharesX ? [x, across[1]] : [across[0], y];
  corners[right] = leftSharesX ? [across[0], y] : [x, across[1]];
  const coordinates = [[...corners, corners[0]]];
  return { ...after, geometry: { ...after.geometry, coordinates } };
}

/** crypto.randomUUID is missing on pages without TLS. */
function uuid4() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/**
 * Every change builds all shapes anew. If the focus was on one it would fall to the
 * page, and the next key would be JupyterLab's (x cuts the cell): the map takes it.
 * @param {any} map @param {AbortSignal} signal
 */
function keepFocus(map, signal) {
  const container = map.getContainer();
  let inside = container.contains(document.activeElement);
  container.addEventListener("focusin", () => { inside = true; }, { signal });
  container.addEventListener("focusout", (/** @type {FocusEvent} */ e) => {
    // A shape that is taken out of the page may lose the focus first: look afterwards.
    const lost = /** @type {Node} */ (e.target);
    setTimeout(() => {
      if (lost.isConnected) inside = container.contains(document.activeElement);
    });
  }, { signal });
  const taken = new MutationObserver(() => {
    if (inside && document.activeElement === document.body) {
      container.focus({ preventScroll: true });
    }
  });
  taken.observe(map.getPane("mapPane"), { childList: true, subtree: true });
  signal.addEventListener("abort", () => taken.disconnect());
}

/**
 * Marks can be reached with the Tab key, have a name, and Delete removes them.
 * @param {any} map @param {any} group @param {boolean} editable
 */
function labelMarks(map, group, editable) {
  const layers = group.getLayers();
  layers.forEach((/** @type {any} */ layer, /** @type {number} */ at) => {
    const shape = layer.getElement?.();
    if (!shape) return;
    const kind = layer.feature?.properties?.kind ?? "mark";
    shape.setAttribute("tabindex", "0");
    shape.setAttribute("role", "img");
    const name = `Mark ${at + 1} of ${layers.length}: ${kind}`;
    shape.setAttribute("aria-label", editable ? `${name}. Delete removes it.` : name);
    if (!editable) return;
    shape.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => {
      if (e.key !== "Delete" && e.key !== "Backspace") return;
      e.stopPropagation();
      map.getContainer().focus({ preventScroll: true });
      map.fire("pm:remove", { layer, shape: kind });
    });
  });
}

// ---- tools -------------------------------------------------------------------------

/** @param {string} icon */
function drawn(icon) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  svg.innerHTML = icon;
  return svg;
}

/** @param {any} model @param {any} map @param {HTMLElement} el @param {AbortSignal} signal */
function addTools(model, map, el, signal) {
  const bar = element("div", {
    class: "theatrum-bar theatrum-upright",
    role: "toolbar",
    "aria-label": "Marks",
    "aria-orientation": "vertical",
  });
  const end = () => {
    if (map.pm.globalDrawModeEnabled()) map.pm.disableDraw();
    if (map.pm.globalEditModeEnabled()) map.pm.disableGlobalEditMode();
    if (map.pm.globalDragModeEnabled()) map.pm.disableGlobalDragMode();
    if (map.pm.globalRemovalModeEnabled()) map.pm.disableGlobalRemovalMode();
  };
  const modes = [];
  const add = (/** @type {any} */ mode) => {
    const toggle = () => {
      const on = mode.on();
      end();
      if (!on) mode.start();
      map.getContainer().focus({ preventScroll: true });
    };
    const made = button(mode.label, drawn(mode.icon), toggle, mode.key);
    made.dataset.tool = mode.name;
    bar.append(made);
    modes.push({ ...mode, made, toggle });
  };
  for (const name of model.get("tools")) {
    const { shape, label, key, icon } = SHAPES[name];
    const options = model.get("options")[name];
    add({
      name, label, key, icon,
      on: () => map.pm.Draw.getActiveShape() === shape,
      start: () => map.pm.enableDraw(shape, options),
    });
  }
  add({
    name: "edit", label: "Change marks: drag their corners", key: "E", icon: ICONS.edit,
    on: () => map.pm.globalEditModeEnabled(),
    start: () => map.pm.enableGlobalEditMode({ snappable: false }),
  });
  add({
    name: "move", label: "Move marks", key: "V", icon: ICONS.move,
    on: () => map.pm.globalDragModeEnabled(),
    start: () => map.pm.enableGlobalDragMode(),
  });
  add({
    name: "delete", label: "Delete marks by clicking them", key: "X", icon: ICONS.erase,
    on: () => map.pm.globalRemovalModeEnabled(),
    start: () => map.pm.enableGlobalRemovalMode(),
  });
  const undo = button("Undo", drawn(ICONS.undo), () => model.send({ kind: "undo" }), "Ctrl+Z");
  const redo = button("Redo", drawn(ICONS.redo), () => model.send({ kind: "redo" }), "Ctrl+Y");
  bar.append(undo, redo);
  const steps = addSteps(map, end, signal);
  const row = element("div", { class: "theatrum-tools" }, bar, steps.bar);
  el.replaceChildren(row);

  const refresh = () => {
    for (const mode of modes) mode.made.setAttribute("aria-pressed", String(mode.on()));
    steps.bar.hidden = map.pm.Draw.getActiveShape() !== "Polygon";
    map.getContainer().dataset.theatrumTool = modes.find((mode) => mode.on())?.name ?? "";
  };
  const history = () => {
    undo.disabled = !model.get("can_undo");
    redo.disabled = !model.get("can_redo");
  };
  const changes = "pm:drawstart pm:drawend pm:globaleditmodetoggled pm:globaldragmodetoggled pm:globalremovalmodetoggled";
  map.on(changes, refresh);
  model.on("change:can_undo change:can_redo", history);
  signal.addEventListener("abort", () => {
    map.off(changes, refresh);
    model.off("change:can_undo change:can_redo", history);
  });
  refresh();
  history();
  return { modes, end, undo, redo, steps };
}

/**
 * What can be done in the middle of a polygon.
 * @param {any} map @param {() => void} end @param {AbortSignal} signal
 */
function addSteps(map, end, signal) {
  const polygon = map.pm.Draw.Polygon;
  const finish = () => polygon._finishShape();
  const back = () => polygon._removeLastVertex();
  const bar = element(
    "div",
    { class: "theatrum-bar theatrum-steps", role: "group", "aria-label": "Polygon", hidden: "" },
    button("Finish the polygon", "Finish", finish, "Enter"),
    button("Take back the last corner", "Back", back, "Backspace"),
    button("Cancel drawing", "Cancel", end, "Escape"),
  );
  return { bar, finish, back };
}

// ---- keys --------------------------------------------------------------------------

/**
 * JupyterLab's single-key commands (x cuts the cell, 00 restarts the kernel) must not
 * run while the map has the focus. It looks for this attribute at each key, in the
 * capture phase on the document. Its other commands stay, but for undo and redo.
 * @param {HTMLElement} container @param {AbortSignal} signal
 */
function keepLabKeysAway(container, signal) {
  window.addEventListener("keydown", (e) => {
    if (!container.contains(/** @type {Node} */ (e.target))) return;
    const runsCell = e.shiftKey && e.key === "Enter";
    const command = e.ctrlKey || e.metaKey;
    const ours = command ? "zy".includes(e.key.toLowerCase()) : !runsCell;
    container.toggleAttribute("data-lm-suppress-shortcuts", ours);
  }, { capture: true, signal });
}

/** @param {any} map @param {any} tools @param {AbortSignal} signal */
function listenToKeys(map, tools, signal) {
  const container = map.getContainer();
  const cross = element("div", { class: "theatrum-cross", "aria-hidden": "true" });
  container.append(cross);
  signal.addEventListener("abort", () => cross.remove());
  container.addEventListener("pointermove", () => cross.classList.remove("theatrum-shown"), { signal });

  container.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => {
    const shape = map.pm.Draw.getActiveShape();
    if (act(e, shape)) {
      e.preventDefault();
      e.stopPropagation();
    }
  }, { signal });

  /** @param {KeyboardEvent} e @param {string|undefined} shape @returns {boolean} done */
  function act(e, shape) {
    const key = e.key.toLowerCase();
    if (e.ctrlKey || e.metaKey) {
      if (key === "z" && shape === "Polygon") tools.steps.back();
      else if (key === "z" && !e.shiftKey) tools.undo.click();
      else if (key === "y" || key === "z") tools.redo.click();
      else return false;
      return true;
    }
    if (e.altKey) return false;
    if (key === "escape") {
      cross.classList.remove("theatrum-shown");
      tools.end();
      return true;
    }
    if (shape && e.target === container) {
      if (key.startsWith("arrow")) cross.classList.add("theatrum-shown");
      if ((key === "enter" && !e.shiftKey) || key === " ") return enter(shape);
      if (key === "backspace" && shape === "Polygon") {
        tools.steps.back();
        return true;
      }
    }
    const mode = tools.modes.find((/** @type {any} */ one) => one.key.toLowerCase() === key);
    mode?.toggle();
    return Boolean(mode);
  }

  /**
   * With the cross in the middle Enter is a click there; after a mouse it finishes.
   * @param {string} shape
   */
  function enter(shape) {
    const usesKeys = cross.classList.contains("theatrum-shown");
    const started = shape === "Polygon" && map.pm.Draw.Polygon._layer?.getLatLngs().length;
    if (started && !usesKeys) {
      tools.steps.finish();
      return true;
    }
    cross.classList.add("theatrum-shown");
    const latlng = map.getCenter();
    const there = {
      latlng,
      layerPoint: map.latLngToLayerPoint(latlng),
      containerPoint: map.latLngToContainerPoint(latlng),
      originalEvent: new MouseEvent("click"),
    };
    map.fire("mousemove", there);
    map.fire("click", there);
    return true;
  }
}
