// One picture in the gallery, from the moment that it is asked for.

import { brief, copyOf, count, seconds, shape } from "./dom.js";
import { isFilm, smallFilm } from "./film.js";
import { isActive } from "./jobs.js";

const MOST_NAME = 40;

/** A file name that tells what is in it. */
export function fileName({ request }, image) {
  const words = request.prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [isFilm(image) ? "video" : "picture"];
  return `${words.join("-").slice(0, MOST_NAME)}-${image.seed}.${image.output_format}`;
}

/** The settings that make exactly this picture again. */
export function settingsOf({ request }, image) {
  return { ...request, n: 1, seed: image.seed };
}

/** What shaped a picture, as names and values. */
export function details({ request, timings }, image) {
  return [
    ["Size", shape(request.size)],
    ...(isFilm(image) ? [["Frames", request.num_frames]] : []),
    ["Steps", request.num_inference_steps],
    ["Guidance", Math.max(request.guidance_scale, request.true_cfg_scale)],
    ["Sampler", request.sampler],
    ["Seed", image.seed],
    ...(request.negative_prompt ? [["Negative prompt", request.negative_prompt]] : []),
    ...request.loras.map(({ name, scale }) => ["LoRA", `${name} × ${scale}`]),
    ...(timings ? [["Took", seconds(timings.total_s)]] : []),
  ];
}

function progressOf({ status, progress, position, eta_s: eta }, index) {
  if (status === "running") return `step ${progress.steps[index]} of ${progress.of}`;
  const place = position > 0 ? `${position} before it` : "next in line";
  return eta === null ? place : `${place}, done in about ${seconds(eta)}`;
}

function lineOf(job, index) {
  const { status, request, error, images } = job;
  if (isActive(job)) return progressOf(job, index);
  if (status === "failed") return error.message;
  const steps = count(request.num_inference_steps, "step");
  const frames = isFilm(images[index]) ? [count(request.num_frames, "frame")] : [];
  const parts = [shape(request.size), ...frames, steps, `seed ${images[index].seed}`];
  return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(", ");
}

/**
 * @param {object} job
 * @param {number} index Which of its pictures.
 * @param {object} gallery `onUse`, `onOpen`, `onCancel` and `onDismiss`, each called with the card.
 */
export class Card {
  /** Of the finished file, once it is here. */
  url = null;
  #parts;

  constructor(job, index, gallery) {
    Object.assign(this, { job, index });
    [this.element, this.#parts] = copyOf("card");
    const { frame, use, cancel, dismiss } = this.#parts;
    frame.addEventListener("click", () => this.url && gallery.onOpen(this));
    use.addEventListener("click", () => gallery.onUse(this));
    cancel.addEventListener("click", () => gallery.onCancel(this));
    dismiss.addEventListener("click", () => gallery.onDismiss(this));
  }

  get image() {
    return this.job.images[this.index];
  }

  show(job, preview) {
    this.job = job;
    const { frame, picture, progress, prompt, line, cancel } = this.#parts;
    const words = job.request.prompt || "(no words)";
    this.element.dataset.status = job.status;
    prompt.textContent = prompt.title = words;
    line.textContent = lineOf(job, this.index);
    frame.disabled = job.status !== "succeeded";
    const name = brief(words);
    frame.setAttribute("aria-label", frame.disabled ? `${name}, not done yet` : `Open ${name}`);
    const { n } = job.request;
    cancel.textContent = n > 1 ? `Cancel all ${n}` : "Cancel";
    if (isActive(job)) progress.value = job.progress.steps[this.index] / job.progress.of;
    if (preview) picture.src = preview;
  }

  /** The finished file. */
  load(blob) {
    const { frame, picture, download } = this.#parts;
    const shown = isFilm(this.image) ? smallFilm(frame) : picture;
    this.url = shown.src = download.href = URL.createObjectURL(blob);
    picture.alt = this.job.request.prompt;
    if (shown !== picture) picture.replaceWith(shown);
    download.download = fileName(this.job, this.image);
  }

  remove() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.element.remove();
  }
}
