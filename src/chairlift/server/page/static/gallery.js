// The pictures: those on their way, then the finished ones, newest first.

import { ApiError, lost } from "./api.js";
import { announce, brief, byId, h, onChoice, still } from "./dom.js";
import { Card, details, fileName, settingsOf } from "./card.js";
import { isFilm } from "./film.js";
import { isActive } from "./jobs.js";

const PAGE = 24;

/**
 * @param {import("./api.js").Api} api
 * @param {import("./jobs.js").Jobs} jobs
 * @param {object} page `onUse(settings)` and `onCancel(id)`.
 */
export class Gallery {
  #api;
  #jobs;
  #page;
  #cards = new Map();
  #pages = 1;
  #mine = false;
  #opened = null;
  #viewer = byId("viewer");
  #list = byId("cards");
  #seen = new IntersectionObserver((entries) => this.#look(entries), { rootMargin: "300px" });

  constructor(api, jobs, page) {
    this.#api = api;
    this.#jobs = jobs;
    this.#page = {
      onUse: ({ job, image }) => page.onUse(settingsOf(job, image)),
      onCancel: ({ job }) => page.onCancel(job.id),
      onOpen: (card) => this.#open(card),
      onDismiss: (card) => this.#dismiss(card),
    };
    onChoice("whose", (whose) => this.#choose(whose));
    byId("older").addEventListener("click", () => this.#older());
    this.#prepareViewer();
  }

  /** One of this page's own jobs is new, or has gone on. */
  update(job) {
    if (job.status === "cancelled") this.#removeJob(job.id);
    else this.#place(job);
    this.#note();
  }

  /** Fetch the newest pictures again, and as many older ones as were shown. */
  async refresh() {
    let more = true;
    let last = null;
    for (let page = 0; page < this.#pages && more; page += 1) {
      ({ more, last } = await this.#fetch(last));
    }
    this.#trim();
    byId("older").hidden = !more;
    this.#note();
  }

  async #fetch(after) {
    const query = new URLSearchParams({ status: "succeeded", limit: PAGE });
    if (this.#mine) query.set("user", this.#jobs.user);
    if (after) query.set("after", after);
    const { data, has_more: more } = await this.#api.json(`/v1/jobs?${query}`);
    for (const job of data) this.#place(job);
    return { more, last: data.at(-1)?.id };
  }

  async #older() {
    this.#pages += 1;
    await this.refresh();
  }

  async #choose(whose) {
    this.#mine = whose === "mine";
    this.#pages = 1;
    for (const card of this.#shown) if (!isActive(card.job)) this.#remove(card);
    await this.refresh();
  }

  /** The cards as they are shown. */
  get #shown() {
    return [...this.#list.children].map(({ dataset }) => this.#cards.get(dataset.key));
  }

  /** Show every picture of a job, but of one whose settings aren't known any more. */
  #place(job) {
    for (let index = 0; index < (job.request?.n ?? 0); index += 1) {
      const key = `${job.id}/${index}`;
      const known = this.#cards.get(key);
      const wasActive = known && isActive(known.job);
      const card = known ?? new Card(job, index, this.#page);
      card.show(job, this.#jobs.preview(job.id, index));
      if (!known || wasActive !== isActive(job)) this.#insert(key, card);
      if (job.status === "succeeded") this.#seen.observe(card.element);
    }
  }

  /** Those on their way, then the newest; a job's own pictures in their order. */
  #insert(key, card) {
    const { id, created_at: created } = card.job;
    const active = isActive(card.job);
    const isBehind = ({ job, index }) => {
      if (isActive(job) !== active) return active;
      return job.id === id ? index > card.index : job.created_at < created;
    };
    card.element.dataset.key = key;
    this.#cards.set(key, card);
    const next = this.#shown.find((other) => other !== card && isBehind(other));
    if (!next || next.element !== card.element.nextElementSibling) {
      this.#list.insertBefore(card.element, next?.element ?? null);
    }
  }

  /** Keep no more finished jobs than were asked for. */
  #trim() {
    const done = this.#shown.filter(({ job }) => job.status === "succeeded");
    const ids = new Set(done.map(({ job }) => job.id));
    for (const id of [...ids].slice(this.#pages * PAGE)) this.#removeJob(id);
  }

  #removeJob(id) {
    for (const card of this.#shown) if (card.job.id === id) this.#remove(card);
  }

  #remove(card) {
    this.#seen.unobserve(card.element);
    this.#cards.delete(card.element.dataset.key);
    card.remove();
  }

  /** Its button had the focus, which goes on to the gallery. */
  #dismiss(card) {
    this.#remove(card);
    this.#note();
    byId("gallery-title").focus({ preventScroll: true });
  }

  #note() {
    byId("nothing").hidden = this.#cards.size > 0;
  }

  /** Load the pictures that come into sight. */
  #look(entries) {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      this.#seen.unobserve(target);
      this.#load(this.#cards.get(target.dataset.key));
    }
  }

  async #load(card) {
    if (card.url) return;
    try {
      const response = await this.#api.send(card.image.url);
      const blob = await response.blob().catch((error) => Promise.reject(lost(error)));
      if (!card.url) card.load(blob);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // What the server has removed goes; what it couldn't send is asked for at the next refresh.
      if (!error.isPassing) this.#removeJob(card.job.id);
      this.#note();
    }
  }

  // ---------------------------------------------------------------- the viewer

  #open(card) {
    this.#opened = card;
    const { job, image, url } = card;
    const viewer = this.#viewer;
    this.#show(url, job.request.prompt, isFilm(image));
    byId("viewer-prompt").textContent = job.request.prompt;
    const rows = details(job, image).map(([name, value]) =>
      h("div", {}, h("dt", { text: name }), h("dd", { text: value })));
    viewer.querySelector("dl").replaceChildren(...rows);
    const link = { href: url, download: fileName(job, image) };
    Object.assign(viewer.querySelector("[data-download]"), link);
    if (!viewer.open) viewer.showModal();
  }

  /** The picture or the video; the other one is hidden. */
  #show(url, words, film) {
    const [picture, video] = ["img", "video"].map((tag) => this.#viewer.querySelector(tag));
    [picture.hidden, video.hidden] = [film, !film];
    picture.alt = words;
    video.setAttribute("aria-label", words);
    video.autoplay = !still.matches;
    video.pause();
    (film ? video : picture).src = url;
  }

  #prepareViewer() {
    const viewer = this.#viewer;
    viewer.addEventListener("close", () => viewer.querySelector("video").pause());
    viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
    viewer.addEventListener("click", ({ target }) => target === viewer && viewer.close());
    viewer.querySelector("[data-use]").addEventListener("click", () => {
      viewer.close();
      this.#page.onUse(this.#opened);
    });
    viewer.addEventListener("keydown", ({ key, target }) => {
      if (target.tagName === "VIDEO") return; // It seeks by the same keys.
      if (key === "ArrowRight") this.#turn(1);
      if (key === "ArrowLeft") this.#turn(-1);
    });
  }

  /** Look at the picture so many places further. */
  #turn(places) {
    const loaded = this.#shown.filter(({ url }) => url);
    const card = loaded[loaded.indexOf(this.#opened) + places];
    if (!card) return;
    this.#open(card);
    announce(brief(card.job.request.prompt));
  }
}
