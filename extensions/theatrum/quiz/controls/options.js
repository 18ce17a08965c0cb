// The options of a choice as native radio buttons or check boxes in a fieldset, so that
// the keyboard and screen readers treat them as the one group that they are.

export default {
  /** @param {{model: any, el: HTMLElement}} context */
  render({ model, el }) {
    const fieldset = document.createElement("fieldset");
    fieldset.className = "theatrum-options";
    const legend = document.createElement("legend");
    legend.className = "theatrum-prompt";
    legend.textContent = model.get("prompt");
    const inputs = makeInputs(model);
    fieldset.append(legend, ...inputs.map(({ label }) => label));
    fieldset.addEventListener("change", () => {
      const ticked = inputs.filter(({ input }) => input.checked);
      model.set("chosen", ticked.map(({ input }) => input.value));
      model.save_changes();
    });
    const show = () => {
      const chosen = new Set(model.get("chosen"));
      for (const { input } of inputs) input.checked = chosen.has(input.value);
    };
    show();
    model.on("change:chosen", show);
    el.replaceChildren(fieldset);
    return () => model.off("change:chosen", show);
  },
};

/** @param {any} model */
function makeInputs(model) {
  // One name per view: the same question may be shown twice on a page.
  const group = `theatrum-${Math.random().toString(36).slice(2)}`;
  return model.get("options").map((/** @type {[string, string]} */ [key, text]) => {
    const input = document.createElement("input");
    input.type = model.get("multiple") ? "checkbox" : "radio";
    input.name = group;
    input.value = key;
    // Arrow keys choose an option here; JupyterLab would move to another cell.
    input.setAttribute("data-lm-suppress-shortcuts", "true");
    const words = document.createElement("span");
    words.textContent = text;
    const label = document.createElement("label");
    label.append(input, words);
    return { input, label };
  });
}
