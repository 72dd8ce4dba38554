// The form: the model's fields, what is in them, and what the server says against it.

import { count, h } from "./dom.js";
import { fieldsOf } from "./fields.js";
import { duration, nounOf } from "./film.js";
import { tab } from "./kept.js";
import { WIDGETS } from "./widgets.js";

const STORED = "chairlift.form";
/** How many previews "about ten" means. */
const SOME_PREVIEWS = 10;

/**
 * @param {HTMLFormElement} element
 * @param {object} card The model's.
 * @param {object} listeners `onSubmit()` and `onChange()`.
 */
export class Form {
  #element;
  #card;
  #fields = new Map();
  #submit = h("button", { type: "submit", class: "main go", text: "Generate" });
  #error = h("p", { class: "error", id: "error-form", role: "alert" });

  constructor(element, card, { onSubmit, onChange }) {
    this.#element = element;
    this.#card = card;
    this.#build();
    this.apply(JSON.parse(tab.get(STORED) ?? "{}"));
    element.oninput = ({ target }) => {
      this.#clearError(target.closest("[data-field]")?.dataset.field);
      this.#adapt();
      this.#store();
      onChange();
    };
    element.onsubmit = (event) => {
      event.preventDefault();
      onSubmit();
    };
    element.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit();
    };
  }

  /** The body of a request: every field that has a value. */
  get settings() {
    const { previews, ...values } = this.#values();
    return { prompt: "", ...values };
  }

  /** What the events of a job need beside its settings. */
  get previewEvery() {
    const { previews, num_inference_steps: steps } = this.#values();
    if (previews === undefined || previews === "none") return undefined;
    if (previews === "all") return 1;
    return Math.max(1, Math.round((Number(steps) || this.#card.defaults.steps) / SOME_PREVIEWS));
  }

  /** Put settings into the fields; the others get the model's own. */
  apply(settings) {
    for (const [name, { widget }] of this.#fields) widget.set(settings[name] ?? undefined);
    this.clearErrors();
    this.#adapt();
    this.#store();
  }

  clearErrors() {
    this.#error.textContent = "";
    for (const name of this.#fields.keys()) this.#clearError(name);
  }

  #clearError(name) {
    const { line, input } = this.#fields.get(name);
    line.textContent = "";
    input.removeAttribute("aria-invalid");
  }

  /** Show an error beside the field that it names, or else at the button. */
  showError({ message, param }) {
    this.clearErrors();
    const field = this.#fields.get((param ?? "").split(".")[0]);
    if (!field) {
      this.#error.textContent = message;
      return;
    }
    field.line.textContent = message;
    field.input.setAttribute("aria-invalid", "true");
    const folded = field.input.closest("details");
    if (folded) folded.open = true;
    field.input.focus({ preventScroll: true });
    field.line.scrollIntoView({ block: "nearest" });
    field.input.scrollIntoView({ block: "nearest" });
  }

  /** While a request is on its way to the server. */
  set busy(busy) {
    this.#submit.setAttribute("aria-disabled", String(busy));
    this.#element.setAttribute("aria-busy", String(busy));
  }

  get busy() {
    return this.#submit.getAttribute("aria-disabled") === "true";
  }

  focus() {
    this.#fields.get("prompt").input.focus();
  }

  #values() {
    const all = [...this.#fields].map(([name, { widget }]) => [name, widget.get()]);
    const values = Object.fromEntries(all.filter(([, value]) => value !== undefined));
    if (values.output_format === "png") delete values.output_compression;
    if (values.priority === 0) delete values.priority;
    return values;
  }

  #build() {
    const fields = fieldsOf(this.#card);
    const first = fields.filter(({ more }) => !more).map((field) => this.#row(field));
    const further = fields.filter(({ more }) => more).map((field) => this.#row(field));
    this.#element.replaceChildren(
      ...first,
      h("details", { class: "further" }, h("summary", { text: "More settings" }), ...further),
      h("div", { class: "send" }, this.#submit, this.#error),
    );
  }

  /** A label, its widget, and a line for what is wrong. */
  #row(field) {
    const id = field.name === "prompt" ? "prompt" : `field-${field.name}`;
    const widget = WIDGETS[field.kind]({ ...field, id });
    const input = widget.element.querySelector(`#${id}`) ?? widget.element;
    const line = h("p", { class: "error", id: `error-${field.name}`, role: "alert" });
    const hint = h("p", { class: "hint", id: `hint-${field.name}`, text: field.hint ?? "" });
    input.setAttribute("aria-describedby", `${line.id} ${hint.id}`);
    this.#fields.set(field.name, { widget, input, line });
    const label = field.kind === "loras"
      ? h("span", { class: "label", text: field.label })
      : h("label", { for: id, text: field.label });
    return h("div", { class: `field ${field.kind}-field`, "data-field": field.name },
      label, widget.element, hint, line);
  }

  /** What depends on other fields: the button's text, hints, and whether there is a quality. */
  #adapt() {
    const values = this.#values();
    const { n = 1, output_format: format, negative_prompt: negative } = values;
    this.#submit.textContent = n > 1 ? `Generate ${count(n, nounOf(this.#card))}` : "Generate";
    const show = (name, shown) => {
      const row = this.#element.querySelector(`[data-field="${name}"]`);
      if (row) row.hidden = !shown;
    };
    show("output_compression", format !== "png");
    this.#element.querySelector("#hint-negative_prompt").hidden = !negative;
    const length = this.#element.querySelector("#hint-num_frames");
    if (length) {
      length.textContent = duration(values.num_frames, this.#card.defaults.frames_per_second);
    }
  }

  #store() {
    tab.set(STORED, JSON.stringify(this.settings));
  }
}
