// How many event streams this tab may hold.
//
// A browser opens six HTTP/1.1 connections to a server, over all of its tabs. Every tab that is
// seen holds one for the lift; what is left of four is shared out, so that two stay free for
// everything else.

const STREAMS = 4;
const BEAT = 2000;
const GONE_AFTER = 2.5 * BEAT;

export class Tabs {
  #channel = new BroadcastChannel("chairlift");
  #others = new Map();
  #onChange;
  #name = String(Math.random());

  constructor(onChange) {
    this.#onChange = onChange;
    this.#channel.addEventListener("message", ({ data }) => this.#hear(data));
    document.addEventListener("visibilitychange", () => this.#beat());
    window.addEventListener("pagehide", () => this.#say("bye"));
    setInterval(() => this.#beat(), BEAT);
    this.#say("here");
  }

  /** Streams beside the lift's that this tab may hold now. */
  get spare() {
    const tabs = this.#others.size + 1;
    return Math.max(0, Math.floor(STREAMS / tabs) - 1);
  }

  #say(word) {
    this.#channel.postMessage({ word, name: this.#name });
  }

  #beat() {
    this.#say(document.hidden ? "bye" : "here");
    const before = this.#others.size;
    for (const [name, time] of this.#others) {
      if (performance.now() - time > GONE_AFTER) this.#others.delete(name);
    }
    if (this.#others.size !== before) this.#onChange();
  }

  #hear({ word, name }) {
    const known = this.#others.has(name);
    if (word === "here") this.#others.set(name, performance.now());
    else this.#others.delete(name);
    if (known === this.#others.has(name)) return;
    if (!known && !document.hidden) this.#say("here");
    this.#onChange();
  }
}
