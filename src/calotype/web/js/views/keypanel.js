// Whose pictures? Asks for an API key, keeps it in this browser, and says when it is wrong. A key is
// kept only once the server has taken it, and never in place of another without asking: who follows
// a link could otherwise end up working in a stranger's name.

import { byId, say } from "../dom.js";
import { problemText } from "../format.js";
import { KeptKey } from "../kept.js";

const kept = new KeptKey(() => localStorage, "calotype.key");

/** The key this browser keeps, or null. */
export const keptKey = () => kept.get();

/** Why this can't be a key, or "". No header could carry it, so the server is never asked. */
export function unfit(key) {
  if (!key) return "Paste your key first. It begins with ct_.";
  const isPlain = !/[^\x21-\x7e]/.test(key);
  return isPlain ? "" : "A key has no spaces and only plain letters; something came along.";
}

export class KeyPanel {
  #offered = null;

  /** `tryKey(key)` resolves if the server takes it; `onKey(key)` and `onForgotten()` follow. */
  constructor({ tryKey, onKey, onForgotten }) {
    Object.assign(this, { tryKey, onKey, onForgotten });
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("key-cancel").addEventListener("click", () => this.hide());
    byId("key-forget").addEventListener("click", () => {
      kept.set(null);
      this.onForgotten();
    });
    byId("key-open").addEventListener("click", () => this.show({ hasKey: true }));
    byId("key-take").addEventListener("click", () => this.#takeOffered());
    byId("key-decline").addEventListener("click", () => this.hide());
  }

  show({ hasKey, reason = "", written = "" }) {
    this.hide();
    byId("key-panel").hidden = false;
    byId("key-cancel").hidden = byId("key-forget").hidden = !hasKey;
    byId("key").value = written;
    this.#complain(reason);
    byId("key").focus();
  }

  /** A key came with the address, while `current` (or null) is in use. */
  async offer(key, current) {
    if (key === current) return;
    if (current === null) {
      const reason = await this.#take(key);
      if (reason) this.show({ hasKey: false, reason, written: key });
      return;
    }
    this.hide();
    this.#offered = key;
    say(byId("problem-offer"), "");
    byId("key-offer").hidden = false;
    byId("key-decline").focus();
  }

  hide() {
    this.#offered = null;
    byId("key-panel").hidden = byId("key-offer").hidden = true;
  }

  async #submit() {
    this.#complain(await this.#take(byId("key").value.trim()));
  }

  async #takeOffered() {
    const reason = await this.#take(this.#offered);
    say(byId("problem-offer"), reason);
    byId("problem-offer").hidden = !reason;
  }

  /** Take over a key if it is good; else say why it isn't. */
  async #take(key) {
    const reason = unfit(key);
    if (reason) return reason;
    try {
      await this.tryKey(key);
    } catch (problem) {
      const isUnknown = problem.status === 401;
      return isUnknown ? "The server doesn’t know this key, or it was revoked." : problemText(problem);
    }
    kept.set(key);
    this.hide();
    this.onKey(key);
    return "";
  }

  #complain(text) {
    const line = byId("problem-key");
    say(line, text);
    line.hidden = !text;
    if (text) byId("key").setAttribute("aria-invalid", "true");
    else byId("key").removeAttribute("aria-invalid");
  }
}
