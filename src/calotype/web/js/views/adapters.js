// The LoRAs that suit the chosen model: switched on one by one, each with its weight, and the words
// that it was taught by.

import { byId, h, reconcile, say } from "../dom.js";

const [LEAST, MOST] = [-1, 2]; // of the slider; the API takes more

/** Whether an adapter says that it was made for this model; one that says nothing may be tried. */
export const suits = ({ bases }, model) =>
  bases.length === 0 || bases.includes(model.name) || bases.includes(model.family);

export class Adapters {
  #loras = [];
  #cards = new Map(); // by name

  /** `onChange()` follows each change, `onWord(word)` a word that was pressed. */
  constructor({ onChange, onWord }) {
    [this.onChange, this.onWord] = [onChange, onWord];
  }

  /** Offer these (bodies of /v1/models) for this model; what is on and still suits stays on. */
  offer(loras, model) {
    this.#loras = loras.filter((each) => suits(each, model));
    const names = this.#loras.map((each) => each.name);
    const make = (name) => new Card(this.#loras.find((each) => each.name === name), this);
    reconcile(byId("loras"), this.#cards, names, make);
    byId("loras-field").hidden = names.length === 0;
  }

  /** Switch on those of a job, at their weights, and the others off. */
  use(loras) {
    for (const [name, card] of this.#cards) {
      card.set(loras.find((each) => each.name === name)?.weight ?? null);
    }
    const isHere = ({ name }) => this.#cards.has(name);
    return loras.filter((each) => !isHere(each)).map((each) => each.name);
  }

  /** What a request says of them. */
  fields() {
    const loras = [...this.#cards.values()].map((card) => card.read()).filter(Boolean);
    return loras.length ? { loras } : {};
  }

  /** Those that are on, by title, with what they want in place of the model's own. */
  on() {
    const isOn = ({ name }) => this.#cards.get(name).read();
    return this.#loras.filter(isOn);
  }
}

class Card {
  constructor(lora, { onChange, onWord }) {
    this.name = lora.name;
    const [id, label] = [`lora-${lora.name}`, lora.title || lora.name];
    this.check = h("input", { type: "checkbox", id, oninput: () => this.#tell(onChange) });
    this.weight = h("input", {
      ...{ type: "range", min: LEAST, max: MOST, step: 0.05, value: 1 },
      ...{ "aria-label": `${label}: weight`, oninput: () => this.#tell(onChange) },
    });
    this.said = h("output", { class: "facts" });
    const words = lora.triggers.map((word) =>
      h("button", { type: "button", onclick: () => onWord(word) }, word),
    );
    this.words = h(
      "div",
      { class: "lora-words", role: "group", "aria-label": `${label}: words for the prompt` },
      ...words,
    );
    this.root = h(
      "div",
      { class: "lora" },
      h("label", { for: id, title: lora.licence }, this.check, h("span", {}, label)),
      this.weight,
      this.said,
      words.length ? this.words : null,
    );
    this.#show();
  }

  set(weight) {
    this.check.checked = weight !== null;
    this.weight.min = Math.min(LEAST, weight ?? LEAST);
    this.weight.max = Math.max(MOST, weight ?? MOST);
    this.weight.value = weight ?? 1;
    this.#show();
  }

  read() {
    return this.check.checked ? { name: this.name, weight: Number(this.weight.value) } : null;
  }

  #tell(onChange) {
    this.#show();
    onChange();
  }

  #show() {
    this.weight.hidden = this.said.hidden = this.words.hidden = !this.check.checked;
    const { min, max, value } = this.weight;
    this.weight.style.setProperty("--share", (value - min) / (max - min));
    say(this.said, Number(value).toFixed(2));
  }
}
