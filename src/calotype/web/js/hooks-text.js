// What the page says of webhooks and their messages. Pure: texts from the server's bodies.

import { ordinal, timeText } from "./format.js";

export const STATES = { waiting: "Waiting", sent: "Sent", given_up: "Given up" };

/** "job.succeeded" as people say it. */
export const eventText = (type) => type.replace(/^job\./, "").replaceAll("_", " ");

/** What became of a message: "Sent", "Waiting, tried 2 times, again 14:32", "Given up after 10 tries". */
export function messageText({ state, tries, next_try_at: next }) {
  const times = tries === 1 ? "1 try" : `${tries} tries`;
  if (state === "given_up") return `Given up after ${times}`;
  if (state === "sent") return tries > 1 ? `Sent, at the ${ordinal(tries)} try` : "Sent";
  return tries ? `Waiting after ${times}, again at ${timeText(next)}` : "Waiting";
}

/** One try: "503 in 120 ms: the answer was 503". */
export function attemptText({ status, reason, took_ms: took }) {
  const answer = status === null ? `No answer in ${took} ms` : `${status} in ${took} ms`;
  return reason && !reason.endsWith(`${status}`) ? `${answer}: ${reason}` : answer;
}

/** What a webhook is told of, and whether it is. */
export function hookText({ events, enabled, disabled_reason: why, disabled_at: since }) {
  const told = `Told of jobs that are ${events.map(eventText).join(", ")}.`;
  return enabled ? told : `Off since ${timeText(since)}${why ? `: ${why}` : ""}. ${told}`;
}
