// The prompt, its options, and why the server would not take them. What is left empty is left to
// the model; nothing is corrected here: the server judges, and its answer goes beside the control.

import { byId, h, say } from "../dom.js";
import { plural, problemText, samplerTitle } from "../format.js";
import { Adapters, suits } from "./adapters.js";
import { Attachment } from "./attachment.js";

const NUMBERS = ["width", "height", "steps", "guidance", "seed"];
const TEXTS = ["prompt", "negative_prompt"];
const CHOICES = ["model", "sampler", "n", "tier"];
// Where the problems of fields without a control of their own are told.
const PLACES = { strength: "source", mask: "source", picture: "source", controls: "source" };
const DECIMAL = /^[+-]?\d+(\.\d+)?$/; // what the page reads as a number

export class Composer {
  #models = [];
  #loras = [];
  #controls = [];
  #form = byId("ask");

  /** `onSubmit(ask)` returns a promise; a Problem it throws is shown where it belongs. `send(blob)`
   * and `look(id)` are for the picture that a job begins from. */
  constructor({ onSubmit, send, look }) {
    this.onSubmit = onSubmit;
    const onChange = () => this.#describe();
    this.adapters = new Adapters({ onChange, onWord: (word) => this.#add(word) });
    this.attachment = new Attachment({
      ...{ send, look },
      onChange: () => {
        onChange();
        this.#grow(byId("prompt")); // it has less room beside a picture
      },
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#form.addEventListener("input", (event) => {
      this.#clear(event.target.name);
      this.#describe();
    });
    for (const name of TEXTS) this.#bindText(byId(name));
    byId("options-reset").addEventListener("click", () => this.#reset());
    byId("model").addEventListener("change", () => this.#suit());
  }

  /** Offer these (bodies of /v1/models); the first model is the default. */
  setModels({ models, loras, controls }) {
    [this.#models, this.#loras, this.#controls] = [models, loras, controls];
    const select = byId("model");
    const before = select.value;
    select.replaceChildren(...models.map((m) => h("option", { value: m.name }, m.title || m.name)));
    if (before) this.#choose("model", before);
    this.#suit();
  }

  /** Put a job's settings into the form; its seed too, so that the same picture comes again. */
  use(job, seed) {
    this.#clearAll();
    const values = { ...job, seed };
    // An upscale's size is its parent's, times so much: no size of the model's.
    if (job.kind?.startsWith("upscale")) values.width = values.height = null;
    for (const name of [...TEXTS, ...NUMBERS]) byId(name).value = values[name] ?? "";
    this.#choose("model", job.model);
    this.#suit();
    for (const name of CHOICES) this.#choose(name, String(values[name] ?? ""));
    const missing = this.adapters.use(job.loras ?? []);
    this.#attach(job);
    byId("options").open = true;
    if (missing.length) {
      this.#tell(byId("problem-loras"), `Not here any more: ${missing.join(", ")}.`);
    }
    this.#grow(byId("prompt"));
    this.#grow(byId("negative_prompt"));
    this.#describe();
    this.focus();
  }

  /** Have the next job begin from this finished image. */
  beginFrom(image) {
    this.attachment.use(image.id);
    this.focus();
  }

  #attach({ source, mask, strength, controls }) {
    const [control] = controls ?? [];
    if (source) this.attachment.use(source, { strength, maskId: mask });
    else if (control) this.attachment.use(control.picture, { control });
    else this.attachment.clear();
  }

  // What isn't on offer (any more) is chosen all the same: the server says that it is gone, where
  // another choice in its place would make another picture without a word.
  #choose(name, value) {
    const control = this.#form.elements[name];
    const isOffered = [...(control.options ?? control)].some((option) => option.value === value);
    if (!isOffered && control.options) {
      control.append(h("option", { value }, `${value} (not here any more)`));
    }
    control.value = value;
  }

  /** Write a prompt and send it, as if typed. */
  send(prompt) {
    byId("prompt").value = prompt;
    this.#grow(byId("prompt"));
    this.#submit();
  }

  // A word at the prompt's end, unless it is there.
  #add(word) {
    const prompt = byId("prompt");
    const written = prompt.value.trim().replace(/,$/, "");
    if (!written.toLowerCase().includes(word.toLowerCase())) {
      prompt.value = written ? `${written}, ${word}` : word;
    }
    this.#clear("prompt");
    this.#grow(prompt);
    prompt.focus();
  }

  focus() {
    byId("prompt").focus();
    byId("composer").scrollIntoView({ block: "nearest" });
  }

  async #submit() {
    const button = byId("make");
    if (button.disabled) return;
    this.#clearAll();
    button.disabled = true;
    say(button, "Sending …");
    try {
      await this.onSubmit(await this.#read());
    } catch (problem) {
      this.#show(problem);
    } finally {
      button.disabled = false;
      say(button, "Make picture");
    }
  }

  async #read() {
    const data = new FormData(this.#form);
    const ask = { prompt: data.get("prompt").trim() };
    const negative = data.get("negative_prompt").trim();
    if (negative) ask.negative_prompt = negative;
    for (const name of NUMBERS) {
      const written = data.get(name).trim();
      // All else goes as it was written, so that the server can say what is wrong: 1e999 would
      // become null on the way, and 0x14 twenty.
      if (written) ask[name] = DECIMAL.test(written) ? Number(written) : written;
    }
    for (const name of CHOICES) if (data.get(name)) ask[name] = data.get(name);
    if (this.#model()?.has_negative_prompt === false) delete ask.negative_prompt;
    const added = { ...this.adapters.fields(), ...(await this.attachment.fields()) };
    return { ...ask, ...added, n: Number(ask.n) };
  }

  #show(problem) {
    const field = String(problem.field ?? "").match(/^\w+/)?.[0] ?? "";
    const name = PLACES[field] ?? field;
    const place = name ? document.getElementById(`problem-${name}`) : null;
    const inForm = place && this.#form.contains(place);
    const line = inForm ? place : byId("problem-general");
    this.#tell(line, problemText(problem));
    if (!inForm) return;
    if (byId("options").contains(line)) byId("options").open = true;
    const control = this.#control(name);
    if (!control.matches("div")) control.setAttribute("aria-invalid", "true");
    (control.matches("fieldset, div") ? control.querySelector("input") : control)?.focus();
  }

  #tell(line, text) {
    say(line, text);
    line.hidden = false;
  }

  #control(name) {
    return document.getElementById(name) ?? this.#form.querySelector(`[data-field="${name}"]`);
  }

  #clear(name) {
    byId("problem-general").hidden = true;
    const line = document.getElementById(`problem-${name}`);
    if (!line) return;
    line.hidden = true;
    this.#control(name).removeAttribute("aria-invalid");
  }

  #clearAll() {
    [...TEXTS, ...NUMBERS, ...CHOICES, "loras", "source"].forEach((name) => this.#clear(name));
  }

  #reset() {
    const prompt = byId("prompt").value;
    this.#form.reset();
    byId("prompt").value = prompt;
    this.adapters.use([]);
    this.attachment.clear();
    this.#clearAll();
    this.#suit();
  }

  // Offer what suits the chosen model.
  #suit() {
    const model = this.#model();
    if (model) {
      this.#fillSamplers(model.samplers);
      this.adapters.offer(this.#loras, model);
      this.attachment.setControls(this.#controls.filter((each) => suits(each, model)));
      byId("negative-field").hidden = !model.has_negative_prompt;
    }
    this.#describe();
  }

  #model() {
    const name = byId("model").value;
    return this.#models.find((model) => model.name === name);
  }

  // What an empty field means, and one line of what would be made now.
  #describe() {
    const model = this.#model();
    if (!model) {
      say(byId("options-now"), byId("model").selectedOptions[0]?.textContent ?? "");
      return;
    }
    const own = this.#own(model);
    for (const name of ["width", "height", "steps", "guidance"]) {
      byId(name).placeholder = String(own[name]);
    }
    const followsPicture = this.attachment.givesShape;
    if (followsPicture) byId("width").placeholder = byId("height").placeholder = "as the picture";
    const [least, most] = [model.size_px_min, model.size_px_max];
    const range = least === most ? `${least} px only` : `${least} to ${most} px`;
    say(byId("width-hint"), range);
    say(byId("height-hint"), range);
    const first = byId("sampler").options[0];
    const whose = own.sampler === model.defaults.sampler ? "the model’s own" : "as it wants it";
    say(first, `${samplerTitle(own.sampler)} (${whose})`);
    const value = (name) => byId(name).value.trim() || own[name];
    const added = this.adapters.on().map((each) => each.title || each.name);
    say(
      byId("options-now"),
      [
        model.title || model.name,
        ...added,
        this.attachment.words,
        this.#sizeText(value, followsPicture),
        plural(value("steps"), "step", "steps"),
        samplerTitle(value("sampler")),
        plural(Number(this.#form.elements.n.value), "picture", "pictures"),
      ].filter(Boolean).join(" · "),
    );
  }

  #sizeText(value, followsPicture) {
    const isOpen = !byId("width").value.trim() && !byId("height").value.trim();
    return followsPicture && isOpen ? "" : `${value("width")} × ${value("height")}`;
  }

  // What an empty field means: what the first LoRA wants that has a wish, else the model's own.
  #own(model) {
    const wish = (name) => this.adapters.on().map((each) => each[name]).find((it) => it != null);
    const own = { ...model.defaults };
    for (const name of ["steps", "guidance", "sampler"]) own[name] = wish(name) ?? own[name];
    return own;
  }

  #fillSamplers(names) {
    const select = byId("sampler");
    const before = select.value;
    const own = h("option", { value: "" }, "The model’s own");
    const others = names.map((name) => h("option", { value: name }, samplerTitle(name)));
    select.replaceChildren(own, ...others);
    if (names.includes(before)) select.value = before;
  }

  #bindText(area) {
    area.addEventListener("input", () => this.#grow(area));
    area.addEventListener("keydown", (event) => {
      // While an input method composes a word, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
  }

  #grow(area) {
    area.style.setProperty("height", "auto");
    area.style.setProperty("height", `${area.scrollHeight + 2}px`);
  }
}
