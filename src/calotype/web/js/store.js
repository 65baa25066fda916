// What the page knows, and how each thing it hears changes that. Pure: no fetch, no DOM, no clock.

export const FINAL = new Set(["succeeded", "failed", "cancelled"]);

/** `jobs` by id; `tray`: ids on the bench, newest first (on their way, or just ended and not put
 * away); `hasOlder`: the server holds more jobs. */
export const EMPTY = Object.freeze({
  jobs: {},
  tray: [],
  models: [],
  hasOlder: false,
  isListed: false,
  lost: null, // {waitS} while the server can't be reached
});

/** The state after an action; the old one is left as it was. */
export function reduce(state, action) {
  switch (action.type) {
    case "models":
      return { ...state, models: action.models };
    case "listed":
      return { ...merged(state, action.jobs), hasOlder: action.hasOlder, isListed: true };
    case "fetched":
      return merged(state, [action.job]);
    case "admitted":
      return admitted(state, action.job);
    case "event":
      return heard(state, action);
    case "eta":
      return foreseen(state, action);
    case "dismissed":
      return { ...state, tray: state.tray.filter((id) => id !== action.id) };
    case "gone":
      return without(state, action.id);
    case "cleared":
      return EMPTY;
    case "link":
      return sameLink(state.lost, action.lost) ? state : { ...state, lost: action.lost };
    default:
      throw new Error(`no such action: ${action.type}`);
  }
}

function without(state, id) {
  const { [id]: _gone, ...jobs } = state.jobs;
  return { ...state, jobs, tray: state.tray.filter((other) => other !== id) };
}

function sameLink(before, after) {
  return before?.waitS === after?.waitS && Boolean(before) === Boolean(after);
}

function merged(state, bodies) {
  const jobs = { ...state.jobs };
  let tray = state.tray;
  for (const body of bodies) {
    jobs[body.id] = mergedJob(jobs[body.id], body);
    if (!FINAL.has(body.status) && !tray.includes(body.id)) tray = [body.id, ...tray];
  }
  return { ...state, jobs, tray: [...tray].sort().reverse() };
}

function mergedJob(before, body) {
  if (!before) return { ...body, seq: 0, rows: [], note: null };
  if (!isStale(before, body)) return { ...before, ...body };
  // What was heard is newer than this body; only what never changes is taken from it.
  const { status, attempt, position, eta, error } = before;
  return { ...before, ...body, status, attempt, position, eta, error };
}

function isStale(before, body) {
  if (FINAL.has(before.status)) return !FINAL.has(body.status);
  return before.status === "running" && body.status === "queued" && body.attempt < before.attempt;
}

function admitted(state, body) {
  const running = state.tray.filter((id) => !FINAL.has(state.jobs[id].status));
  return merged({ ...state, tray: running }, [body]);
}

function heard(state, { id, seq, kind, data }) {
  const before = state.jobs[id];
  if (!before || seq <= before.seq) return state;
  const after = { ...before, ...changes(before, kind, data), seq };
  return { ...state, jobs: { ...state.jobs, [id]: after } };
}

// An estimate of the moment, no event of the log: it says nothing of how far the log was heard.
function foreseen(state, { id, eta }) {
  const before = state.jobs[id];
  if (before?.status !== "queued") return state;
  const after = { ...before, eta, position: eta.position };
  return { ...state, jobs: { ...state.jobs, [id]: after } };
}

function changes(job, kind, data) {
  // A replayed log passes through states that a final job has left behind.
  const move = (status, more = {}) => (FINAL.has(job.status) ? more : { status, ...more });
  switch (kind) {
    case "queued":
      return move("queued", {
        ...{ position: data.position, eta: data.eta ?? null, rows: [], refused: [] },
        note: data.reason ?? null,
      });
    case "promoted":
      return { promoted: true };
    case "loading":
      return { loading: { model: data.model, leftS: data.left_s } };
    case "load_failed":
      return { loading: null, note: `${data.model} couldn't be loaded: ${data.reason}` };
    case "started":
      return move("running", {
        ...{ position: null, eta: null, loading: null, attempt: data.attempt, rows: [] },
      });
    case "image_finished":
      return data.verdict === "allow" ? {} : withheld(job, data);
    case "step":
      return move("running", { rows: stepped(job.rows, data), ...cut(data) });
    case "attempt_failed":
    case "handed_back":
      return { note: data.reason };
    case "pending_safety":
      return move("pending_safety", { note: data.reason });
    case "in_review":
      return move("in_review", { note: data.reason });
    case "failed":
      return { status: "failed", error: data.error };
    case "succeeded":
    case "cancelled":
      return { status: kind };
    default:
      return {}; // kinds of a newer server
  }
}

function stepped(rows, { image, step, steps, preview }) {
  const after = [...rows];
  after[image] = { step, steps, preview: preview ?? rows[image]?.preview ?? null };
  return after;
}

// Told once for each picture, with its first step: how much of the text the model didn't read.
function cut({ tokens_cut: tokensCut }) {
  return tokensCut ? { tokensCut } : {};
}

// No verdict, no picture: what isn't allowed loses its preview too, and says why.
function withheld(job, { image, category, detail }) {
  const rows = job.rows.map((row, index) => (index === image ? { ...row, preview: null } : row));
  const others = (job.refused ?? []).filter((each) => each.index !== image);
  return { rows, refused: [...others, { index: image, category, detail }] };
}

/** 0..1 over all of the job's pictures. */
export function progress(job) {
  if (job.status === "succeeded") return 1;
  if (!job.rows.length) return job.progress ?? 0;
  const done = job.rows.reduce((sum, row) => sum + (row ? row.step / row.steps : 0), 0);
  return done / job.n;
}

/** Jobs still on their way: those that run, then by place in line, then those that are held. */
export function openJobs(state) {
  const places = { running: () => 0, pending_safety: () => 2e9, in_review: () => 3e9 };
  const place = (job) => places[job.status]?.() ?? job.position ?? 1e9;
  return Object.values(state.jobs)
    .filter((job) => !FINAL.has(job.status))
    .sort((one, other) => place(one) - place(other) || (one.id < other.id ? -1 : 1));
}

/** The bench: `focus` is the job in the tray (what runs, else what is next, else what ended last;
 * null when the tray is empty), `waiting` are the others on their way, in order. */
export function bench(state) {
  const open = openJobs(state);
  const focus = open[0]?.id ?? state.tray[0] ?? null;
  return { focus, waiting: open.slice(1).map((job) => job.id) };
}

/** What hangs in the gallery, newest first: {key, job, image}; image null for one that failed.
 * What lies in the tray isn't hung yet, unless asked for. */
export function prints(state, { withTray = false } = {}) {
  const ids = Object.keys(state.jobs).sort().reverse();
  const { focus } = bench(state);
  return ids.flatMap((id) => {
    const job = state.jobs[id];
    if (id === focus && !withTray) return [];
    if (job.status === "failed") return [{ key: id, job, image: null }];
    const there = job.images.filter((image) => !image.removed_at);
    return there.map((image) => ({ key: image.id, job, image }));
  });
}

/** A store: `dispatch(action)`, `state()`, and `subscribe(f)`, called once per burst of actions. */
export function createStore() {
  let state = EMPTY;
  let isTold = true;
  const listeners = [];
  return {
    state: () => state,
    subscribe: (listener) => listeners.push(listener),
    dispatch(action) {
      state = reduce(state, action);
      if (!isTold) return;
      isTold = false;
      queueMicrotask(() => {
        isTold = true;
        listeners.forEach((listener) => listener(state));
      });
    },
  };
}
