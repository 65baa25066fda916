// Webhooks: where a person's programs are told of jobs; what was sent, what came back, and again.
//
// Everything here is the server's: the view keeps which webhook and which messages are open, and asks
// anew after each change, and every few seconds while something waits to be sent.

import { byId, h, reconcile, say } from "../dom.js";
import { problemText, timeText } from "../format.js";
import { STATES, attemptText, eventText, hookText, messageText } from "../hooks-text.js";

const LOOK_S = 3; // between two looks at messages of which some wait
const SHOWN_MAX = 50; // messages, the newest

export class Hooks {
  #cards = new Map(); // by webhook id
  #open = null; // the webhook whose messages are shown
  #timer = null;

  /** `ask(question)` resolves with what `question(api)` does, or null if the key was changed. */
  constructor({ ask }) {
    this.ask = ask;
    const dialog = byId("hooks");
    byId("hooks-open").addEventListener("click", () => {
      dialog.showModal();
      this.#do(() => this.#list());
    });
    byId("hooks-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => this.#clear());
    byId("hooks-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#do(() => this.#add(byId("hooks-url").value.trim()));
    });
  }

  /** The key is another now: what is shown is somebody else's. */
  close() {
    byId("hooks").close();
  }

  #clear() {
    clearTimeout(this.#timer);
    this.#open = null;
    this.#cards.clear();
    byId("hooks-list").replaceChildren();
    byId("hooks-url").value = "";
    this.#tellSecret(null);
    this.#complain("");
  }

  // Do what a person asked for; what is wrong with it is said at the top.
  async #do(work) {
    this.#complain("");
    try {
      await work();
    } catch (problem) {
      this.#complain(problemText(problem));
    }
  }

  #complain(text) {
    say(byId("hooks-problem"), text);
    byId("hooks-problem").hidden = !text;
  }

  // A secret is told once, by the answer that made it.
  #tellSecret(hook) {
    byId("hooks-secret-row").hidden = !hook;
    byId("hooks-secret").value = hook?.secret ?? "";
    say(byId("hooks-secret-for"), hook ? `The secret of ${hook.url}, shown this once:` : "");
  }

  async #list() {
    const body = await this.ask((api) => api.webhooks());
    if (!body) return;
    const hooks = Object.fromEntries(body.webhooks.map((hook) => [hook.id, hook]));
    const make = (id) => new HookCard(this.#acts(id));
    reconcile(byId("hooks-list"), this.#cards, Object.keys(hooks), make);
    for (const [id, card] of this.#cards) card.update(hooks[id], id === this.#open);
    byId("hooks-none").hidden = body.webhooks.length > 0;
    await this.#look();
  }

  async #add(url) {
    const hook = await this.ask((api) => api.addWebhook(url));
    if (!hook) return;
    byId("hooks-url").value = "";
    this.#tellSecret(hook);
    await this.#list();
  }

  // What a card's buttons do.
  #acts(id) {
    const then = (question) => () => this.#do(async () => {
      await this.ask(question);
      await this.#list();
    });
    return {
      onOpen: () => this.#do(() => this.#show(this.#open === id ? null : id)),
      onSwitch: (isOn) => then((api) => api.switchWebhook(id, isOn))(),
      onSecret: () => this.#do(async () => {
        const hook = await this.ask((api) => api.changeWebhookSecret(id));
        if (hook) this.#tellSecret(hook);
      }),
      onRemove: then((api) => api.removeWebhook(id)),
      onReplay: (messageId) => then((api) => api.replay(id, messageId))(),
      onFilter: () => this.#do(() => this.#look()),
      detail: (messageId) => this.ask((api) => api.webhookMessage(id, messageId)),
      onProblem: (problem) => this.#complain(problemText(problem)),
    };
  }

  async #show(id) {
    this.#open = id;
    await this.#list();
  }

  async #look() {
    clearTimeout(this.#timer);
    const [id, card] = [this.#open, this.#cards.get(this.#open)];
    if (!card) return;
    const asked = { state: card.filter, limit: SHOWN_MAX };
    const body = await this.ask((api) => api.webhookMessages(id, asked));
    if (!body || this.#open !== id || !byId("hooks").open) return;
    card.showMessages(body.messages);
    if (body.messages.some((message) => message.state === "waiting")) {
      this.#timer = setTimeout(() => this.#do(() => this.#look()), LOOK_S * 1000);
    }
  }
}

class HookCard {
  #messages = new Map(); // cards by message id
  #hook = null;

  constructor(acts) {
    this.acts = acts;
    this.url = h("h3");
    this.said = h("p", { class: "hint" });
    this.opener = h("button", { type: "button", class: "secondary", onclick: acts.onOpen });
    this.switcher = h("button", {
      type: "button",
      class: "quiet",
      onclick: () => acts.onSwitch(!this.#hook.enabled),
    });
    const secret = h("button", { type: "button", class: "quiet", onclick: acts.onSecret }, "New secret");
    this.remover = h("button", { type: "button", class: "quiet", onclick: () => this.#remove() }, "Remove");
    const options = Object.entries(STATES).map(([value, name]) => h("option", { value }, name));
    this.state = h(
      "select",
      { "aria-label": "Which messages", onchange: acts.onFilter },
      h("option", { value: "" }, "All"),
      options,
    );
    const all = h(
      "button",
      { type: "button", class: "quiet", onclick: () => acts.onReplay(undefined) },
      "Send again all that were given up",
    );
    this.rows = h("ol", { class: "hook-messages" });
    this.none = h("p", { class: "hint" }, "Nothing.");
    this.inside = h("div", {}, h("p", { class: "row" }, this.state, all), this.rows, this.none);
    const tools = h("p", { class: "row" }, this.opener, this.switcher, secret, this.remover);
    this.root = h("li", { class: "hook" }, this.url, this.said, tools, this.inside);
  }

  get filter() {
    return this.state.value;
  }

  update(hook, isOpen) {
    this.#hook = hook;
    say(this.url, hook.url);
    say(this.said, hookText(hook));
    say(this.opener, isOpen ? "Hide messages" : "Messages");
    this.opener.setAttribute("aria-expanded", isOpen);
    say(this.switcher, hook.enabled ? "Switch off" : "Switch on");
    this.root.dataset.enabled = hook.enabled;
    this.inside.hidden = !isOpen;
  }

  showMessages(messages) {
    const byIds = Object.fromEntries(messages.map((message) => [message.id, message]));
    const make = () => new MessageCard(this.acts);
    reconcile(this.rows, this.#messages, Object.keys(byIds), make);
    for (const [id, card] of this.#messages) card.update(byIds[id]);
    this.none.hidden = messages.length > 0;
  }

  // Asked twice: what was still to be sent is forgotten with it.
  #remove() {
    if (this.remover.dataset.sure) return this.acts.onRemove();
    this.remover.dataset.sure = "yes";
    say(this.remover, "Really remove it?");
    return undefined;
  }
}

class MessageCard {
  #message = null;
  #shown = ""; // of which state the tries are shown

  constructor(acts) {
    this.acts = acts;
    this.name = h("span", { class: "hook-event" });
    this.said = h("span", { class: "hook-state" });
    this.time = h("span", { class: "hint" });
    this.inside = h("div", { class: "hook-detail" });
    this.root = h("li", {}, h(
      "details",
      { ontoggle: ({ target }) => target.open && this.#look() },
      h("summary", {}, this.name, this.said, this.time),
      this.inside,
    ));
  }

  update(message) {
    this.#message = message;
    say(this.name, eventText(message.type));
    say(this.said, messageText(message));
    say(this.time, `${timeText(message.at)} · ${message.job}`);
    this.root.dataset.state = message.state;
    if (this.root.firstChild.open && this.#shown !== this.#version()) this.#look();
  }

  #version() {
    return `${this.#message.state} ${this.#message.tries}`;
  }

  async #look() {
    const { id } = this.#message;
    this.#shown = this.#version();
    try {
      const detail = await this.acts.detail(id);
      if (detail) this.inside.replaceChildren(...this.#detail(detail));
    } catch (problem) {
      this.acts.onProblem(problem);
    }
  }

  #detail({ id, attempts, body }) {
    const again = { type: "button", class: "secondary", onclick: () => this.acts.onReplay(id) };
    return [
      h("p", { class: "row" }, h("button", again, "Send again"), h("span", { class: "hint" }, id)),
      h("ol", { class: "hook-attempts" }, attempts.map(attempt)),
      h("details", {},
        h("summary", {}, "What it says"),
        h("pre", {}, body ? JSON.stringify(body, null, 2) : "Its job is gone.")),
    ];
  }
}

function attempt(tried) {
  return h("li", {},
    h("p", {}, h("span", { class: "hint" }, `${timeText(tried.at)} `), attemptText(tried)),
    tried.answer ? h("pre", { "aria-label": "The answer" }, tried.answer) : null);
}
