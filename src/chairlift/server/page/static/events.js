// Streams of server-sent events, read with fetch, because EventSource can't send the key.

import { ApiError, lost, parse } from "./api.js";

const FIRST_WAIT = 0.5;
const LONGEST_WAIT = 10;
/** The server says something at least every 15 seconds; a connection this silent is dead. */
const SILENCE = 40;

/** The data of every event of an answer; `hear` is called whenever anything comes. */
async function* eventsOf(response, hear) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => Promise.reject(lost(error)));
    if (done) return;
    hear();
    const blocks = (unread + value).split("\n\n");
    unread = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield parse(lines.map((line) => line.slice(5)).join("\n"));
    }
  }
}

/**
 * Read a stream of events, again and again, until `handle` returns true or `signal` says stop.
 * Between two attempts it waits longer and longer.
 * @param {import("./api.js").Api} api
 * @param {string} path
 * @param {object} options
 * @param {(event: object) => boolean|void} options.handle Gets the data of each event.
 * @param {AbortSignal} options.signal
 * @param {() => Promise<void>} [options.onOpen] Awaited before the first event; a failure counts as
 *   one of the stream.
 * @param {() => void} [options.onLost] Told before each wait.
 * Raises ApiError where the server refuses for good.
 */
export async function follow(api, path, { handle, signal, onOpen, onLost }) {
  let wait = FIRST_WAIT;
  const heed = (event) => {
    wait = FIRST_WAIT;
    return handle(event);
  };
  while (!signal.aborted) {
    try {
      if (await readOnce(api, path, signal, onOpen, heed)) return;
    } catch (error) {
      if (signal.aborted) return;
      const passing = error.name === "AbortError" || (error instanceof ApiError && error.isPassing);
      if (!passing) throw error;
    }
    if (signal.aborted) return;
    onLost?.();
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

/** Read until the connection ends, or is silent for too long; whether `heed` has had enough. */
async function readOnce(api, path, signal, onOpen, heed) {
  const end = new AbortController();
  let timer;
  const hear = () => {
    clearTimeout(timer);
    timer = setTimeout(() => end.abort(), SILENCE * 1000);
  };
  try {
    const response = await api.send(path, { signal: AbortSignal.any([signal, end.signal]) });
    hear();
    await onOpen?.();
    for await (const event of eventsOf(response, hear)) {
      if (heed(event)) return true;
    }
    return false;
  } finally {
    clearTimeout(timer);
    end.abort();
  }
}

/** Wait, but not past the signal, nor past the moment when the network is back. */
function pause(wait, signal) {
  return new Promise((resolve) => {
    const now = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", now);
      window.removeEventListener("online", now);
      resolve();
    };
    const timer = setTimeout(now, wait * 1000);
    signal.addEventListener("abort", now);
    window.addEventListener("online", now);
  });
}
