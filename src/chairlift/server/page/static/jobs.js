// The jobs of this page: those that it made, and those of this browser that were under way when it
// was loaded.

import { ApiError } from "./api.js";
import { follow } from "./events.js";
import { browser } from "./kept.js";

const POLL_MS = 1500;
const LISTED = 100;
/** How many finished jobs are remembered: a tab may stay open for days. */
const REMEMBERED = 100;
const USER = "chairlift.user";

function randomHex() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** This browser's own name, which its jobs have as their `user`. */
function ownName() {
  const name = browser.get(USER) ?? `page-${randomHex()}`;
  browser.set(USER, name);
  return name;
}

export function isActive(job) {
  return job.status === "queued" || job.status === "running";
}

/**
 * @param {import("./api.js").Api} api
 * @param {import("./tabs.js").Tabs} tabs
 * @param {(job: object) => void} onChange Told whenever a job or one of its previews is new.
 */
export class Jobs {
  user = ownName();
  #api;
  #tabs;
  #onChange;
  #jobs = new Map();
  #previews = new Map();
  #streams = new Map();
  #poll;

  constructor(api, tabs, onChange) {
    this.#api = api;
    this.#tabs = tabs;
    this.#onChange = onChange;
  }

  get active() {
    return [...this.#jobs.values()].filter(isActive);
  }

  get(id) {
    return this.#jobs.get(id);
  }

  /** The newest half-made picture, as a URL. */
  preview(id, image) {
    return this.#previews.get(`${id}/${image}`);
  }

  /** Make a job. Raises ApiError. A lost connection is tried again; it is never made twice. */
  async create(settings, previewEvery) {
    const body = { ...settings, user: this.user, preview_every: previewEvery };
    const options = { method: "POST", body, headers: { "Idempotency-Key": randomHex() } };
    const again = (error) => {
      if (!(error instanceof ApiError) || error.status !== 0) throw error;
      return this.#api.json("/v1/jobs", options);
    };
    this.#take(await this.#api.json("/v1/jobs", options).catch(again));
    this.balance();
  }

  /** Take up what is under way, as after a reload. */
  async resume() {
    const { data } = await this.#list();
    for (const job of data.filter(isActive).reverse()) this.#take(job);
    this.balance();
  }

  /** End a request, one's own or not. Raises ApiError. */
  async cancel(id) {
    const own = this.#jobs.has(id);
    const path = `/v1/${own ? "jobs" : "requests"}/${id}/cancel`;
    const answer = await this.#api.json(path, { method: "POST" });
    if (own) this.#take(answer);
    this.balance();
  }

  /** Follow as many jobs as connections allow; ask for the others from time to time. */
  balance() {
    const all = document.hidden ? [] : this.active;
    const isRunning = (job) => job.status === "running";
    const active = [...all.filter(isRunning), ...all.filter((job) => !isRunning(job))];
    const followed = new Set(active.slice(0, this.#tabs.spare).map(({ id }) => id));
    for (const [id, stream] of this.#streams) {
      if (!followed.has(id)) stream.abort();
    }
    for (const id of followed) {
      if (!this.#streams.has(id)) this.#follow(id);
    }
    clearTimeout(this.#poll);
    if (active.length > followed.size) this.#poll = setTimeout(() => this.#ask(), POLL_MS);
  }

  async #follow(id) {
    const stream = new AbortController();
    this.#streams.set(id, stream);
    const handle = (event) => this.#heed(id, event);
    try {
      await follow(this.#api, `/v1/jobs/${id}/events`, { handle, signal: stream.signal });
    } catch (error) {
      this.#fail(id, error);
    } finally {
      this.#streams.delete(id);
    }
    this.balance();
  }

  /** Whether that was the last event. */
  #heed(id, event) {
    if (event.job) this.#take(event.job);
    else if (event.type === "job.partial_image") {
      const url = `data:image/${event.output_format};base64,${event.b64_json}`;
      this.#previews.set(`${id}/${event.image_index}`, url);
      this.#onChange(this.#jobs.get(id));
    }
    return !isActive(this.#jobs.get(id));
  }

  async #ask() {
    try {
      for (const job of (await this.#list()).data) {
        if (this.#jobs.has(job.id)) this.#take(job);
      }
    } catch (error) {
      if (!(error instanceof ApiError && error.isPassing)) throw error;
    }
    this.balance();
  }

  #list() {
    return this.#api.json(`/v1/jobs?limit=${LISTED}&user=${encodeURIComponent(this.user)}`);
  }

  #take(job) {
    const known = this.#jobs.get(job.id);
    if (known && !isActive(known)) return;
    this.#jobs.set(job.id, job);
    this.#onChange(job);
    if (isActive(job)) return;
    for (const key of [...this.#previews.keys()]) {
      if (key.startsWith(`${job.id}/`)) this.#previews.delete(key);
    }
    const finished = [...this.#jobs.values()].filter((one) => !isActive(one));
    for (const { id } of finished.slice(0, -REMEMBERED)) this.#jobs.delete(id);
  }

  /** A job that the server doesn't know any more has failed. */
  #fail(id, error) {
    if (!(error instanceof ApiError)) throw error;
    const { message, code } = error;
    this.#take({ ...this.#jobs.get(id), status: "failed", error: { message, code } });
  }
}
