// One picture, large, with everything that made it.

import { byId, h, say } from "../dom.js";
import { addedText, kindText, linkGoodUntil, samplerTitle, timeText } from "../format.js";

export class Viewer {
  #dialog = byId("viewer");
  #job = null;
  #image = null;

  /** `actions`: find(image id) -> {job, image} or undefined, neighbour(image id, by) -> image id or
   * undefined, renew(job id) -> promise, use(job, seed), again(job), goOn(kind, job, image),
   * beginFrom(image). */
  constructor(actions) {
    this.actions = actions;
    byId("viewer-close").addEventListener("click", () => this.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.close(); // the backdrop
    });
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#move(-1);
      if (event.key === "ArrowRight") this.#move(1);
    });
    byId("viewer-newer").addEventListener("click", () => this.#move(-1));
    byId("viewer-older").addEventListener("click", () => this.#move(1));
    byId("viewer-copy").addEventListener("click", () => this.#copy());
    byId("viewer-use").addEventListener("click", () => {
      this.close();
      actions.use(this.#job, this.#image.seed);
    });
    for (const button of byId("viewer-on").querySelectorAll("[data-kind]")) {
      button.addEventListener("click", () => this.#goOn(button.dataset.kind));
    }
    byId("viewer-source").addEventListener("click", () => {
      this.close();
      actions.beginFrom(this.#image);
    });
    byId("viewer-again").addEventListener("click", () => {
      this.close();
      actions.again(this.#job);
    });
  }

  #goOn(kind) {
    this.close();
    this.actions.goOn(kind, this.#job, this.#image);
  }

  async open(imageId) {
    this.#show(imageId);
    if (!this.#dialog.open) this.#dialog.showModal();
    // Links run out while a page lies open: the ones to take away are always fresh.
    await this.actions.renew(this.#job.id);
    if (this.#image?.id === imageId) this.#links();
  }

  close() {
    this.#dialog.close();
  }

  #move(by) {
    const next = this.actions.neighbour(this.#image.id, by);
    if (next) this.open(next);
  }

  #show(imageId) {
    const { job, image } = this.actions.find(imageId);
    const isOther = this.#image?.id !== imageId;
    [this.#job, this.#image] = [job, image];
    const picture = byId("viewer-image");
    if (isOther) picture.src = image.url;
    picture.width = image.width;
    picture.height = image.height;
    picture.alt = job.prompt;
    say(byId("viewer-prompt"), job.prompt);
    say(byId("viewer-said"), "");
    byId("viewer-settings").replaceChildren(...this.#settings().flat());
    this.#links();
    byId("viewer-newer").hidden = !this.actions.neighbour(imageId, -1);
    byId("viewer-older").hidden = !this.actions.neighbour(imageId, 1);
  }

  #settings() {
    const [job, image] = [this.#job, this.#image];
    const hash = h("abbr", { title: image.sha256 }, `${image.sha256.slice(0, 12)}…`);
    const pairs = [
      ["Kind", kindText(job)],
      ["Strength", job.source ? job.strength : null],
      ["Added", addedText(job)],
      ["Left out", job.negative_prompt],
      ["Seed", image.seed],
      ["Steps", job.steps],
      ["Guidance", job.guidance],
      ["Sampler", samplerTitle(job.sampler)],
      ["Size", `${image.width} × ${image.height}`],
      ["Model", job.model],
      ["Made", timeText(job.finished_at)],
      ["SHA-256", hash],
    ];
    return pairs
      .filter(([, value]) => value !== "" && value !== null)
      .map(([name, value]) => [
        h("dt", {}, name),
        h("dd", {}, value instanceof Node ? value : String(value)),
      ]);
  }

  #links() {
    const fresh = this.actions.find(this.#image.id);
    if (fresh) [this.#job, this.#image] = [fresh.job, fresh.image];
    for (const [form, address] of [["png", this.#image.url], ["webp", this.#image.webp_url]]) {
      const link = byId(`viewer-${form}`);
      link.hidden = !address;
      if (!address) continue;
      link.href = address;
      link.download = `calotype-${this.#image.seed}-${this.#image.id.slice(-6)}.${form}`;
    }
  }

  async #copy() {
    const address = new URL(this.#image.url, location.href).href;
    const until = linkGoodUntil(address);
    try {
      await navigator.clipboard.writeText(address);
      say(byId("viewer-said"), until ? `Copied. The link is good until ${until}.` : "Copied.");
    } catch {
      // Browsers keep the clipboard from pages that came over plain HTTP from another machine.
      const place = byId("viewer-said");
      place.replaceChildren(h("input", { readonly: true, value: address, "aria-label": "Link" }));
      place.firstChild.select();
    }
  }
}
