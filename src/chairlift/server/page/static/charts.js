// Four small charts of the last minutes, five at most, from what the lift reports.

import { byId, copyOf, count, seconds, write } from "./dom.js";

const BUCKET_MS = 2000;
const BUCKETS = 150;
/** How many are shown at first, and are added at once: whole minutes. */
const MINUTE = 30;
const WIDTH = 300;
const HEIGHT = 64;
/** Pictures a minute are counted over so many buckets. */
const RATE_BUCKETS = 10;
/** How many latencies are kept of a bucket, however fast the server is. */
const MOST_DOTS = 50;

/** Each reads its values from the buckets; `dots` has a list of them for each bucket. Null is what
 * this page hasn't seen. */
const KINDS = [
  { name: (nouns) => `${nouns} a minute`, read: perMinute, words: (value) => value.toFixed(0) },
  { name: () => "Rows a tick", read: rowsPerTick, words: decimal },
  { name: () => "Waiting rows", read: waitingRows, words: String },
  { name: () => "Median latency", read: (buckets) => buckets.map((one) => one.latencies),
    words: seconds, dots: true, note: "From a row’s arrival to its last step, as this page has seen it" },
];

function decimal(value) {
  return value ? value.toFixed(1) : "0";
}

function perMinute(buckets) {
  return buckets.map(({ isSeen }, index) => {
    if (!isSeen) return null;
    const window = buckets.slice(Math.max(0, index + 1 - RATE_BUCKETS), index + 1);
    const pictures = window.reduce((sum, one) => sum + one.pictures, 0);
    return (pictures * 60_000) / (RATE_BUCKETS * BUCKET_MS);
  });
}

/** Of two buckets, because the newest may have just begun. */
function rowsPerTick(buckets) {
  return buckets.map(({ isSeen, ticks, rows }, index) => {
    const before = buckets[index - 1] ?? { ticks: 0, rows: 0 };
    return isSeen ? (rows + before.rows) / (ticks + before.ticks || 1) : null;
  });
}

function waitingRows(buckets) {
  return buckets.map(({ isSeen, waiting }) => (isSeen ? waiting : null));
}

/** Values beside each other, with their places, without the nulls between them. */
function stretches(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index === 0 || values[index - 1] === null) found.push([]);
    found.at(-1).push([value, index]);
  });
  return found;
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
    this.#parts.drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  }

  /** Draw the last `span` of the buckets of a model that makes `nouns`. */
  draw(buckets, span, nouns) {
    const { read, words, dots } = this.#kind;
    const { name, now, most, since, drawing, line, area } = this.#parts;
    const values = read(buckets).slice(-span);
    const all = values.flat().filter((value) => value !== null);
    const highest = Math.max(0, ...all);
    const top = ceiling(Math.max(highest, dots ? 0.1 : 1));
    const last = dots ? median(all) : values.at(-1);
    const text = last == null ? "–" : words(last);
    const minutes = span / MINUTE;
    const title = this.#kind.name(nouns);
    const past = minutes === 1 ? "minute" : count(minutes, "minute");
    const label = `${title}: now ${text}, at most ${words(highest)} in the last ${past}`;
    write(since, `${minutes} min`);
    write(name, title);
    write(now, text);
    write(most, highest ? words(top).replace(/\.0+(?!\d)/, "") : "");
    drawing.setAttribute("aria-label", label);
    const x = (index) => (((index + 0.5) * WIDTH) / span).toFixed(1);
    const y = (value) => (HEIGHT - 2 - (value / top) * (HEIGHT - 6)).toFixed(1);
    if (dots) {
      const dot = (some, index) => some.map((value) => `M${x(index)} ${y(value)}h.01`).join("");
      line.setAttribute("d", values.map(dot).join(""));
      return;
    }
    const paths = stretches(values).map((stretch) => ({
      start: x(stretch[0][1]),
      points: stretch.map(([value, index]) => `${x(index)} ${y(value)}`).join("L"),
    }));
    line.setAttribute("d", paths.map(({ points }) => `M${points}h.01`).join(""));
    const fill = ({ start, points }) => `M${points}V${HEIGHT}H${start}Z`;
    area.setAttribute("d", paths.map(fill).join(""));
  }
}

export class Charts {
  /** Whether the page sees what happens. */
  isLive = false;
  /** What the model makes. */
  nouns = "Pictures";
  #charts = KINDS.map((kind) => new Chart(kind));
  #buckets = Array.from({ length: BUCKETS }, () => this.#empty(0));
  #end = performance.now() + BUCKET_MS;
  /** How many buckets have ended since the page is open. */
  #past = 0;

  constructor() {
    byId("charts").append(...this.#charts.map(({ element }) => element));
    this.draw();
  }

  /** Take in what Lift.observe has returned. */
  add({ ticks, rows, waiting, latencies }) {
    this.#turn();
    const bucket = this.#buckets.at(-1);
    bucket.isSeen = true;
    bucket.ticks += ticks;
    bucket.rows += rows;
    bucket.waiting = waiting;
    bucket.pictures += latencies.length;
    bucket.latencies.push(...latencies.slice(0, MOST_DOTS - bucket.latencies.length));
  }

  draw() {
    this.#turn();
    const span = Math.min(BUCKETS, MINUTE * Math.ceil((this.#past + 1) / MINUTE));
    for (const chart of this.#charts) chart.draw(this.#buckets, span, this.nouns);
  }

  /** Begin new buckets until the last one is now's. */
  #turn() {
    for (; performance.now() >= this.#end; this.#end += BUCKET_MS) {
      this.#buckets.push(this.#empty(this.#buckets.at(-1).waiting));
      this.#buckets.shift();
      this.#past += 1;
    }
  }

  #empty(waiting) {
    return { isSeen: this.isLive, ticks: 0, rows: 0, waiting, pictures: 0, latencies: [] };
  }
}
