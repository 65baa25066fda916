// Wires the parts: what a person does becomes a request, what the server says becomes state, and
// state becomes what is seen.

import { Api } from "./api.js";
import { byId, say } from "./dom.js";
import { Follower, PAGE_JOBS } from "./follow.js";
import { problemText } from "./format.js";
import { createStore, prints } from "./store.js";
import { Composer } from "./views/composer.js";
import { Developing } from "./views/developing.js";
import { Gallery } from "./views/gallery.js";
import { KeyPanel, keptKey } from "./views/keypanel.js";
import { Viewer } from "./views/viewer.js";

// All of a job but its seed, which is left to chance when it is made again.
const SETTINGS = [
  ...["prompt", "negative_prompt", "model", "width", "height"],
  ...["steps", "guidance", "sampler", "tier", "n"],
];
const RETRY_S = 4; // between tries to reach a server that is away

const store = createStore();
let api = null; // with a key, or null
let follower = null;

const keyPanel = new KeyPanel({
  tryKey: (key) => new Api(key).jobs({ limit: 1 }),
  onKey: begin,
  onForgotten: () => end("The key is forgotten on this device."),
});
const composer = new Composer({ onSubmit: submit });
const use = (job, seed = job.seed) => composer.use(job, seed);
const viewer = new Viewer({ find, neighbour, renew, use, again });
const open = (imageId) => viewer.open(imageId);
const developing = new Developing({ cancel, dismiss, use, again, open });
const gallery = new Gallery({ open, use, older, renew, example: (text) => composer.send(text) });

store.subscribe((state) => {
  developing.render(state);
  gallery.render(state);
  follower?.update();
  showLink(state);
});

async function begin(key) {
  end();
  api = new Api(key);
  follower = new Follower({ api, store, onProblem: show });
  byId("key-open").hidden = false;
  byId("bench").hidden = false;
  keyPanel.hide();
  await refresh();
}

function end(reason) {
  follower?.stop();
  [api, follower] = [null, null];
  store.clear();
  for (const id of ["bench", "gallery", "key-open"]) {
    byId(id).hidden = true;
  }
  if (reason !== undefined) keyPanel.show({ hasKey: false, reason });
}

async function refresh() {
  if (!api) return;
  try {
    const [models, jobs] = await Promise.all([api.models(), api.jobs({ limit: PAGE_JOBS })]);
    composer.setModels(models);
    store.dispatch({ type: "models", models });
    store.dispatch({ type: "listed", jobs, hasOlder: jobs.length === PAGE_JOBS });
    store.dispatch({ type: "link", lost: null });
  } catch (problem) {
    show(problem);
  }
}

async function submit(ask) {
  try {
    const job = await api.submit(ask);
    banner("");
    store.dispatch({ type: "admitted", job });
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    show(problem);
  }
}

async function again(job) {
  const ask = Object.fromEntries(SETTINGS.map((name) => [name, job[name]]));
  try {
    await submit(ask);
    byId("composer").scrollIntoView({ block: "start" });
  } catch (problem) {
    show(problem);
  }
}

async function cancel(job) {
  try {
    store.dispatch({ type: "fetched", job: await api.cancel(job.id) });
  } catch (problem) {
    show(problem);
    await renew(job.id); // it may have ended first
  }
}

function dismiss(job) {
  store.dispatch({ type: "dismissed", id: job.id });
}

async function renew(jobId) {
  try {
    store.dispatch({ type: "fetched", job: await api.job(jobId) });
  } catch (problem) {
    show(problem);
  }
}

async function older() {
  const ids = Object.keys(store.state().jobs).sort();
  try {
    const jobs = await api.jobs({ limit: PAGE_JOBS, before: ids[0] });
    store.dispatch({ type: "listed", jobs, hasOlder: jobs.length === PAGE_JOBS });
  } catch (problem) {
    show(problem);
  }
}

function find(imageId) {
  for (const job of Object.values(store.state().jobs)) {
    const image = job.images.find((one) => one.id === imageId);
    if (image) return { job, image };
  }
  return undefined;
}

function neighbour(imageId, by) {
  const everything = prints(store.state(), { withTray: true }).filter((print) => print.image);
  const place = everything.findIndex((print) => print.key === imageId);
  return everything[place + by]?.key;
}

// A problem that belongs to no control: in the banner, until the next thing goes well.
function show(problem) {
  if (problem.status === 401) end("This key is no longer good. Paste another.");
  else if (problem.status === 0) retryLater();
  else if (problem.name === "Problem") banner(problemText(problem));
  else banner(`The page failed: ${problem.message}`);
}

let retry = null;
function retryLater() {
  store.dispatch({ type: "link", lost: { waitS: RETRY_S } });
  clearTimeout(retry);
  retry = setTimeout(refresh, RETRY_S * 1000);
}

function showLink({ lost }) {
  if (!navigator.onLine) banner("You are offline. Jobs go on; the page catches up later.");
  else if (lost) banner("The server can’t be reached. Trying again …");
  else banner("", { onlyLink: true });
}

let bannerIsLink = false;
function banner(text, { onlyLink = false } = {}) {
  if (onlyLink && !bannerIsLink) return;
  bannerIsLink = /offline|reached/.test(text);
  say(byId("banner"), text);
  byId("banner").hidden = !text;
}

addEventListener("hashchange", () => {
  const before = api?.key;
  const key = keptKey();
  if (key && key !== before) begin(key);
});
addEventListener("online", refresh);
addEventListener("offline", () => showLink(store.state()));
document.addEventListener("visibilitychange", () => document.hidden || refresh());
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, dialog");
  if (event.key !== "/" || isTyping || !api || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  composer.focus();
});

const key = keptKey();
if (key) begin(key);
else keyPanel.show({ hasKey: false });
