// What the browser keeps for this page. Where it keeps nothing, because that is forbidden or full,
// things are known until the page is left.

class Kept {
  #storage;
  #here = new Map();

  constructor(storage) {
    this.#storage = storage;
  }

  /** A text, or null. */
  get(name) {
    if (this.#here.has(name)) return this.#here.get(name);
    try {
      return this.#storage().getItem(name);
    } catch {
      return null;
    }
  }

  /** Keep a text; null is none any more. */
  set(name, text) {
    this.#here.delete(name);
    try {
      if (text === null) this.#storage().removeItem(name);
      else this.#storage().setItem(name, text);
    } catch {
      this.#here.set(name, text);
    }
  }
}

/** In this tab, until it is closed. */
export const tab = new Kept(() => sessionStorage);
/** In this browser. */
export const browser = new Kept(() => localStorage);
