// The person's own pictures, newest first, and what to try when there are none.

import { byId, h, reconcile, say } from "../dom.js";
import { factsText, problemText } from "../format.js";
import { prints } from "../store.js";

export const EXAMPLES = [
  "A red lighthouse on the right, a rainy night at sea",
  "A white cottage on the left under the aurora, snowy hills in winter",
  "An orange tent in the centre, autumn forest at sunset",
  "A purple balloon over the desert at dawn, clear sky",
  "A blue sailboat on a foggy sea, morning sun",
  "A yellow windmill on the left, green hills and a rainbow",
];

export class Gallery {
  #cards = new Map();

  /** `actions`: open(image id), use(job), older(), example(prompt), renew(job id). */
  constructor(actions) {
    this.actions = actions;
    byId("older").addEventListener("click", () => actions.older());
    const example = (text) =>
      h("li", {}, h("button", { type: "button", onclick: () => actions.example(text) }, text));
    byId("examples-list").append(...EXAMPLES.map(example));
  }

  render(state) {
    const all = prints(state);
    const byKey = new Map(all.map((print) => [print.key, print]));
    const make = (key) => {
      const { image } = byKey.get(key);
      return image ? new Print(this.actions) : new SpoiledPlate(this.actions);
    };
    reconcile(byId("prints"), this.#cards, [...byKey.keys()], make);
    for (const [key, card] of this.#cards) card.render(byKey.get(key));
    const isEmpty = all.length === 0 && !state.hasOlder; // a page of cancelled jobs isn't the end
    byId("gallery").hidden = isEmpty;
    byId("older").hidden = !state.hasOlder;
    byId("examples").hidden = !state.isListed || !isEmpty || state.tray.length > 0;
  }
}

class Print {
  #isBroken = false;

  constructor(actions) {
    const onerror = () => this.#renew(actions);
    this.image = h("img", { loading: "lazy", decoding: "async", onerror });
    this.prompt = h("span", { class: "prompt" });
    this.facts = h("span", { class: "facts" });
    const open = () => actions.open(this.print.image.id);
    this.button = h(
      "button",
      { class: "print", type: "button", onclick: open },
      h("span", { class: "mount" }, this.image),
      this.prompt,
      this.facts,
    );
    this.root = h("li", {}, this.button);
  }

  render(print) {
    const { job, image } = print;
    this.print = print;
    this.button.dataset.image = image.id;
    this.image.alt = "";
    this.image.width = image.width;
    this.image.height = image.height;
    // The signature in the address changes with every listing: the first that works stays.
    const isNew = this.image.getAttribute("src") !== image.url;
    if (!this.image.hasAttribute("src") || (this.#isBroken && isNew)) {
      this.#isBroken = false;
      this.image.src = image.url;
    }
    say(this.prompt, job.prompt);
    say(this.facts, factsText({ ...job, seed: image.seed }));
  }

  // Its link ran out (or the server was away): ask for a fresh one.
  #renew(actions) {
    this.#isBroken = true;
    actions.renew(this.print.job.id);
  }
}

class SpoiledPlate {
  constructor(actions) {
    const title = h("span", { class: "reason-title" }, "Not made");
    this.reason = h("span", { class: "reason" });
    this.prompt = h("span", { class: "prompt" });
    this.root = h(
      "li",
      {},
      h(
        "button",
        { class: "print spoiled", type: "button", onclick: () => actions.use(this.job) },
        h("span", { class: "mount" }, title, this.reason),
        this.prompt,
        h("span", { class: "facts" }, "Use these settings"),
      ),
    );
  }

  render({ job }) {
    this.job = job;
    say(this.prompt, job.prompt);
    say(this.reason, job.error ? problemText(job.error) : "The server gave no reason.");
  }
}
