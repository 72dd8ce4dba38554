// Puts the page together, and keeps it connected.

import { Api, ApiError } from "./api.js";
import { Charts } from "./charts.js";
import { announce, brief, byId, onChoice, still, write } from "./dom.js";
import { follow } from "./events.js";
import { nounOf } from "./film.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { isActive, Jobs } from "./jobs.js";
import { askForKey } from "./key.js";
import { Lift } from "./lift.js";
import { drawFigures, Scene } from "./scene.js";
import { SNIPPETS } from "./snippets.js";
import { Station } from "./station.js";
import { Tabs } from "./tabs.js";

/** After news, the gallery is fetched so long after each other: a row that has made its last step
 * is no picture yet. */
const REFRESHES_MS = [300, 1000, 4000];
const FIGURES_MS = 500;
const CHARTS_MS = 1000;
const SHORT_ID = 6;
/** Where the lift is below the form. */
const narrow = matchMedia("(max-width: 900px)");

const api = new Api(askForKey);
const lift = new Lift();
const charts = new Charts();
const tabs = new Tabs(() => jobs.balance());
const jobs = new Jobs(api, tabs, onJob);
const gallery = new Gallery(api, jobs, { onUse: useSettings, onCancel: cancel });
const lookers = { cancel, describe, noun: () => noun };
const scene = new Scene({ ...lookers, preview: ({ id, image }) => jobs.preview(id, image) });
const station = new Station(lookers);
let form = null;
let language = "curl";
let noun = "picture";
let model = null;
let connection = null;
let drawing = false;
let refreshing = false;
let refreshes = 0;

// ------------------------------------------------------------------ the connection

/** Be connected while somebody looks. */
function connect() {
  connection?.abort();
  connection = null;
  charts.isLive = false;
  if (document.hidden) return jobs.balance();
  connection = new AbortController();
  const { signal } = connection;
  const onLost = () => showPhase("lost", "the server is away, trying again");
  showPhase("connecting", "connecting");
  return follow(api, "/v1/lift", { handle: onReport, signal, onOpen, onLost });
}

function showPhase(phase, text) {
  const place = byId("connection");
  if (place.dataset.phase !== phase) place.dataset.phase = phase;
  write(place, text);
  charts.isLive = phase === "live";
}

/** The server is here, perhaps another one than before. */
async function onOpen() {
  lift.clear();
  byId("key-button").hidden = api.key === null;
  const { data: [card] } = await api.json("/v1/models");
  if (JSON.stringify(card) !== model) showModel(card);
  model = JSON.stringify(card);
  await jobs.resume();
  showPhase("live", "live");
  refreshSoon();
}

function onReport(report) {
  const seen = lift.observe(report, performance.now());
  charts.add(seen);
  showPhase("live", "live");
  if (seen.latencies.length) refreshSoon();
  station.draw(lift);
  if (!drawing) requestAnimationFrame(draw);
  drawing = true;
}

/** Somebody's picture is done: perhaps one for the gallery. */
async function refreshSoon() {
  refreshes = refreshing ? Math.min(refreshes, 1) : 0;
  if (refreshing) return;
  refreshing = true;
  try {
    while (refreshes < REFRESHES_MS.length) {
      await new Promise((resolve) => setTimeout(resolve, REFRESHES_MS[refreshes]));
      refreshes += 1;
      await gallery.refresh();
    }
  } catch (error) {
    if (!(error instanceof ApiError && error.isPassing)) throw error;
  } finally {
    refreshing = false;
  }
}

function draw() {
  const pause = scene.draw(lift, performance.now());
  drawing = pause !== null;
  if (drawing) setTimeout(() => requestAnimationFrame(draw), pause);
}

function drawNumbers() {
  drawFigures(lift, performance.now());
  station.draw(lift);
}

// ------------------------------------------------------------------ the model and the form

function showModel(card) {
  const weights = card.parameters ? `${(card.parameters / 1e6).toFixed(1)} M weights, ` : "";
  write(byId("model"), `${card.id}: ${weights}${card.dtype} on ${card.device}`);
  noun = nounOf(card);
  const nouns = noun === "video" ? "Videos" : "Pictures";
  write(byId("compose-title"), `A new ${noun}`);
  write(byId("gallery-title"), nouns);
  charts.nouns = nouns;
  write(byId("nothing"), `No ${noun}s yet.`);
  write(byId("older"), `Older ${noun}s`);
  form = new Form(byId("form"), card, { onSubmit: send, onChange: showSnippet });
  showSnippet();
}

function useSettings(settings) {
  form.apply(settings);
  showSnippet();
  form.focus();
  announce("The settings are in the form.");
}

async function send() {
  if (form.busy) return;
  form.busy = true;
  form.clearErrors();
  try {
    await jobs.create(form.settings, form.previewEvery);
    announce(`The ${noun} is on its way.`);
    const behavior = still.matches ? "auto" : "smooth";
    if (narrow.matches) byId("lift-title").scrollIntoView({ behavior });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    form.showError(error);
  } finally {
    form.busy = false;
  }
}

function showSnippet() {
  if (!form) return;
  byId("snippet").textContent = SNIPPETS[noun][language](form.settings, location.origin);
}

// ------------------------------------------------------------------ jobs and rows

/** What a row or a waiting request is called. */
function describe({ id, image }) {
  const job = jobs.get(id);
  const digits = id.split("_").at(-1).slice(0, SHORT_ID);
  const short = id.startsWith("job_") ? `job ${digits}` : `request ${digits}`;
  const name = job ? job.request.prompt || "(no words)" : short;
  const text = image ? `${name}, ${image + 1}` : name;
  return { own: job !== undefined, name, text, pictures: job?.request.n };
}

function onJob(job) {
  gallery.update(job);
  if (isActive(job)) return;
  const outcomes = {
    succeeded: "Done",
    cancelled: "Cancelled",
    failed: `Failed, ${job.error?.message ?? ""}`,
  };
  announce(`${outcomes[job.status]}: ${brief(job.request.prompt)}`);
}

async function cancel(id) {
  const held = document.activeElement.closest(".card, .lane, .ticket");
  try {
    await jobs.cancel(id);
    lift.drop(id, performance.now());
    drawNumbers();
    // The button is gone: the focus stays nearby.
    const near = held?.matches(".card") ? "gallery-title" : "scene";
    if (held) byId(near).focus({ preventScroll: true });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    announce(error.message);
  }
}

// ------------------------------------------------------------------ the rest of the page

onChoice("language", (chosen) => {
  language = chosen;
  showSnippet();
});

document.querySelector(".code").addEventListener("toggle", ({ target }) => {
  if (target.open) target.scrollIntoView({ block: "nearest" });
});

byId("copy").addEventListener("click", async () => {
  await copy(byId("snippet"));
  announce("Copied.");
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
});

/** Browsers have a clipboard only where the connection is safe; else select it and copy that. */
async function copy(element) {
  if (navigator.clipboard) return navigator.clipboard.writeText(element.textContent);
  getSelection().selectAllChildren(element);
  return document.execCommand("copy");
}

byId("key-button").addEventListener("click", () => {
  api.forgetKey();
  location.reload();
});

window.addEventListener("unhandledrejection", ({ reason }) => {
  if (reason.name !== "AbortError") showPhase("lost", `something is wrong: ${reason.message}`);
});
document.addEventListener("visibilitychange", connect);
setInterval(drawNumbers, FIGURES_MS);
setInterval(() => charts.draw(), CHARTS_MS);
connect();
