// Keeps the store in step with the server: event streams for jobs on their way, and a light poll
// for places in line. It decides nothing about how things look.

import { FINAL, openJobs } from "./store.js";
import { follow } from "./stream.js";

// A browser keeps at most six HTTP/1.1 connections to one server; some must stay free for pictures.
const STREAMS_MAX = 3;
const POLL_S = 2;
export const PAGE_JOBS = 48;

export class Follower {
  #streams = new Map(); // job id -> AbortController
  #poll = null;
  #isStopped = false; // what comes in then is of a key that is no longer used: dropped

  constructor({ api, store, onProblem }) {
    Object.assign(this, { api, store, onProblem });
  }

  /** Open and close streams so that they fit the state. Cheap to call after every change. */
  update() {
    const open = openJobs(this.store.state());
    const wanted = open.slice(0, STREAMS_MAX).map((job) => job.id);
    for (const [id, controller] of this.#streams) {
      if (!wanted.includes(id)) {
        controller.abort();
        this.#streams.delete(id);
      }
    }
    wanted.filter((id) => !this.#streams.has(id)).forEach((id) => this.#follow(id));
    const needsPoll = open.length > wanted.length || open.some((job) => job.status === "queued");
    if (needsPoll && !this.#poll) this.#poll = setInterval(() => this.#refresh(), POLL_S * 1000);
    if (!needsPoll) this.#stopPoll();
  }

  stop() {
    this.#isStopped = true;
    this.#stopPoll();
    this.#streams.forEach((controller) => controller.abort());
    this.#streams.clear();
  }

  async #follow(id) {
    const controller = new AbortController();
    this.#streams.set(id, controller);
    const { api, store } = this;
    try {
      await follow({
        open: (after, signal) => api.events(id, after, signal),
        after: store.state().jobs[id].seq,
        signal: controller.signal,
        onLink: (waitS) => {
          this.#tell({ type: "link", lost: waitS === null ? null : { waitS } });
        },
        onEvent: (seq, kind, data) => {
          if (kind === "eta") this.#tell({ type: "eta", id, eta: data });
          else if (!FINAL.has(kind)) this.#tell({ type: "event", id, seq, kind, data });
          else this.#settle(id, { type: "event", id, seq, kind, data });
          return FINAL.has(kind);
        },
      });
    } catch (problem) {
      if (problem.status === 404) this.#tell({ type: "gone", id });
      else this.#complain(problem);
    }
  }

  #tell(...actions) {
    if (!this.#isStopped) actions.forEach((action) => this.store.dispatch(action));
  }

  #complain(problem) {
    if (!this.#isStopped) this.onProblem(problem);
  }

  // The last event says how many pictures there are, the job's body where they lie: both at once,
  // so that a finished job is never shown without its pictures.
  async #settle(id, event) {
    try {
      const job = await this.api.job(id);
      this.#tell(event, { type: "fetched", job });
    } catch (problem) {
      this.#tell(event);
      this.#complain(problem);
    }
  }

  async #refresh() {
    if (document.hidden) return;
    try {
      const jobs = await this.api.jobs({ limit: PAGE_JOBS });
      const { hasOlder } = this.store.state();
      this.#tell({ type: "listed", jobs, hasOlder }, { type: "link", lost: null });
    } catch (problem) {
      if (problem.status === 0) this.#tell({ type: "link", lost: { waitS: POLL_S } });
      else this.#complain(problem);
    }
  }

  #stopPoll() {
    clearInterval(this.#poll);
    this.#poll = null;
  }
}
