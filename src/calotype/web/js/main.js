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
import { Hooks } from "./views/hooks.js";
import { KeyPanel, keptKey, unfit } from "./views/keypanel.js";
import { Viewer } from "./views/viewer.js";
import { Witness } from "./views/witness.js";

// All of a job but its seed, which is left to chance when it is made again.
const SETTINGS = [
  ...["prompt", "negative_prompt", "model", "width", "height", "steps", "guidance"],
  ...["sampler", "tier", "n", "loras", "controls", "strength"],
];
const BEGUN_FROM = { image: ["source"], inpaint: ["source", "mask"] }; // others: kind and parent
const RETRY_S = 4; // between tries to reach a server that is away

const store = createStore();
let api = null; // with a key, or null
let follower = null;
let retry = null; // the timer of the next try

const keyPanel = new KeyPanel({
  tryKey: (key) => new Api(key).jobs({ limit: 1 }),
  onKey: begin,
  onForgotten: () => end("The key is forgotten on this device."),
});
const composer = new Composer({
  onSubmit: submit,
  send: (blob) => asked((to) => to.sendPicture(blob)),
  look: (id) => asked((to) => to.picture(id)),
});
const use = (job, seed = job.seed) => composer.use(job, seed);
const beginFrom = (image) => composer.beginFrom(image);
const viewer = new Viewer({ find, neighbour, renew, use, again, goOn, beginFrom });
const open = (imageId) => viewer.open(imageId);
const developing = new Developing({ cancel, dismiss, use, again, open });
const hooks = new Hooks({ ask: asked });
new Witness({ look: (file) => new Api(null).verify(file) });
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
  byId("key-open").hidden = byId("hooks-open").hidden = false;
  byId("bench").hidden = false;
  // Ready to type where there are keys; on a touch screen this would bring up half a screen of them.
  if (matchMedia("(pointer: fine)").matches) byId("prompt").focus({ preventScroll: true });
  await refresh();
}

function end(reason) {
  follower?.stop();
  clearTimeout(retry);
  [api, follower] = [null, null];
  store.dispatch({ type: "cleared" });
  viewer.close();
  hooks.close();
  for (const id of ["bench", "gallery", "key-open", "hooks-open"]) {
    byId(id).hidden = true;
  }
  if (reason !== undefined) keyPanel.show({ hasKey: false, reason });
}

// Ask the server; `onAnswer` gets what it says, unless the key was changed meanwhile: the answer, or
// the problem, is then somebody else's.
async function ask(question, onAnswer) {
  const asked = api;
  try {
    const answer = await question(asked);
    if (asked === api) onAnswer(answer);
  } catch (problem) {
    if (asked === api) throw problem;
  }
}

// The same, with the answer as the result.
async function asked(question) {
  let answer = null;
  await ask(question, (given) => {
    answer = given;
  });
  return answer;
}

// The same, with problems in the banner.
function askOrShow(question, onAnswer) {
  return ask(question, onAnswer).catch(show);
}

async function refresh() {
  if (!api) return;
  await askOrShow(
    (to) => Promise.all([to.models(), to.jobs({ limit: PAGE_JOBS })]),
    ([offered, jobs]) => {
      composer.setModels(offered);
      const { isListed, hasOlder } = store.state();
      store.dispatch({ type: "models", models: offered.models });
      // How far back the list goes is known from the first time on: this is only its newest page.
      const more = isListed ? hasOlder : jobs.length === PAGE_JOBS;
      store.dispatch({ type: "listed", jobs, hasOlder: more });
      store.dispatch({ type: "link", lost: null });
    },
  );
}

async function submit(wish) {
  try {
    await ask(
      (to) => to.submit(wish),
      (job) => {
        banner("");
        store.dispatch({ type: "admitted", job });
      },
    );
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    show(problem);
  }
}

function again(job) {
  const isOfText = !job.kind || job.kind === "text";
  const begun = isOfText ? [] : BEGUN_FROM[job.kind] ?? ["kind", "parent"];
  const wish = Object.fromEntries([...SETTINGS, ...begun].map((name) => [name, job[name]]));
  if (isOfText) delete wish.strength;
  if (job.kind?.startsWith("upscale")) {
    delete wish.width; // they are its parent's, times so much ...
    delete wish.height;
    wish.seed = Math.floor(Math.random() * 2 ** 32); // ... and so would its seed be
  }
  return submitFromPicture(wish);
}

// Vary or upscale a finished picture: all else is its own.
function goOn(kind, job, image) {
  return submitFromPicture({ kind, parent: image.id, tier: job.tier });
}

async function submitFromPicture(wish) {
  try {
    await submit(wish);
    byId("composer").scrollIntoView({ block: "start" });
  } catch (problem) {
    show(problem);
  }
}

function fetched(job) {
  store.dispatch({ type: "fetched", job });
}

function renew(jobId) {
  return askOrShow((to) => to.job(jobId), fetched);
}

async function cancel(job) {
  try {
    await ask((to) => to.cancel(job.id), fetched);
  } catch (problem) {
    show(problem);
    if (api) await renew(job.id); // it may have ended first
  }
}

function dismiss(job) {
  store.dispatch({ type: "dismissed", id: job.id });
}

function older() {
  const ids = Object.keys(store.state().jobs).sort();
  return askOrShow(
    (to) => to.jobs({ limit: PAGE_JOBS, before: ids[0] }),
    (jobs) => store.dispatch({ type: "listed", jobs, hasOlder: jobs.length === PAGE_JOBS }),
  );
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

addEventListener("online", refresh);
addEventListener("offline", () => showLink(store.state()));
document.addEventListener("visibilitychange", () => document.hidden || refresh());
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, dialog");
  if (event.key !== "/" || isTyping || !api || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  composer.focus();
});

// A key that came with the address; key-in-address.js has wiped it from there.
function takeGiven() {
  const given = globalThis.calotypeKeyGiven;
  delete globalThis.calotypeKeyGiven;
  if (given !== undefined) keyPanel.offer(given, api?.key ?? null);
}

const kept = keptKey();
if (kept !== null && !unfit(kept)) begin(kept);
else if (!globalThis.calotypeKeyGiven) keyPanel.show({ hasKey: false });
takeGiven();
addEventListener("calotype-key", takeGiven);
