// The prompt, its options, and why the server would not take them. What is left empty is left to
// the model; nothing is corrected here: the server judges, and its answer goes beside the control.

import { byId, h, say } from "../dom.js";
import { plural, problemText, SAMPLER_NAMES, samplerTitle } from "../format.js";

const NUMBERS = ["width", "height", "steps", "guidance", "seed"];
const TEXTS = ["prompt", "negative_prompt"];
const CHOICES = ["model", "sampler", "n", "tier"];
const DECIMAL = /^[+-]?\d+(\.\d+)?$/; // what the page reads as a number

export class Composer {
  #models = [];
  #form = byId("ask");

  /** `onSubmit(ask)` returns a promise; a Problem it throws is shown where it belongs. */
  constructor({ onSubmit }) {
    this.onSubmit = onSubmit;
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
    this.#fillSamplers();
  }

  /** Offer these models (bodies of /v1/models); the first is the default. */
  setModels(models) {
    this.#models = models;
    const select = byId("model");
    const before = select.value;
    select.replaceChildren(...models.map((m) => h("option", { value: m.name }, m.title || m.name)));
    if (before) this.#choose("model", before);
    this.#describe();
  }

  /** Put a job's settings into the form; its seed too, so that the same picture comes again. */
  use(job, seed) {
    this.#clearAll();
    const values = { ...job, seed };
    for (const name of [...TEXTS, ...NUMBERS]) byId(name).value = values[name] ?? "";
    for (const name of CHOICES) this.#choose(name, String(values[name] ?? ""));
    byId("options").open = true;
    this.#grow(byId("prompt"));
    this.#grow(byId("negative_prompt"));
    this.#describe();
    this.focus();
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
      await this.onSubmit(this.#read());
    } catch (problem) {
      this.#show(problem);
    } finally {
      button.disabled = false;
      say(button, "Make picture");
    }
  }

  #read() {
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
    return { ...ask, n: Number(ask.n) };
  }

  #show(problem) {
    const name = String(problem.field ?? "").split(".").pop();
    const place = name ? document.getElementById(`problem-${name}`) : null;
    const inForm = place && this.#form.contains(place);
    const line = inForm ? place : byId("problem-general");
    say(line, problemText(problem));
    line.hidden = false;
    if (!inForm) return;
    if (byId("options").contains(line)) byId("options").open = true;
    const control = this.#control(name);
    control.setAttribute("aria-invalid", "true");
    (control.matches("fieldset") ? control.querySelector("input") : control).focus();
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
    [...TEXTS, ...NUMBERS, ...CHOICES].forEach((name) => this.#clear(name));
  }

  #reset() {
    const prompt = byId("prompt").value;
    this.#form.reset();
    byId("prompt").value = prompt;
    this.#clearAll();
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
    for (const name of ["width", "height", "steps", "guidance"]) {
      byId(name).placeholder = String(model.defaults[name]);
    }
    const [least, most] = [model.size_px_min, model.size_px_max];
    const range = least === most ? `${least} px only` : `${least} to ${most} px`;
    say(byId("width-hint"), range);
    say(byId("height-hint"), range);
    const first = byId("sampler").options[0];
    say(first, `${samplerTitle(model.defaults.sampler)} (the model’s own)`);
    const value = (name) => byId(name).value.trim() || model.defaults[name];
    say(
      byId("options-now"),
      [
        model.title || model.name,
        `${value("width")} × ${value("height")}`,
        plural(value("steps"), "step", "steps"),
        samplerTitle(value("sampler")),
        plural(Number(this.#form.elements.n.value), "picture", "pictures"),
      ].join(" · "),
    );
  }

  #fillSamplers() {
    const own = h("option", { value: "" }, "The model’s own");
    const others = SAMPLER_NAMES.map((name) => h("option", { value: name }, samplerTitle(name)));
    byId("sampler").replaceChildren(own, ...others);
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
