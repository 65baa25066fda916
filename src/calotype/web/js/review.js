// The page for people who look at pictures that a check didn't allow. A picture is a coarse patch
// that the server made, until it is pressed: only then it is fetched, and the server writes down
// that it was.

import { Api } from "./api.js";
import { byId, h, say } from "./dom.js";
import { problemText } from "./format.js";
import { KeptKey } from "./kept.js";

const kept = new KeptKey(() => sessionStorage, "calotype.review-key"); // until the tab is closed

let api = null;

function show(problem) {
  say(byId("banner"), problem ? problemText(problem) : "");
  byId("banner").hidden = !problem;
}

async function take(key) {
  const tried = new Api(key);
  const found = await tried.reviews();
  api = tried;
  kept.set(key);
  for (const id of ["queue", "look-again", "key-forget"]) byId(id).hidden = false;
  byId("key-panel").hidden = true;
  await list(found);
}

function forget() {
  api = null;
  kept.set(null);
  byId("reviews").replaceChildren();
  for (const id of ["queue", "look-again", "key-forget"]) byId(id).hidden = true;
  byId("key-panel").hidden = false;
  byId("key").value = "";
  byId("key").focus();
}

async function list(found) {
  show(null);
  const reviews = found ?? (await api.reviews());
  say(byId("queue-said"), reviews.length ? `${reviews.length} waiting, the oldest first.` : "Nothing waits.");
  const whole = await Promise.all(reviews.map((each) => api.review(each.id)));
  byId("reviews").replaceChildren(...whole.map(card));
}

function card(review) {
  const reason = h("textarea", { rows: "2", id: `reason-${review.id}`, maxlength: "1000" });
  const said = h("p", { class: "problem", role: "alert", hidden: true });
  const root = h("li", { class: "review", "data-id": review.id });
  const decide = (decision) => async () => {
    if (!reason.value.trim()) {
      say(said, "Say why first: it is written down.");
      said.hidden = false;
      reason.focus();
      return;
    }
    try {
      const after = await api.decide(review.id, decision, reason.value);
      const isOpen = after.state === "held" || after.state === "appealed";
      if (isOpen) await again(review.id, root);
      else root.remove();
    } catch (problem) {
      say(said, problemText(problem));
      said.hidden = false;
    }
  };
  const votes = review.votes.map((vote) => h("li", {}, `${vote.by}: ${vote.decision}, ${vote.reason}`));
  root.append(
    picture(review),
    h(
      "div",
      { class: "review-side" },
      h("p", { class: "prompt" }, review.prompt),
      facts(review),
      review.appeal ? h("p", {}, `Appeal: ${review.appeal}`) : null,
      votes.length ? h("ul", { class: "votes" }, votes) : null,
      h("label", { for: `reason-${review.id}` }, "Why"),
      reason,
      said,
      h(
        "div",
        { class: "row" },
        h("button", { type: "button", class: "secondary", onclick: decide("allow") }, "Allow"),
        h("button", { type: "button", class: "primary", onclick: decide("block") }, "Block"),
      ),
    ),
  );
  return root;
}

async function again(id, root) {
  root.replaceWith(card(await api.review(id)));
}

function facts(review) {
  const score = review.score === null ? "none" : review.score.toFixed(3);
  const rows = {
    Category: review.category ?? "none",
    Check: `${review.check}, score ${score}`,
    Policy: review.policy,
    Asked: `${review.tenant}, ${review.job}, picture ${review.index + 1}`,
  };
  const pairs = Object.entries(rows).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
  const severe = h("p", { class: "severe" }, "Severe: two people have to say the same.");
  return h("div", {}, h("dl", { class: "settings" }, pairs), review.is_severe ? severe : null);
}

function picture(review) {
  if (!review.has_picture) return h("p", { class: "hint" }, "Its picture is sealed, and isn’t shown here.");
  const image = h("img", { alt: "" });
  const label = h("span", {}, "Press to see it");
  const button = h("button", { type: "button", class: "review-picture is-blurred" }, image, label);
  const load = async (size) => {
    const url = URL.createObjectURL(await api.reviewPicture(review.id, size));
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
    button.dataset.shown = size;
  };
  button.addEventListener("click", async () => {
    const isShown = button.dataset.shown === "whole";
    try {
      await load(isShown ? "coarse" : "whole");
      button.classList.toggle("is-blurred", isShown);
      say(label, isShown ? "Press to see it" : "Press to cover it");
    } catch (problem) {
      show(problem);
    }
  });
  load("coarse").catch(show);
  return button;
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const line = byId("problem-key");
  line.hidden = true;
  try {
    await take(byId("key").value.trim());
  } catch (problem) {
    say(line, problemText(problem));
    line.hidden = false;
  }
});
byId("key-forget").addEventListener("click", forget);
byId("look-again").addEventListener("click", () => list().catch(show));

const known = kept.get();
if (known) take(known).catch(forget);
