// The picture a job begins from: dropped, pasted or chosen, sent at once, and how it is to be used.

import { byId, say } from "../dom.js";
import { problemText } from "../format.js";
import { Brush } from "./brush.js";

const WAYS = {
  // by the value of the choice: the slider's range, where it begins, and what its ends mean
  source: { min: 0.05, max: 1, start: 0.6, ends: ["stay close", "go far"] },
  edges: { min: 0, max: 2, start: 1, ends: ["loosely", "closely"] },
};

export class Attachment {
  #picture = null; // {id, width, height, url}, as the server keeps it
  #mask = null; // id of the mask as it was last sent; null once it was painted on
  #controls = []; // ControlNets that suit the model and are guided by edges
  #brush = new Brush(byId("source-mask"), {
    onPainted: () => {
      this.#mask = null;
      this.#describe();
    },
  });

  /** `send(blob)` keeps a picture at the server, `look(id)` finds one: both give its body.
   * `onChange()` follows each change. */
  constructor({ send, look, onChange }) {
    Object.assign(this, { send, look, onChange });
    byId("source-choose").addEventListener("click", () => byId("source-file").click());
    byId("source-file").addEventListener("change", ({ target }) => {
      this.take(target.files[0]);
      target.value = ""; // the same file can be chosen again
    });
    byId("source-remove").addEventListener("click", () => this.clear());
    byId("source-wipe").addEventListener("click", () => this.#wipe());
    byId("source-amount").addEventListener("input", () => this.#describe());
    byId("source").addEventListener("change", (event) => {
      if (event.target.name === "source-way") this.#setWay(event.target.value);
      if (event.target.id === "source-paint") this.#describe();
    });
    this.#takeDropped(byId("ask"));
    document.addEventListener("paste", (event) => {
      const file = pictureIn(event.clipboardData);
      if (!file || byId("bench").hidden) return;
      event.preventDefault();
      this.take(file);
    });
  }

  /** Offer these ControlNets (bodies of /v1/models) to keep a picture's edges with. */
  setControls(controls) {
    this.#controls = controls.filter((each) => each.control === "canny");
    byId("source-way").hidden = this.#controls.length === 0;
    if (this.#controls.length === 0 && this.#way === "edges") this.#setWay("source");
  }

  /** Send this file and show it. */
  async take(file) {
    if (!file) return;
    await this.#show(() => this.send(file), "Sending the picture …");
  }

  /** Show a picture that the server has: what is given of {strength, maskId, control}. */
  async use(id, { strength = null, maskId = null, control = null } = {}) {
    await this.#show(() => this.look(id), "Fetching the picture …");
    if (this.#picture?.id !== id) return;
    this.#setWay(control ? "edges" : "source", control?.weight ?? strength);
    this.#mask = maskId; // painted elsewhere: it is used as it is until it is wiped
    this.#describe();
  }

  /** Take the picture away. */
  clear() {
    [this.#picture, this.#mask] = [null, null];
    byId("source").hidden = true;
    byId("source-paint").checked = false;
    byId("source-picture").removeAttribute("src");
    this.#complain("");
    this.onChange();
  }

  /** What a request says of it; sends the mask first, if one was painted. */
  async fields() {
    if (!this.#picture) return {};
    const { id } = this.#picture;
    const amount = Number(byId("source-amount").value);
    if (this.#way === "edges") {
      return { controls: [{ name: this.#controls[0].name, picture: id, weight: amount }] };
    }
    if (!this.#mask && !this.#brush.isEmpty) {
      this.#mask = (await this.send(await this.#brush.file())).id;
    }
    return { source: id, strength: amount, ...(this.#mask ? { mask: this.#mask } : {}) };
  }

  /** A few words on it, or "". */
  get words() {
    if (!this.#picture) return "";
    if (this.#way === "edges") return "along a picture’s edges";
    return this.#mask || !this.#brush.isEmpty ? "painted into a picture" : "from a picture";
  }

  /** Whether what is left open of the size follows the picture's shape. */
  get givesShape() {
    return Boolean(this.#picture) && this.#way === "source";
  }

  get #way() {
    return byId("source").querySelector("[name=source-way]:checked").value;
  }

  #setWay(way, amount = null) {
    const { min, max, start, ends } = WAYS[way];
    byId("source").querySelector(`[name=source-way][value=${way}]`).checked = true;
    Object.assign(byId("source-amount"), { min, max, value: amount ?? start });
    say(byId("source-least"), ends[0]);
    say(byId("source-most"), ends[1]);
    this.#describe();
  }

  async #show(find, words) {
    const place = byId("source");
    this.#complain("");
    place.dataset.busy = "true";
    say(byId("source-note"), words);
    place.hidden = false;
    try {
      const picture = await find();
      [this.#picture, this.#mask] = [picture, null];
      byId("source-picture").src = picture.url;
      byId("source-paint").checked = false;
      this.#brush.reset(picture);
      place.style.setProperty("--ratio", picture.width / picture.height);
      this.#setWay(this.#way);
    } catch (problem) {
      if (!this.#picture) place.hidden = true;
      this.#complain(problemText(problem));
    } finally {
      delete place.dataset.busy;
      this.#describe();
    }
  }

  #describe() {
    const isSource = this.#way === "source";
    const isPainting = isSource && byId("source-paint").checked;
    const isMasked = Boolean(this.#mask) || !this.#brush.isEmpty;
    byId("source").dataset.painting = isPainting;
    byId("source-paint-label").hidden = !isSource;
    byId("source-mask").hidden = !isSource;
    byId("source-wipe").hidden = !(isSource && isMasked);
    byId("source-amount").style.setProperty("--share", share(byId("source-amount")));
    if (!byId("source").dataset.busy) say(byId("source-note"), this.#note(isPainting, isMasked));
    this.onChange();
  }

  #note(isPainting, isMasked) {
    if (this.#way === "edges") return "What is drawn follows its edges.";
    if (isPainting && !isMasked) return "Paint over what may change.";
    return isMasked ? "Only what is painted changes." : "What is drawn begins from it.";
  }

  #wipe() {
    this.#mask = null;
    if (this.#picture) this.#brush.reset(this.#picture);
    this.#describe();
  }

  #complain(text) {
    say(byId("problem-source"), text);
    byId("problem-source").hidden = !text;
  }

  #takeDropped(target) {
    const mark = (isOver) => target.classList.toggle("is-drop", isOver);
    target.addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      mark(true);
    });
    target.addEventListener("dragleave", () => mark(false));
    target.addEventListener("drop", (event) => {
      mark(false);
      const file = pictureIn(event.dataTransfer);
      if (!file) return;
      event.preventDefault();
      this.take(file);
    });
  }
}

function share({ min, max, value }) {
  return (Number(value) - Number(min)) / (Number(max) - Number(min));
}

function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}
