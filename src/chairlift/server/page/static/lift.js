// Who is on the lift, from the reports of GET /v1/lift. Draws nothing.

import { still } from "./dom.js";

/** A row that missed ticks of others for so long is said to rest, in milliseconds. */
const REST_AFTER = 700;
/** How long a row takes to get off, or to vanish. */
const LEAVING = 800;
const SHORTEST_GLIDE = 120;
const LONGEST_GLIDE = 3000;
/** Over which time ticks a second are counted. */
const RATE_WINDOW = 3000;
/** Requests that weren't seen for so long are forgotten. */
const MEMORY = 60_000;

/** One picture on its way up. Its states: `riding`, `resting`, `arrived`, `vanished`. */
class Row {
  state = "riding";
  left = null;
  /** Whether who looks on here may cancel it. */
  mayEnd = false;

  constructor(key, [[id, image], before, total], { width, height, frames }, now) {
    Object.assign(this, { key, id, image, width, height, frames, total, done: before });
    this.from = before / total;
    this.glide = 4 * SHORTEST_GLIDE;
    this.seen = this.start = now;
  }

  /** Glide to `done` in about the time that the last steps took. */
  advance(done, total, now) {
    const again = done < this.done;
    this.from = again ? done / total : this.position(now);
    const since = Math.min(LONGEST_GLIDE, Math.max(SHORTEST_GLIDE, now - this.start));
    this.glide = this.start === now ? this.glide : (this.glide + since) / 2;
    Object.assign(this, { done, total, start: now, seen: now, state: "riding" });
    if (done >= total) this.leave("arrived", now + this.glide);
  }

  leave(state, when) {
    this.state = state;
    this.left = when;
  }

  get isAboard() {
    return this.left === null;
  }

  /** How far up it is shown, 0 to 1. */
  position(now) {
    const goal = this.done / this.total;
    if (still.matches) return goal;
    return this.from + (goal - this.from) * Math.min(1, (now - this.start) / this.glide);
  }
}

export class Lift {
  rows = new Map();
  queue = [];
  running = 0;
  waiting = 0;
  backlog = 0;
  /** Rows in the last forward. */
  forward = 0;
  #ticks = [];
  #known = new Map();

  /** Forget everything, as after a lost connection. */
  clear() {
    this.rows.clear();
    Object.assign(this, { queue: [], running: 0, waiting: 0, backlog: 0, forward: 0 });
  }

  /**
   * Take a report in.
   * @returns {object} What the charts want: `ticks`, `rows` of all ticks together, `waiting`, and
   *   `latencies` in seconds, one for each row that has made its last step.
   */
  observe(report, now) {
    const { ticks, running, waiting, backlog_seconds: backlog } = report;
    const own = report.own && new Set(report.own);
    const mayEnd = (id) => own?.has(id) ?? true;
    const queue = report.queue.map((request) => ({ ...request, mayEnd: mayEnd(request.id) }));
    Object.assign(this, { running, waiting, backlog, queue });
    for (const { id } of queue) this.#remember(id, now);
    const latencies = this.#ride(ticks, mayEnd, now);
    this.#reconcile(new Set(ticks.map((tick) => tick.worker)), now);
    this.#forget(now);
    const rows = ticks.reduce((sum, tick) => sum + tick.riders.length, 0);
    return { ticks: ticks.length, rows, waiting, latencies };
  }

  /** Ticks a second. */
  rate(now) {
    this.#ticks = this.#ticks.filter(([time]) => now - time < RATE_WINDOW);
    const ticks = this.#ticks.reduce((sum, [, number]) => sum + number, 0);
    return (1000 * ticks) / RATE_WINDOW;
  }

  /** The rows of a request that was cancelled. */
  drop(id, now) {
    for (const row of this.rows.values()) {
      if (row.id === id && row.isAboard) row.leave("vanished", now);
    }
    this.queue = this.queue.filter((request) => request.id !== id);
  }

  /** Forget rows that have left. */
  sweep(now) {
    for (const [key, { left }] of this.rows) {
      if (left !== null && now > left + LEAVING) this.rows.delete(key);
    }
  }

  /** Move everybody who was in a tick; the latencies of those who arrive. */
  #ride(ticks, mayEnd, now) {
    const latest = new Map();
    for (const tick of ticks) {
      this.forward = tick.riders.length;
      for (const rider of tick.riders) {
        const key = rider[0].join("/");
        if (!this.rows.get(key)?.isAboard) this.rows.set(key, new Row(key, rider, tick, now));
        Object.assign(this.rows.get(key), { worker: tick.worker, mayEnd: mayEnd(rider[0][0]) });
        this.#remember(rider[0][0], now);
        latest.set(key, rider);
      }
    }
    if (ticks.length) this.#ticks.push([now, ticks.length]);
    const latencies = [];
    for (const [key, [[id], before, total]] of latest) {
      this.rows.get(key).advance(before + 1, total, now);
      if (before + 1 >= total) latencies.push((now - this.#known.get(id).first) / 1000);
    }
    return latencies;
  }

  /** Reports don't name who was cancelled or failed: more rows than have slots means that the ones
   * that weren't seen for longest are gone. The others that aren't seen rest, if their worker
   * ticks. */
  #reconcile(workers, now) {
    const aboard = [...this.rows.values()].filter((row) => row.isAboard);
    aboard.sort((one, other) => one.seen - other.seen);
    const surplus = Math.max(0, aboard.length - this.running);
    for (const row of aboard.slice(0, surplus)) row.leave("vanished", now);
    for (const row of aboard.slice(surplus)) {
      if (workers.has(row.worker) && now - row.seen > REST_AFTER) row.state = "resting";
    }
  }

  #remember(id, now) {
    this.#known.set(id, { first: this.#known.get(id)?.first ?? now, last: now });
  }

  #forget(now) {
    for (const [id, { last }] of this.#known) {
      if (now - last > MEMORY) this.#known.delete(id);
    }
  }
}
