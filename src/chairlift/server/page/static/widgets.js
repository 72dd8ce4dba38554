// The widgets of the form. Each has an `element`, and `get` and `set` of its value, which is as the
// API has it; undefined is the model's own.

import { drawing, h } from "./dom.js";

/** Widths to heights that are offered. */
const RATIOS = [[1, 1], [4, 3], [3, 4], [16, 9], [9, 16]];

/** A number that was typed. What is no number is sent as it is: the server explains it best. */
function typed(input) {
  const text = input.value.trim();
  if (text === "") return undefined;
  return Number.isNaN(Number(text)) ? text : Number(text);
}

function text({ id, rows, placeholder }) {
  const element = h("textarea", { id, rows, placeholder, dir: "auto", spellcheck: "true" });
  return {
    element,
    get: () => element.value || undefined,
    set: (value) => (element.value = value ?? ""),
  };
}

/** A slider over the usual range, and a number for all of it. */
function number({ id, label, min, max, usual = max, step, initial = "", placeholder = initial }) {
  const rest = initial === "" ? min : initial;
  const slider = h("input", { type: "range", min, max: usual, step, "aria-label": label });
  const input = h("input", { id, type: "text", inputmode: "decimal", placeholder });
  slider.addEventListener("input", () => (input.value = slider.value));
  input.addEventListener("input", () => (slider.value = typed(input) ?? rest));
  return {
    element: h("div", { class: "slider" }, input, slider),
    get: () => typed(input),
    set: (value) => {
      input.value = value ?? initial;
      slider.value = value ?? rest;
    },
  };
}

function choice({ id, choices, initial }) {
  const options = Object.entries(choices).map(([value, text]) => h("option", { value, text }));
  const element = h("select", { id }, ...options);
  return {
    element,
    get: () => element.value,
    set: (value) => (element.value = value ?? initial),
  };
}

/** Digits; empty is a new one each time. */
function seed({ id }) {
  const input = h("input", { id, inputmode: "numeric", placeholder: "a new one each time" });
  const roll = () => {
    input.value = crypto.getRandomValues(new Uint32Array(1))[0];
    dice.classList.toggle("rolled");
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const dice = h("button", { type: "button", class: "plain icon dice", click: roll },
    drawing("dice"), h("span", { class: "unseen", text: "Roll a seed" }));
  return {
    element: h("div", { class: "beside" }, input, dice),
    get: () => input.value.trim() || undefined,
    set: (value) => (input.value = value ?? ""),
  };
}

function size({ id, limits, initial }) {
  const side = { inputmode: "numeric", maxlength: 9 };
  const width = h("input", { id, ...side, "aria-label": "Width in pixels" });
  const height = h("input", { ...side, "aria-label": "Height in pixels" });
  const set = (value) => {
    const given = value?.split("x") ?? [initial.width, initial.height];
    [width.value, height.value] = given;
  };
  const shapes = RATIOS.map((ratio) => {
    const [wide, high] = fitted(ratio, limits, initial);
    const choose = () => {
      set(`${wide}x${high}`);
      width.dispatchEvent(new Event("input", { bubbles: true }));
    };
    const title = `${wide} × ${high}`;
    return h("button", { type: "button", class: "shape", title, click: choose },
      h("span", { class: `box box-${ratio.join("-")}` }),
      h("span", { class: "unseen", text: ratio.join(" to ") }));
  });
  return {
    element: h("div", { class: "size" },
      h("div", { class: "sides" }, width, h("span", { "aria-hidden": "true", text: "×" }), height),
      h("div", { class: "shapes", role: "group", "aria-label": "Shape" }, ...shapes)),
    get: () => `${width.value.trim()}x${height.value.trim()}`,
    set,
  };
}

/** The sides of about the model's own area that have this ratio, within its limits. */
function fitted([wide, high], limits, { width, height }) {
  const { size_multiple: multiple, max_pixels: most, max_side: longest } = limits;
  const area = Math.min(width * height, most);
  const side = (share) => {
    const wanted = Math.min(Math.sqrt(area * share), longest ?? Infinity);
    return Math.max(multiple, Math.round(wanted / multiple) * multiple);
  };
  const sides = [side(wide / high), side(high / wide)];
  const larger = sides[0] > sides[1] ? 0 : 1;
  while (sides[0] * sides[1] > most) sides[larger] -= multiple;
  return sides;
}

function loras({ names, scale }) {
  const rows = names.map((name) => {
    const box = h("input", { type: "checkbox" });
    const field = { ...scale, min: 0, usual: 2, initial: 1, label: `Scale of ${name}` };
    const weight = number(field);
    weight.element.firstChild.setAttribute("aria-label", `Scale of ${name}, as a number`);
    return { name, box, weight, element: h("li", {},
      h("label", {}, box, h("span", { text: name })), weight.element) };
  });
  const set = (value = []) => {
    for (const { name, box, weight } of rows) {
      const used = value.find((lora) => lora.name === name);
      box.checked = used !== undefined;
      weight.set(used?.scale);
    }
  };
  const get = () => {
    const used = rows.filter(({ box }) => box.checked);
    return used.length ? used.map(({ name, weight }) => ({ name, scale: weight.get() ?? 1 }))
      : undefined;
  };
  return { element: h("ul", { class: "loras" }, ...rows.map(({ element }) => element)), get, set };
}

/** By their kind in fields.js. */
export const WIDGETS = { text, number, choice, seed, size, loras };
