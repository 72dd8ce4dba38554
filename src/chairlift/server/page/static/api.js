// The HTTP API: JSON, the key, errors.
//
// Seeds are strings of digits everywhere in the page, because they may have more digits than a
// JavaScript number keeps. In JSON text, `"seed":` is always a field: inside a string its quotes
// would be escaped.

import { tab } from "./kept.js";

const KEY = "chairlift.key";

/** What the server says when it refuses, OpenAI's error object; or that there is no server. */
export class ApiError extends Error {
  constructor(status, { message, param = null, code = null }) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
  }

  /** Whether the same request may well succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** The connection failed. What else goes wrong, such as being aborted, is raised as it is. */
export function lost(error) {
  return error instanceof TypeError
    ? new ApiError(0, { message: "the server can’t be reached" })
    : error;
}

/** Objects from JSON text. */
export function parse(text) {
  return JSON.parse(text.replace(/"seed":\s*(-?\d+)/g, '"seed":"$1"'));
}

/** JSON text from objects. */
export function serialise(value, indent) {
  return JSON.stringify(value, null, indent).replace(/"seed":(\s*)"(-?\d+)"/g, '"seed":$1$2');
}

async function refusal(response) {
  const fallback = { message: `the server has answered ${response.status}` };
  try {
    return new ApiError(response.status, parse(await response.text()).error ?? fallback);
  } catch {
    return new ApiError(response.status, fallback);
  }
}

/** Headers are bytes; a key of other letters goes as UTF-8. */
function bearer(key) {
  return `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
}

/**
 * The server.
 * @param {(refused: boolean) => Promise<string>} askForKey Ask the person for the key; `refused` is
 *   whether one was tried.
 */
export class Api {
  #askForKey;
  #asking = null;

  constructor(askForKey) {
    this.#askForKey = askForKey;
  }

  get key() {
    return tab.get(KEY);
  }

  forgetKey() {
    tab.set(KEY, null);
  }

  /** The answer, which is a success. Raises ApiError. */
  async send(path, { method = "GET", body, headers = {}, signal } = {}) {
    for (;;) {
      const key = this.key;
      const all = new Headers(headers);
      if (body !== undefined) all.set("Content-Type", "application/json");
      if (key !== null) all.set("Authorization", bearer(key));
      const content = body === undefined ? undefined : serialise(body);
      const options = { method, signal, headers: all, body: content };
      const response = await fetch(path, options).catch((error) => Promise.reject(lost(error)));
      if (response.ok) return response;
      if (response.status !== 401) throw await refusal(response);
      if (key === this.key) await this.#newKey(key !== null);
    }
  }

  async json(path, options) {
    return parse(await (await this.send(path, options)).text());
  }

  /** However many requests need the key, the person is asked once. */
  async #newKey(refused) {
    this.#asking ??= this.#askForKey(refused).finally(() => (this.#asking = null));
    tab.set(KEY, await this.#asking);
  }
}
