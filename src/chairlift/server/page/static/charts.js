// Four small charts of the last five minutes, from what the lift reports.

import { byId, copyOf, seconds, write } from "./dom.js";

const BUCKET_MS = 2000;
const BUCKETS = 150;
const WIDTH = 300;
const HEIGHT = 64;
/** Pictures a minute are counted over so many buckets. */
const RATE_BUCKETS = 10;

/** Each reads its values from the buckets; `dots` has a list of them for each bucket. */
const KINDS = [
  { name: "Pictures a minute", read: perMinute, words: (value) => value.toFixed(0) },
  { name: "Rows a tick", read: rowsPerTick, words: (value) => value.toFixed(1) },
  { name: "Waiting rows", read: (buckets) => buckets.map((one) => one.waiting), words: String },
  { name: "Median latency", read: (buckets) => buckets.map((one) => one.latencies), words: seconds,
    dots: true, note: "From a row’s arrival to its last step, as this page has seen it" },
];

function perMinute(buckets) {
  return buckets.map((_, index) => {
    const window = buckets.slice(Math.max(0, index + 1 - RATE_BUCKETS), index + 1);
    const pictures = window.reduce((sum, { latencies }) => sum + latencies.length, 0);
    return (pictures * 60_000) / (RATE_BUCKETS * BUCKET_MS);
  });
}

function rowsPerTick(buckets) {
  return buckets.map(({ ticks, rows }) => (ticks ? rows / ticks : 0));
}

function median(values) {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];
}

/** The least round number that is no less. */
function ceiling(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 5, 10].find((factor) => factor * unit >= value);
}

class Chart {
  #kind;
  #parts;

  constructor(kind) {
    this.#kind = kind;
    [this.element, this.#parts] = copyOf("chart");
    this.element.classList.toggle("dots", Boolean(kind.dots));
    this.element.title = kind.note ?? "";
    this.#parts.name.textContent = kind.name;
    this.#parts.drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  }

  draw(buckets) {
    const { name, read, words, dots } = this.#kind;
    const { now, most, drawing, line, area } = this.#parts;
    const values = read(buckets);
    const all = values.flat();
    const highest = Math.max(0, ...all);
    const top = ceiling(Math.max(highest, dots ? 0.1 : 1));
    const last = dots ? median(all) : all.at(-1);
    const text = last === undefined ? "–" : words(last);
    const label = `${name}: now ${text}, at most ${words(highest)} in the last five minutes`;
    write(now, text);
    write(most, words(top));
    drawing.setAttribute("aria-label", label);
    const place = (value, index) => {
      const x = ((index + 0.5) * WIDTH) / BUCKETS;
      return `${x.toFixed(1)} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 6)).toFixed(1)}`;
    };
    if (dots) {
      const dot = (some, index) => some.map((value) => `M${place(value, index)}h.01`).join("");
      line.setAttribute("d", values.map(dot).join(""));
    } else {
      const path = `M${values.map(place).join("L")}`;
      line.setAttribute("d", path);
      area.setAttribute("d", `${path}V${HEIGHT}H0Z`);
    }
  }
}

export class Charts {
  #charts = KINDS.map((kind) => new Chart(kind));
  #buckets = Array.from({ length: BUCKETS }, () => this.#empty(0));
  #end = performance.now() + BUCKET_MS;

  constructor() {
    byId("charts").append(...this.#charts.map(({ element }) => element));
    this.draw();
  }

  /** Take in what Lift.observe has returned. */
  add({ ticks, rows, waiting, latencies }) {
    this.#turn();
    const bucket = this.#buckets.at(-1);
    bucket.ticks += ticks;
    bucket.rows += rows;
    bucket.waiting = waiting;
    bucket.latencies.push(...latencies);
  }

  draw() {
    this.#turn();
    for (const chart of this.#charts) chart.draw(this.#buckets);
  }

  /** Begin new buckets until the last one is now's. */
  #turn() {
    for (; performance.now() >= this.#end; this.#end += BUCKET_MS) {
      this.#buckets.push(this.#empty(this.#buckets.at(-1).waiting));
      this.#buckets.shift();
    }
  }

  #empty(waiting) {
    return { ticks: 0, rows: 0, waiting, latencies: [] };
  }
}
