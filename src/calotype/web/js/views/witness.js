// Where is a picture from? Sends a file to be looked at and says what the server found, with how
// sure each of the three witnesses is. Needs no key: anybody may ask.

import { byId, h, say } from "../dom.js";
import { problemText, witnessLines, witnessTitle } from "../format.js";

export class Witness {
  #asked = 0;

  /** `look(file)` resolves with the body of POST /v1/images/verify. */
  constructor({ look }) {
    this.look = look;
    const dialog = byId("witness");
    byId("witness-open").addEventListener("click", () => {
      this.#clear();
      dialog.showModal();
    });
    byId("witness-close").addEventListener("click", () => dialog.close());
    byId("witness-choose").addEventListener("click", () => byId("witness-file").click());
    byId("witness-file").addEventListener("change", ({ target }) => {
      this.#take(target.files[0]);
      target.value = ""; // the same file can be chosen again
    });
    dialog.addEventListener("dragover", (event) => event.preventDefault());
    dialog.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#take(event.dataTransfer.files[0]);
    });
  }

  async #take(file) {
    if (!file) return;
    const asked = ++this.#asked; // of two files the later one counts
    this.#clear();
    say(byId("witness-said"), `Looking at ${file.name} …`);
    try {
      const found = await this.look(file);
      if (asked === this.#asked) this.#show(file, found);
    } catch (problem) {
      if (asked === this.#asked) say(byId("witness-said"), problemText(problem));
    }
  }

  #clear() {
    say(byId("witness-said"), "");
    byId("witness-found").replaceChildren();
    delete byId("witness").dataset.verdict;
  }

  #show(file, found) {
    byId("witness").dataset.verdict = found.verdict;
    say(byId("witness-said"), `${file.name}: ${witnessTitle(found)}`);
    byId("witness-found").replaceChildren(
      ...witnessLines(found).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]),
    );
  }
}
