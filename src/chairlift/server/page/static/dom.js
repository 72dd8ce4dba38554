// Elements and words. Data only ever becomes text or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";
const MOST_LETTERS = 60;

/**
 * An element.
 * @param {string} tag
 * @param {object} [attributes] `text` is its text, functions are listeners (`click`), true is an
 *   attribute without a value, false, null and undefined are none.
 * @param {...(Node|string)} children
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** One of the drawings at the head of the page. */
export function drawing(name) {
  const use = fill(document.createElementNS(SVG, "use"), { href: `#${name}` }, []);
  return fill(document.createElementNS(SVG, "svg"), { "aria-hidden": "true" }, [use]);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The element with this id, which must be there. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** A copy of one of the page's templates, and what has a `data-part` in it, by that name. */
export function copyOf(name) {
  const element = byId(`${name}-template`).content.firstElementChild.cloneNode(true);
  const parts = [...element.querySelectorAll("[data-part]")];
  return [element, Object.fromEntries(parts.map((part) => [part.dataset.part, part]))];
}

/** Press one of several buttons: it is called with its value of `attribute`, and stays pressed. */
export function onChoice(attribute, choose) {
  const buttons = [...document.querySelectorAll(`[data-${attribute}]`)];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      choose(button.dataset[attribute]);
    });
  }
}

/** Write a text only if it is another one: that spares the browser layouts. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Say something to those who listen to the page instead of seeing it. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** `0 s`, `0.42 s`, `3.1 s`, `48 s`, `2 min 5 s`, `15 min`, `1 h 20 min`. */
export function seconds(value) {
  if (value < 0.005) return "0 s";
  if (value < 1) return `${value.toFixed(2)} s`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 600) return pair(whole, "min", "s");
  return pair(Math.round(whole / 60), "h", "min");
}

/** So many small units as large ones of sixty and what is left; nothing is said of noughts. */
function pair(value, large, small) {
  const parts = [[Math.floor(value / 60), large], [value % 60, small]];
  return parts.filter(([number]) => number).map((part) => part.join(" ")).join(" ");
}

/** As much of a text as fits into a sentence. */
export function brief(text) {
  const letters = [...text.slice(0, 2 * MOST_LETTERS + 1)];
  return letters.length > MOST_LETTERS ? `${letters.slice(0, MOST_LETTERS).join("")}…` : text;
}

/** `1 picture`, `2 pictures`. */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** `1024 × 768`, from `1024x768`. */
export function shape(size) {
  return size.replace("x", " × ");
}

/** `512 × 512`, or `832 × 480, 81 frames` of a video: only rows of one size share ticks. */
export function sizeOf({ width, height, frames }) {
  return `${width} × ${height}${frames > 1 ? `, ${count(frames, "frame")}` : ""}`;
}

/** Whether the person wants things to stand still. */
export const still = matchMedia("(prefers-reduced-motion: reduce)");
