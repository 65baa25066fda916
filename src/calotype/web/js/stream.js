// Server-sent events over fetch (EventSource can't send an Authorization header), with resume from
// the last id, back-off, and a watch for connections that died without saying so.

const WAIT_S_MIN = 0.5;
const WAIT_S_MAX = 15;
const SILENCE_S_MAX = 45; // the server sends comments more often than that

/** Cuts a text stream into events, wherever the network happened to cut it into chunks. */
export class EventParser {
  #rest = "";
  #event = { id: null, kind: "message", data: [] };

  /** Take a piece of text; return the events it completed, as {id, kind, data}. */
  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines.map((line) => this.#line(line)).filter(Boolean);
  }

  #line(line) {
    if (line === "") return this.#finish();
    if (line.startsWith(":")) return null;
    const cut = line.indexOf(":");
    const name = cut < 0 ? line : line.slice(0, cut);
    const value = cut < 0 ? "" : line.slice(cut + 1).replace(/^ /, "");
    if (name === "id") this.#event.id = value;
    else if (name === "event") this.#event.kind = value;
    else if (name === "data") this.#event.data.push(value);
    return null;
  }

  #finish() {
    const { id, kind, data } = this.#event;
    this.#event = { id: null, kind: "message", data: [] };
    return data.length ? { id, kind, data: data.join("\n") } : null;
  }
}

/**
 * Follow a stream until `onEvent` returns true (that was the last event), the signal aborts, or the
 * server says the request itself is wrong (then the Problem is thrown).
 *
 * `open(after, signal)` gives the response; `onEvent(seq, kind, data)` gets parsed JSON;
 * `onLink(waitS)` is told null when the connection stands, and else the seconds until the next try.
 */
export async function follow({ open, after, onEvent, onLink, signal }) {
  let seq = after;
  let waitS = WAIT_S_MIN;
  while (!signal.aborted) {
    try {
      const isOver = await readOnce(seq, { open, signal, onLink }, (event) => {
        waitS = WAIT_S_MIN;
        seq = Number(event.id ?? seq);
        return onEvent(seq, event.kind, JSON.parse(event.data));
      });
      if (isOver) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && !error.isPassing) throw error;
      if (!(error.status >= 400)) onLink(waitS); // a server that says "too many" isn't away
    }
    if (signal.aborted) return;
    await pause(waitS * (0.8 + 0.4 * Math.random()), signal);
    waitS = Math.min(waitS * 2, WAIT_S_MAX);
  }
}

async function readOnce(seq, { open, signal, onLink }, take) {
  const silence = new AbortController();
  const response = await open(seq, AbortSignal.any([signal, silence.signal]));
  onLink(null);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  for (;;) {
    const watch = setTimeout(() => silence.abort(), SILENCE_S_MAX * 1000);
    const { done, value } = await reader.read().finally(() => clearTimeout(watch));
    if (done) return false;
    for (const event of parser.push(value)) {
      if (take(event)) {
        reader.cancel().catch(() => {}); // the server closes it too; either may be first
        return true;
      }
    }
  }
}

/** Wait, but no longer than until the network is back or the signal aborts. */
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const stop = new AbortController();
    const done = () => {
      clearTimeout(timer);
      stop.abort();
      resolve();
    };
    const timer = setTimeout(done, seconds * 1000);
    addEventListener("online", done, { signal: stop.signal });
    signal.addEventListener("abort", done, { signal: stop.signal });
  });
}
