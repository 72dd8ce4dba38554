// What a model makes, and how a video is shown.

import { still } from "./dom.js";

/** What a model makes: a picture or a video. */
export function nounOf({ limits }) {
  return limits.max_frames > 1 ? "video" : "picture";
}

/** Whether a finished file is a video. */
export function isFilm({ output_format: format }) {
  return format === "mp4";
}

/** `2.1 s at 16 frames a second`, if it is known how many frames there are. */
export function duration(frames, perSecond) {
  if (!(Number(frames) >= 1)) return "";
  return `${(frames / perSecond).toFixed(1)} s at ${perSecond} frames a second`;
}

/** A small film, which runs while somebody points at `frame` or has the focus there. */
export function smallFilm(frame) {
  const film = document.createElement("video");
  Object.assign(film, { muted: true, loop: true, playsInline: true });
  const run = async () => {
    try {
      if (!still.matches) await film.play();
    } catch (error) {
      if (error.name !== "AbortError") throw error; // It was paused before it ran.
    }
  };
  for (const begin of ["pointerenter", "focus"]) frame.addEventListener(begin, run);
  for (const end of ["pointerleave", "blur"]) frame.addEventListener(end, () => film.pause());
  return film;
}
