// Which fields a model takes, from its card.

import { nounOf } from "./film.js";

/** Guidance past this is rarely wanted: the slider ends here, the number beside it doesn't. */
const USUAL_SCALE = 15;
const MOST_PRIORITY = 10;
const MOST_LORA_SCALE = 10;

const OPTIONS = {
  guidance_scale_2: {
    label: "Guidance of the second expert", min: 1, max: 100, usual: USUAL_SCALE, step: 0.1,
    placeholder: "same",
  },
  guidance_rescale: { label: "Guidance rescale", max: 1, step: 0.05, initial: 0 },
  cfg_truncation: { label: "Guidance until", max: 1, step: 0.05, initial: 1 },
  cfg_normalization: { label: "Guidance bound", max: 10, step: 0.1, initial: 0 },
};

/**
 * The fields of the form in their order. `kind` is the widget, `name` the field of the API.
 * `more` ones are folded away.
 * @param {object} card As GET /v1/models has it.
 */
export function fieldsOf(card) {
  const { defaults, limits, guidance } = card;
  const noun = nounOf(card);
  const onlyOf = (kind, field) => (noun === kind ? [field] : []);
  return [
    { kind: "text", name: "prompt", label: "Prompt", rows: 3,
      placeholder: `What shall the ${noun} show?` },
    { kind: "text", name: "negative_prompt", label: "Negative prompt", rows: 1,
      hint: cfgHint(card) },
    { kind: "size", name: "size", label: "Size", limits, initial: defaults },
    ...onlyOf("video", framesField(defaults, limits)),
    stepsField(defaults, limits),
    ...scaleFields(card),
    number("n", `How many ${noun}s`, { min: 1, max: limits.max_images ?? 1, initial: 1 }),
    { kind: "seed", name: "seed", label: "Seed" },
    ...choice("sampler", "Sampler", card.samplers, defaults.sampler, true),
    ...guidance.options.filter((name) => OPTIONS[name]).map((name) => optionField(name)),
    ...loraFields(card.loras),
    ...choice("output_format", "Format", card.output_formats ?? [], undefined, true),
    ...onlyOf("picture", number("output_compression", "Quality", {
      min: 0, max: 100, initial: 90, more: true,
    })),
    number("priority", "Priority", {
      min: -MOST_PRIORITY, max: MOST_PRIORITY, initial: 0, more: true,
    }),
    ...onlyOf("picture", {
      kind: "choice", name: "previews", label: "Previews", more: true, initial: "some",
      choices: { some: "about ten", all: "at every step", none: "none" },
    }),
  ];
}

function framesField({ frames: initial }, { max_frames: max, frame_multiple: step }) {
  return number("num_frames", "Frames", { min: 1, max, step, initial });
}

/** When a negative prompt works, for those who write one. */
function cfgHint(card) {
  const { cfg_field: name, cfg_offset: offset } = card.guidance;
  const label = name === "guidance_scale" ? "guidance" : "true guidance";
  return `It works where ${label} is above ${1 - (offset ?? 0)}.`;
}

function number(name, label, bounds) {
  return { kind: "number", name, label, step: 1, ...bounds };
}

function stepsField(defaults, limits) {
  const usual = Math.min(limits.max_steps, Math.max(50, 2 * defaults.steps));
  const bounds = { min: 1, max: limits.max_steps, usual, initial: defaults.steps };
  return number("num_inference_steps", "Steps", bounds);
}

function scaleFields({ defaults, guidance }) {
  const bounds = { min: 0, max: 100, usual: USUAL_SCALE, step: 0.1 };
  const fields = [];
  if (guidance.embedded || guidance.cfg_field === "guidance_scale") {
    const initial = defaults.guidance_scale;
    fields.push(number("guidance_scale", "Guidance", { ...bounds, initial }));
  }
  if (guidance.cfg_field === "true_cfg_scale") {
    const initial = defaults.true_cfg_scale;
    fields.push(number("true_cfg_scale", "True guidance", { ...bounds, initial }));
  }
  return fields;
}

function optionField(name) {
  const { label, ...bounds } = OPTIONS[name];
  return number(name, label, { min: 0, more: true, ...bounds });
}

function choice(name, label, names, initial, more) {
  if (names.length < 2) return [];
  const choices = Object.fromEntries(names.map((one) => [one, one]));
  return [{ kind: "choice", name, label, choices, initial: initial ?? names[0], more }];
}

function loraFields(names) {
  if (!names?.length) return [];
  const scale = { min: -MOST_LORA_SCALE, max: MOST_LORA_SCALE, step: 0.05 };
  return [{ kind: "loras", name: "loras", label: "LoRAs", names, scale, more: true }];
}
