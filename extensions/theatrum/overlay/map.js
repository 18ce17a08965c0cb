// What every part of the overlay needs: the planes, the map it lies on, and elements.
//
// Planes, as in planes.py: level-0 pixels (x right, y down) and the map's lat = -y,
// lng = x, where at zoom 0 one unit is one level-0 pixel.

/** @param {number} x @param {number} y @returns {[number, number]} lat, lng */
function latLng(x, y) {
  return [0 - y, x];
}

/** @param {{lat: number, lng: number}} position @returns {[number, number]} x, y */
function pixel(position) {
  return [position.lng, 0 - position.lat];
}

/**
 * The model behind a trait that names another widget.
 * @param {any} model this widget's @param {string} trait
 */
function linked(model, trait) {
  const id = model.get(trait).replace(/^IPY_MODEL_/, "");
  return model.widget_manager.get_model(id);
}

/**
 * Waits until an element lies in a Leaflet map, and returns ipyleaflet's view of it.
 * A map may be shown in several cells: each view has its own Leaflet map.
 * @param {any} mapModel @param {HTMLElement} el @param {AbortSignal} signal
 */
async function viewAround(mapModel, el, signal) {
  while (!signal.aborted) {
    const container = el.closest(".leaflet-container");
    if (container) {
      for (const view of await Promise.all(Object.values(mapModel.views))) {
        if (view.obj?.getContainer() === container) return view;
      }
    }
    await new Promise((next) => requestAnimationFrame(next));
  }
  return null;
}

/**
 * An element with attributes and children.
 * @param {string} tag @param {Record<string, string>} [attributes]
 * @param {...(Node|string)} children
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * A button with a name for everyone: tooltip for eyes, label for screen readers.
 * @param {string} label @param {Node|string} face @param {() => void} act
 * @param {string} [key] keyboard shortcut, as aria-keyshortcuts writes it
 */
function button(label, face, act, key) {
  const made = /** @type {HTMLButtonElement} */ (
    element("button", { type: "button", "aria-label": label }, face)
  );
  made.title = key ? `${label} (${key})` : label;
  if (key) made.setAttribute("aria-keyshortcuts", key);
  made.addEventListener("click", act);
  return made;
}

/**
 * Puts a control into a corner of the map. What happens on it does not reach the map.
 * @param {any} map @param {string} corner such as "topleft" @param {HTMLElement} control
 * @param {AbortSignal} signal takes the control away
 */
function place(map, corner, control, signal) {
  const side = corner.replace(/^(top|bottom)/, ".leaflet-$1.leaflet-");
  control.classList.add("leaflet-control");
  map.getContainer().querySelector(`.leaflet-control-container ${side}`).append(control);
  keepFromMap(control);
  signal.addEventListener("abort", () => control.remove());
}

/** @param {HTMLElement} control */
function keepFromMap(control) {
  const events = ["click", "dblclick", "mousedown", "pointerdown", "touchstart", "contextmenu"];
  for (const name of events) control.addEventListener(name, (e) => e.stopPropagation());
}
