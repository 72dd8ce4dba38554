// Draws the lift: a cable for each row, and on it a chair that goes up as the row denoises.

import { brief, byId, copyOf, count, seconds, sizeOf, write } from "./dom.js";

const MOST_LANES = 64;
/** How long a cable hangs empty before it is taken down, in milliseconds. */
const LINGER = 1500;
/** How long taking it down takes; lift.css has the same. */
const FOLDING = 350;
const COLOURS = 6;
/** The cable rises this share of its box, and sags this much. */
const RISE = 0.74;
const SAG = 0.2;
const CABLE = `M0 ${100 * RISE}Q50 ${50 * RISE + 200 * SAG} 100 0`;
/** Up to how many lanes there is so much room for each, and how many milliseconds are between two
 * drawings: the model may well run on the same machine, and needs its processor more. */
const DENSITIES = [
  { most: 4, name: "roomy", pause: 20 },
  { most: 10, name: "normal", pause: 20 },
  { most: 24, name: "close", pause: 40 },
  { most: Infinity, name: "dense", pause: 60 },
];
/** There must be room for so many times the lanes before each gets more of it, so that nothing
 * jumps when one comes and one goes. */
const SPARE = 1.5;

/** How far below the top of its box the cable is, at `t` of the way. */
function height(t) {
  return RISE * (1 - t) + 4 * SAG * t * (1 - t);
}

/** Name what a button cancels: a whole request. Without it where one may not. */
export function offerCancel({ cancel, cancelName }, { name, noun, pictures }, mayEnd) {
  const all = pictures > 1 ? `, all ${count(pictures, noun)}` : "";
  cancelName.textContent = cancel.title = `Cancel ${brief(name)}${all}`;
  cancel.hidden = !mayEnd;
}

/** A cable with its chair. */
class Lane {
  row = null;
  vacant = 0;
  #page;
  #parts;
  #shown = {};

  constructor(page) {
    this.#page = page;
    [this.element, this.#parts] = copyOf("lane");
    this.#parts.cable.setAttribute("d", CABLE);
    this.#parts.travelled.setAttribute("d", CABLE);
    this.#parts.cancel.addEventListener("click", () => page.cancel(this.row.id));
  }

  take(row) {
    this.row = row;
    this.#shown = {};
    this.element.ariaHidden = null;
    this.#parts.picture.hidden = true;
    this.#parts.chair.replaceWith(this.#parts.chair); // Begins its animations again.
  }

  leave(now) {
    this.row = null;
    this.vacant = now;
    this.element.dataset.state = "vacant";
    this.element.ariaHidden = "true";
    this.#parts.step.textContent = this.#parts.label.textContent = "";
  }

  /** Whether it is being taken down, at `now`: it hangs empty for too long. */
  folds(now) {
    return this.row === null && now - this.vacant > LINGER;
  }

  get isUp() {
    return this.element.dataset.state !== "folding";
  }

  draw(now) {
    const { row, element } = this;
    const rider = this.#page.describe(row);
    const preview = this.#page.preview(row);
    const { label, step, chair, seat, travelled } = this.#parts;
    const state = row.left > now ? "riding" : row.state;
    const t = Number(row.position(now).toFixed(3));
    const words = `${state === "resting" ? "rests at" : "step"} ${row.done} of ${row.total}`;
    this.#change("state", state, () => (element.dataset.state = state));
    this.#change("step", words, () => (step.textContent = words));
    this.#change("t", t, () => {
      for (const part of [chair, seat, travelled]) part.style.setProperty("--t", t);
      chair.style.setProperty("--y", height(t).toFixed(4));
    });
    this.#change("text", rider.text, () => {
      label.textContent = label.title = rider.text;
      element.classList.toggle("own", rider.own);
    });
    this.#change("cancel", `${row.mayEnd} ${rider.name}`, () => {
      offerCancel(this.#parts, { ...rider, noun: this.#page.noun() }, row.mayEnd);
    });
    if (preview) this.#change("preview", preview, () => this.#picture(preview));
  }

  /** What was seen last stays until it has got off, though its job may be done. */
  #picture(preview) {
    const { picture } = this.#parts;
    picture.hidden = false;
    picture.src = preview;
  }

  /** Do something only where it changes what is seen. */
  #change(name, value, apply) {
    if (this.#shown[name] === value) return;
    this.#shown[name] = value;
    apply();
  }
}

/** The lanes of one size: only they share ticks. */
class Group {
  lanes = [];
  #parts;

  constructor(row, colour) {
    this.colour = colour;
    [this.element, this.#parts] = copyOf("group");
    this.element.classList.add(`colour-${colour}`);
    this.#parts.size.textContent = sizeOf(row);
  }

  add(lane) {
    this.lanes.push(lane);
    this.#parts.list.append(lane.element);
    return lane;
  }

  /** Take down the cables that have been empty for long. Each keeps its place until its neighbour
   * goes too: where there are two columns, nobody changes sides. */
  tidy(now) {
    const isDown = (index) => this.lanes[index]?.folds(now - FOLDING) ?? true;
    const isGone = (lane, index) => isDown(index) && isDown(index ^ 1);
    for (const lane of this.lanes.filter(isGone)) lane.element.remove();
    this.lanes = this.lanes.filter((lane, index) => !isGone(lane, index));
    for (const lane of this.lanes) if (lane.folds(now)) lane.element.dataset.state = "folding";
    const aboard = this.lanes.filter(({ row }) => row?.isAboard).length;
    write(this.#parts.count, aboard ? count(aboard, "row") : "");
  }
}

/**
 * @param {object} page
 * @param {(id: string) => void} page.cancel
 * @param {(row: object) => object} page.describe `text` names the row, `name` its request, which
 *   has so many `pictures` where that is known, and is this browser's `own` or not.
 * @param {() => string} page.noun What the model makes.
 * @param {(row: object) => string|undefined} page.preview
 */
export class Scene {
  #page;
  #groups = new Map();
  #lanes = new Map();
  #level = 0;

  constructor(page) {
    this.#page = page;
  }

  /** Draw this moment; in how many milliseconds the next one is to be drawn, or null if it will
   * look the same. */
  draw(lift, now) {
    lift.sweep(now);
    this.#vacate(lift, now);
    let hidden = 0;
    for (const row of lift.rows.values()) {
      if (!this.#lanes.has(row.key) && !this.#seat(row)) hidden += Number(row.isAboard);
    }
    for (const lane of this.#lanes.values()) {
      lane.draw(now);
    }
    this.#fit(hidden, lift);
    return this.#groups.size ? DENSITIES[this.#level].pause : null;
  }

  /** Give a row an empty cable of its size, or a new one; whether there was room. */
  #seat(row) {
    const size = sizeOf(row);
    let lane = this.#groups.get(size)?.lanes.find((one) => one.row === null);
    if (!lane) {
      if (this.#total >= MOST_LANES) return false;
      if (!this.#groups.has(size)) this.#open(size, row);
      lane = this.#groups.get(size).add(new Lane(this.#page));
    }
    lane.take(row);
    this.#lanes.set(row.key, lane);
    return true;
  }

  /** Begin a group, in a colour that is free. */
  #open(size, row) {
    const taken = new Set([...this.#groups.values()].map(({ colour }) => colour));
    const free = [...Array(COLOURS).keys()].find((colour) => !taken.has(colour));
    const group = new Group(row, free ?? this.#groups.size % COLOURS);
    this.#groups.set(size, group);
    byId("groups").append(group.element);
  }

  /** Empty the cables of those who have left. */
  #vacate(lift, now) {
    for (const [key, lane] of this.#lanes) {
      if (lift.rows.get(key) === lane.row) continue;
      this.#lanes.delete(key);
      lane.leave(now);
    }
    for (const [size, group] of this.#groups) {
      group.tidy(now);
      if (group.lanes.length) continue;
      group.element.remove();
      this.#groups.delete(size);
    }
  }

  get #total() {
    const lanes = [...this.#groups.values()].flatMap((group) => group.lanes);
    return lanes.filter(({ isUp }) => isUp).length;
  }

  #fit(hidden, lift) {
    const total = this.#total;
    const level = (lanes) => DENSITIES.findIndex(({ most }) => lanes <= most);
    this.#level = Math.max(level(total), Math.min(this.#level, level(SPARE * total)));
    byId("scene").dataset.density = DENSITIES[this.#level].name;
    byId("empty").hidden = total > 0;
    const invitation = `The lift is empty. Send a ${this.#page.noun()} up.`;
    write(byId("empty-words"), lift.waiting ? "All aboard …" : invitation);
    byId("more").hidden = hidden === 0;
    write(byId("more"), `and ${count(hidden, "more row")}`);
  }
}

/** The figures above the lift. */
export function drawFigures(lift, now) {
  const rate = lift.rate(now);
  byId("figure-running").closest("section").classList.toggle("running", rate > 0);
  write(byId("figure-running"), String(lift.running));
  write(byId("figure-forward"), String(lift.running ? lift.forward : 0));
  write(byId("figure-ticks"), rate ? rate.toFixed(rate < 10 ? 1 : 0) : "0");
  write(byId("figure-waiting"), String(lift.waiting));
  write(byId("figure-backlog"), seconds(lift.backlog));
}
