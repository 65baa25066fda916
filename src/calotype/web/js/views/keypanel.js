// Whose pictures? Asks for an API key, keeps it in this browser, and says when it is wrong.

import { byId, say } from "../dom.js";
import { problemText } from "../format.js";

const NAME = "calotype.key";

/** The key this browser keeps, or null. A key in the address (`#key=…`) is taken over first, and
 * the address is cleaned, so that it isn't shared or bookmarked by accident. */
export function keptKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    keep(given);
    history.replaceState(null, "", location.pathname + location.search);
    return given;
  }
  try {
    return localStorage.getItem(NAME);
  } catch {
    return null; // storage is switched off: the key lasts as long as the page
  }
}

function keep(key) {
  try {
    if (key) localStorage.setItem(NAME, key);
    else localStorage.removeItem(NAME);
  } catch {
    // Storage is switched off; the page works with the key it holds.
  }
}

export class KeyPanel {
  /** `tryKey(key)` resolves if the server takes it; `onKey(key)` and `onForgotten()` follow. */
  constructor({ tryKey, onKey, onForgotten }) {
    Object.assign(this, { tryKey, onKey, onForgotten });
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("key-cancel").addEventListener("click", () => this.hide());
    byId("key-forget").addEventListener("click", () => {
      keep(null);
      this.onForgotten();
    });
    byId("key-open").addEventListener("click", () => this.show({ hasKey: true }));
  }

  show({ hasKey, reason = "" }) {
    byId("key-panel").hidden = false;
    byId("key-cancel").hidden = byId("key-forget").hidden = !hasKey;
    byId("key").value = "";
    this.#complain(reason);
    byId("key").focus();
  }

  hide() {
    byId("key-panel").hidden = true;
  }

  async #submit() {
    const key = byId("key").value.trim();
    if (!key) {
      this.#complain("Paste your key first. It begins with ct_.");
      return;
    }
    if (/[^\x21-\x7e]/.test(key)) {
      this.#complain("A key has no spaces and only plain letters; something came along.");
      return;
    }
    try {
      await this.tryKey(key);
    } catch (problem) {
      const isUnknown = problem.status === 401;
      const unknown = "The server doesn’t know this key, or it was revoked.";
      this.#complain(isUnknown ? unknown : problemText(problem));
      return;
    }
    keep(key);
    this.hide();
    this.onKey(key);
  }

  #complain(text) {
    const line = byId("problem-key");
    say(line, text);
    line.hidden = !text;
    if (text) byId("key").setAttribute("aria-invalid", "true");
    else byId("key").removeAttribute("aria-invalid");
  }
}
