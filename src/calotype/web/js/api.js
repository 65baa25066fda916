// Speaks HTTP with the platform. Every refusal becomes a Problem; nothing here touches the page.

/** An RFC 9457 problem as an error. `status` 0: the server could not be reached at all. */
export class Problem extends Error {
  constructor(body) {
    super(body.detail || body.title || "unknown problem");
    this.name = "Problem";
    Object.assign(this, { status: 0, title: "", detail: "", ...body });
  }

  /** True when trying the same again later can help. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const said = typeof body === "object" && body !== null ? body : {};
  return new Problem({
    title: response.statusText,
    detail: `The server answered ${response.status} and gave no reason.`,
    ...said,
    status: response.status,
  });
}

const hookPath = (id) => `/v1/webhooks/${encodeURIComponent(id)}`;

export class Api {
  constructor(key) {
    this.key = key;
  }

  /** {models, loras, controls}: what can be drawn with. */
  models() {
    return this.#json("GET", "/v1/models");
  }

  /** Keep a picture that jobs can begin from; `blob` is its file, with its type. */
  async sendPicture(blob) {
    const headers = { Accept: "application/json", "Content-Type": blob.type };
    return (await this.#fetch("/v1/pictures", { method: "POST", headers, body: blob })).json();
  }

  /** A picture that was sent, or a finished one, as a job can begin from it. */
  picture(id) {
    return this.#json("GET", `/v1/pictures/${encodeURIComponent(id)}`);
  }

  /** Where a picture came from; `file` is sent as it is, and needs no key. */
  async verify(file) {
    const headers = { Accept: "application/json", "Content-Type": "application/octet-stream" };
    return (await this.#fetch("/v1/images/verify", { method: "POST", headers, body: file })).json();
  }

  /** Newest first; `before` is the id of a job: only older ones are listed. */
  jobs({ limit, before }) {
    const query = new URLSearchParams({ limit: String(limit) });
    if (before) query.set("before", before);
    return this.#json("GET", `/v1/jobs?${query}`).then((body) => body.jobs);
  }

  job(id) {
    return this.#json("GET", `/v1/jobs/${encodeURIComponent(id)}`);
  }

  submit(ask) {
    return this.#json("POST", "/v1/jobs", ask);
  }

  cancel(id) {
    return this.#json("DELETE", `/v1/jobs/${encodeURIComponent(id)}`);
  }

  /** Pictures that people have to decide on, the oldest first. */
  reviews() {
    return this.#json("GET", "/v1/reviews?limit=100").then((body) => body.reviews);
  }

  /** One of them, with what was asked for and what others said. */
  review(id) {
    return this.#json("GET", `/v1/reviews/${encodeURIComponent(id)}`);
  }

  /** Its picture as a blob; `size` is "coarse" or "whole". */
  async reviewPicture(id, size) {
    const path = `/v1/reviews/${encodeURIComponent(id)}/picture?size=${size}`;
    return (await this.#fetch(path, { headers: { Accept: "image/png" } })).blob();
  }

  /** Say what becomes of it: "allow" or "block", and why. */
  decide(id, decision, reason) {
    const path = `/v1/reviews/${encodeURIComponent(id)}/decision`;
    return this.#json("POST", path, { decision, reason });
  }

  /** {webhooks}: where this tenant is told of its jobs. */
  webhooks() {
    return this.#json("GET", "/v1/webhooks");
  }

  /** Set one up, told of the events that end a job; only this answer has its secret. */
  addWebhook(url) {
    return this.#json("POST", "/v1/webhooks", { url });
  }

  switchWebhook(id, enabled) {
    return this.#json("PATCH", hookPath(id), { enabled });
  }

  /** A new secret, in the answer and nowhere else. */
  changeWebhookSecret(id) {
    return this.#json("POST", `${hookPath(id)}/secret`);
  }

  removeWebhook(id) {
    return this.#fetch(hookPath(id), { method: "DELETE", headers: {} });
  }

  /** {messages}, newest first; `state`: waiting, sent, given_up, or "" for all. */
  webhookMessages(id, { state, limit }) {
    const query = new URLSearchParams({ limit: String(limit), ...(state && { state }) });
    return this.#json("GET", `${hookPath(id)}/messages?${query}`);
  }

  /** A message with what it says and its attempts, newest first. */
  webhookMessage(id, messageId) {
    return this.#json("GET", `${hookPath(id)}/messages/${encodeURIComponent(messageId)}`);
  }

  /** Have a message sent again; without `message` all that were given up. */
  replay(id, message) {
    return this.#json("POST", `${hookPath(id)}/replay`, { message });
  }

  /** The open response of a job's event stream, from the event after `after`. */
  events(id, after, signal) {
    const headers = { Accept: "text/event-stream" };
    if (after > 0) headers["Last-Event-ID"] = String(after);
    const path = `/v1/jobs/${encodeURIComponent(id)}/events`;
    return this.#fetch(path, { headers, signal, cache: "no-store" });
  }

  async #json(method, path, body) {
    const options = { method, headers: { Accept: "application/json" } };
    if (body !== undefined) {
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    return (await this.#fetch(path, options)).json();
  }

  async #fetch(path, options) {
    const headers = { ...options.headers };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem({ title: "No connection", detail: "The server can’t be reached." });
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}
