// The atlas's grid: native buttons, so that the keyboard and screen readers need no
// help, and a filter that is answered here. Thumbnails are fetched through the kernel
// when their tiles come into view: asked for by the page itself they would need cookies
// of the catalogue, and many such requests at once collide in signing in.

export default {
  /** @param {{model: any, el: HTMLElement}} context */
  render({ model, el }) {
    const heading = element("h1", "", "Slide atlas");
    const filter = element("input", "theatrum-filter");
    filter.type = "search";
    filter.setAttribute("data-lm-suppress-shortcuts", "true");
    const label = element("label", "theatrum-filter-label", "Filter ");
    label.append(filter);
    const count = element("p", "theatrum-count");
    count.setAttribute("role", "status");
    const bar = element("div", "theatrum-atlas-bar");
    bar.append(label, count);
    const grid = element("ul", "theatrum-grid");
    const notice = element("div", "theatrum-none");
    const content = element("section", "theatrum-atlas-grid");
    content.append(heading, bar, grid, notice);
    el.replaceChildren(content);

    /** @type {Map<string, {item: HTMLElement, button: HTMLElement, frame: HTMLElement, words: string}>} */
    const tiles = new Map();
    /** @type {string[]} */
    const pictures = [];
    const seen = new IntersectionObserver(
      (changes) => {
        for (const { isIntersecting, target } of changes) {
          if (!isIntersecting) continue;
          seen.unobserve(target);
          const id = /** @type {HTMLElement} */ (target).dataset.slide;
          model.send({ kind: "thumbnail", id });
        }
      },
      { rootMargin: "200px" },
    );

    const sift = () => {
      const wanted = words(filter.value);
      let shown = 0;
      for (const tile of tiles.values()) {
        const fits = wanted.every((word) => tile.words.includes(word));
        tile.item.hidden = !fits;
        shown += Number(fits);
      }
      say(shown);
    };
    /** @param {number} shown */
    const say = (shown) => {
      const all = tiles.size;
      const problem = model.get("problem");
      bar.hidden = all === 0;
      count.textContent =
        shown === all ? counted(all) : `${shown} of ${counted(all)}`;
      if (problem.title) {
        notice.replaceChildren(strong(problem.title), ` ${problem.detail}`);
      } else if (all === 0) {
        notice.replaceChildren(
          strong("No slide is open to you yet."),
          " Slides appear here when a collection is opened to one of your groups." +
            " Ask your teacher, or whoever runs this hub.",
        );
      } else if (shown === 0) {
        notice.replaceChildren(
          strong(`No slide matches “${filter.value.trim()}”.`),
          " Part of a title, or of a collection's name, is enough.",
        );
      }
      notice.hidden = !problem.title && shown > 0;
    };
    const fill = () => {
      seen.disconnect();
      tiles.clear();
      for (const slide of model.get("slides")) {
        const tile = makeTile(slide, () => model.send({ kind: "open", id: slide.id }));
        tiles.set(slide.id, tile);
        seen.observe(tile.frame);
      }
      grid.replaceChildren(...[...tiles.values()].map(({ item }) => item));
      sift();
    };
    // The way back is rendered some time after the slide was opened.
    const arrival = new MutationObserver(() => focusBack());
    const focusBack = () => {
      const page = el.closest(".theatrum-atlas");
      const back = page?.querySelector(".theatrum-back");
      if (!(back instanceof HTMLElement)) return;
      arrival.disconnect();
      back.focus();
    };
    const step = () => {
      content.hidden = model.get("opened") !== "";
      arrival.disconnect();
      const page = el.closest(".theatrum-atlas");
      if (!content.hidden || !page) return;
      arrival.observe(page, { childList: true, subtree: true });
      focusBack();
    };
    /** @param {any} message @param {DataView[]} buffers */
    const hear = (message, buffers) => {
      const tile = tiles.get(message.id);
      if (!tile) return;
      if (message.kind === "focus") {
        content.hidden = false;
        tile.button.focus();
        return;
      }
      if (buffers.length === 0) {
        tile.frame.textContent = "No preview";
        return;
      }
      const picture = document.createElement("img");
      picture.alt = ""; // the button's text names the slide
      picture.src = URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" }));
      pictures.push(picture.src);
      tile.frame.replaceChildren(picture);
    };

    filter.addEventListener("input", sift);
    model.on("msg:custom", hear);
    model.on("change:slides change:problem", fill);
    model.on("change:opened", step);
    fill();
    step();
    return () => {
      seen.disconnect();
      arrival.disconnect();
      pictures.forEach((address) => URL.revokeObjectURL(address));
      model.off("msg:custom", hear);
      model.off("change:slides change:problem", fill);
      model.off("change:opened", step);
    };
  },
};

/**
 * @param {{id: string, title: string, name: string, size: string}} slide
 * @param {() => void} open
 */
function makeTile(slide, open) {
  const frame = element("span", "theatrum-frame");
  frame.dataset.slide = slide.id;
  const button = element("button", "theatrum-tile");
  button.type = "button";
  button.append(
    frame,
    element("span", "theatrum-title", slide.title),
    element("span", "theatrum-name", slide.name),
    element("span", "theatrum-size", slide.size),
  );
  button.addEventListener("click", open);
  const item = element("li", "");
  item.append(button);
  return { item, button, frame, words: `${slide.title} ${slide.name}`.toLowerCase() };
}

/** @param {string} text */
function words(text) {
  return text.toLowerCase().split(/\s+/).filter(Boolean);
}

/** @param {number} number */
function counted(number) {
  return number === 1 ? "1 slide" : `${number} slides`;
}

/** @param {string} text */
function strong(text) {
  return element("strong", "", text);
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {string} [name] @param {string} [text]
 * @returns {HTMLElementTagNameMap[K]}
 */
function element(tag, name = "", text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text) made.textContent = text;
  return made;
}
