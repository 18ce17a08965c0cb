// The line under a question: whether the answer is saved, and what can be done with it.

/** U+FE0E: as text, not as a coloured picture. @type {Record<string, string>} */
const SIGNS = { none: "○", saved: "✓", failed: "⚠\uFE0E", waiting: "…" };

/** How long an answer may wait for the kernel before the student is told. */
const PATIENCE_MS = 8000;

export default {
  /** @param {{model: any, el: HTMLElement}} context */
  render({ model, el }) {
    const stop = new AbortController();
    const bar = document.createElement("div");
    bar.className = "theatrum-answer-bar";
    // The element stays and its text changes: only so do screen readers tell it.
    const line = document.createElement("p");
    line.className = "theatrum-state";
    line.setAttribute("role", "status");
    const sign = document.createElement("span");
    sign.className = "theatrum-sign";
    sign.setAttribute("aria-hidden", "true");
    const words = document.createElement("span");
    line.append(sign, words);

    /** @param {string} look @param {string} text */
    const say = (look, text) => {
      line.dataset.look = look;
      sign.textContent = SIGNS[look];
      words.textContent = text;
    };
    const buttons = [
      makeButton(model, "clear", "Clear", "can_clear"),
      makeButton(model, "undo", "Undo", "can_undo"),
      makeButton(model, "save", "Save again", "can_save"),
    ];
    const group = document.createElement("div");
    group.className = "theatrum-buttons";
    group.append(...buttons.map(({ button }) => button));
    bar.append(line, group);
    /** @type {number | undefined} */
    let waiting;
    const update = () => {
      clearTimeout(waiting);
      const state = model.get("state");
      const text = (state.text ?? "").replace("{time}", clock(state.time));
      say(state.look ?? "none", state.note ? `${text} ${state.note}` : text);
      for (const { show } of buttons) show();
    };
    update();
    const changes = "change:state change:can_clear change:can_undo change:can_save";
    for (const change of changes.split(" ")) model.on(change, update);
    stop.signal.addEventListener("abort", () => {
      clearTimeout(waiting);
      for (const change of changes.split(" ")) model.off(change, update);
    });
    // Until the kernel has answered (it may be busy with a cell) nothing is saved.
    document.addEventListener(
      "change",
      (event) => {
        const options = /** @type {Element} */ (event.target).closest(".theatrum-options");
        const question = el.closest(".theatrum-question");
        if (!options || !question?.contains(options)) return;
        say("waiting", "Saving…");
        clearTimeout(waiting);
        waiting = window.setTimeout(() => {
          say(
            "failed",
            "Not saved yet: the kernel does not answer. If it has stopped or was " +
              "restarted, run this cell again and answer again.",
          );
        }, PATIENCE_MS);
      },
      { signal: stop.signal },
    );
    el.replaceChildren(bar);
    return () => stop.abort();
  },
};

/**
 * A button that keeps the keyboard's focus when there is nothing for it to do.
 * @param {any} model @param {string} kind @param {string} label @param {string} trait
 */
function makeButton(model, kind, label, trait) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  // Enter presses it; JupyterLab would begin to edit the cell.
  button.setAttribute("data-lm-suppress-shortcuts", "true");
  button.addEventListener("click", () => {
    if (model.get(trait)) model.send({ kind });
  });
  const show = () => {
    button.setAttribute("aria-disabled", String(!model.get(trait)));
    button.hidden = kind === "save" && !model.get(trait);
  };
  return { button, show };
}

/** @param {string | null | undefined} iso @returns {string} time here, and another day */
function clock(iso) {
  if (!iso) return "";
  const moment = new Date(iso);
  const time = moment.toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
  });
  const today = moment.toDateString() === new Date().toDateString();
  if (today) return time;
  const day = moment.toLocaleDateString([], {
    day: "numeric",
    month: "short",
    year: "numeric",
  });
  return `${day}, ${time}`;
}
