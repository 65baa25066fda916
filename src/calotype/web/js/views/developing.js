// The bench: the picture coming up in the tray, the jobs that wait for theirs, and how the last one
// ended.

import { byId, h, reconcile, say } from "../dom.js";
import { etaText, factsText, isWithheld, noteText, sheetText, statusText } from "../format.js";
import { bench, FINAL, progress } from "../store.js";

export class Developing {
  #trays = new Map();
  #strips = new Map();

  /** `actions`: cancel(job), dismiss(job), use(job), again(job), open(image id). */
  constructor(actions) {
    this.actions = actions;
  }

  render(state) {
    const { focus, waiting } = bench(state);
    const make = (id) => new Tray(id, this.actions);
    reconcile(byId("developing"), this.#trays, focus ? [focus] : [], make);
    reconcile(byId("waiting-list"), this.#strips, waiting, make);
    for (const [id, tray] of [...this.#trays, ...this.#strips]) tray.render(state.jobs[id]);
    this.#trays.get(focus)?.announce();
    byId("developing").hidden = !focus;
    byId("idle").hidden = !state.isListed || Boolean(focus);
    byId("waiting").hidden = waiting.length === 0;
    this.#title(state.jobs[focus]);
  }

  // The tab's title carries the progress, for those who look elsewhere meanwhile.
  #title(job) {
    const percent = job?.status === "running" ? `${Math.round(progress(job) * 100)} % · ` : "";
    document.title = `${percent}Calotype`;
  }
}

// One job: large in the tray, or as a strip in the list of those that wait (the styles differ).
class Tray {
  #sheets = [];
  #said = "";

  constructor(id, actions) {
    this.bath = h("div", { class: "bath" });
    this.prompt = h("p", { class: "prompt" });
    this.status = h("p", { class: "status" });
    this.eta = h("p", { class: "eta", hidden: true });
    this.note = h("p", { class: "note", hidden: true });
    this.line = h("span", { class: "meter-line" });
    this.meter = h(
      "div",
      { class: "meter", role: "progressbar", "aria-valuemax": 100, "aria-label": "Progress" },
      this.line,
    );
    this.facts = h("p", { class: "facts" });
    const button = (className, text, act) =>
      h("button", { class: className, type: "button", onclick: () => act(this.job) }, text);
    this.cancel = button("secondary", "Cancel", actions.cancel);
    this.again = button("secondary", "Again with a new seed", actions.again);
    this.use = button("secondary", "Use these settings", actions.use);
    this.dismiss = button("quiet", "Put away", actions.dismiss);
    this.root = h(
      "article",
      { class: "tray", "data-job": id },
      this.bath,
      h(
        "div",
        { class: "tray-side" },
        this.prompt,
        h("div", { class: "tray-progress" }, this.status, this.eta, this.meter, this.note),
        this.facts,
        h("div", { class: "row" }, this.cancel, this.again, this.use, this.dismiss),
      ),
    );
    this.actions = actions;
  }

  render(job) {
    this.job = job;
    this.root.dataset.status = job.status;
    const done = progress(job);
    this.#renderSheets(job, done);
    say(this.prompt, job.prompt);
    say(this.status, statusText(job));
    say(this.facts, factsText(job));
    say(this.eta, etaText(job));
    this.eta.hidden = !this.eta.textContent;
    this.#renderNote(job);
    const isFinal = FINAL.has(job.status);
    this.meter.hidden = isFinal || ["pending_safety", "in_review"].includes(job.status);
    this.meter.setAttribute("aria-valuenow", Math.round(done * 100));
    this.line.style.setProperty("--done", done);
    this.cancel.hidden = isFinal;
    this.again.hidden = this.use.hidden = this.dismiss.hidden = !isFinal;
  }

  #renderSheets(job, done) {
    this.bath.dataset.sheets = job.n;
    this.bath.style.setProperty("--ratio", job.width / job.height);
    while (this.#sheets.length < job.n) {
      const sheet = new Sheet(this.actions.open);
      this.#sheets.push(sheet);
      this.bath.append(sheet.root);
    }
    this.#sheets.forEach((sheet, index) => sheet.render(job, index, done));
  }

  #renderNote(job) {
    say(this.note, noteText(job));
    this.note.hidden = !this.note.textContent;
  }

  /** Say aloud each change of state and each quarter, not each step; for the job in the tray. */
  announce() {
    const { job } = this;
    const quarter = job.status === "running" ? Math.floor(progress(job) * 4) * 25 : null;
    const key = quarter === null ? statusText(job) : `${quarter} percent`;
    if (key === this.#said) return;
    this.#said = key;
    say(byId("progress-said"), `${key}: ${job.prompt}`);
  }
}

class Sheet {
  #shown = "";
  #image = null; // the delivered one

  constructor(open) {
    this.under = h("img", { class: "under", alt: "" });
    this.over = h("img", { class: "over", alt: "", draggable: "false" });
    this.root = h(
      "button",
      { class: "sheet", type: "button", disabled: true, onclick: () => open(this.#image.id) },
      this.under,
      this.over,
    );
  }

  render(job, index, done) {
    const row = job.rows[index];
    this.#image = job.images.find((image) => image.index === index) ?? null;
    this.root.disabled = !this.#image;
    this.root.dataset.withheld = isWithheld(job, index);
    this.root.setAttribute("aria-label", sheetText(job, index));
    this.root.style.setProperty("--developed", this.#image ? 1 : row ? row.step / row.steps : done);
    const preview = job.status === "running" ? row?.preview : null; // a withheld one has none
    if (this.#image) this.#show(this.#image.url, this.#image.id, "picture");
    else if (preview) this.#show(preview, preview, "preview");
    else this.#blank(); // held, failed, withheld: no verdict, no picture, not even its preview
  }

  // Each new preview fades in over the one before it, which is what developing looks like.
  #show(source, key, kind) {
    if (key === this.#shown) return; // a new signature on the same picture is no new picture
    if (this.over.getAttribute("src")) this.under.src = this.over.src;
    this.#shown = key;
    this.over.dataset.kind = kind;
    this.over.src = source;
    this.over.classList.remove("rise");
    void this.over.offsetWidth; // restarts the animation
    this.over.classList.add("rise");
  }

  #blank() {
    this.#shown = "";
    this.under.removeAttribute("src");
    this.over.removeAttribute("src");
    delete this.over.dataset.kind;
  }
}
