// Words and numbers for people. Pure.

const SAMPLERS = {
  ddim: "DDIM",
  dpmpp_2m: "DPM++ 2M",
  dpmpp_2m_karras: "DPM++ 2M Karras",
  dpmpp_sde: "DPM++ SDE",
  euler: "Euler",
  euler_a: "Euler a",
  heun: "Heun",
  unipc: "UniPC",
  lcm: "LCM",
  tcd: "TCD",
  flow_euler: "Euler, along the flow",
  flow_heun: "Heun, along the flow",
};

export const samplerTitle = (name) => SAMPLERS[name] ?? name;

/** 1st, 2nd, 3rd, 4th, 11th, 21st ... */
export function ordinal(number) {
  const teen = number % 100 >= 11 && number % 100 <= 13;
  const ending = teen ? "th" : { 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th";
  return `${number}${ending}`;
}

/** "1 step", "2 steps"; a count that was written by a person stays as written. */
export const plural = (count, one, many) => `${count} ${String(count) === "1" ? one : many}`;

/** Where a job is, in a few words. `job` is one of store.js. */
export function statusText(job) {
  switch (job.status) {
    case "queued":
      if (!job.position) return "In line";
      return job.position === 1 ? "Next in line" : `${ordinal(job.position)} in line`;
    case "running": {
      const row = slowestRow(job);
      if (!row) return "Starting";
      return row.step >= row.steps ? "Checking and signing" : `Step ${row.step} of ${row.steps}`;
    }
    case "pending_safety":
      return "Held: its safety check can’t run now";
    case "in_review":
      return "Held: a person has to look at it first";
    case "succeeded": {
      const withheld = job.n - job.images.length;
      return withheld > 0 && job.images.length > 0
        ? `Done, ${plural(withheld, "picture", "pictures")} withheld by the safety check`
        : `Done${tookText(job)}`;
    }
    case "failed":
      return "Not made";
    case "cancelled":
      return "Cancelled";
    default:
      return job.status;
  }
}

/** When a job that waits will be done, and what it waits for: "About 20 to 35 s: 2 turbo jobs
 * ahead."; or "". */
export function etaText({ status, eta }) {
  if (status !== "queued" || !eta) return "";
  if (eta.p50_s === null) return sentence(eta.reason);
  return sentence(`${spanText(eta.p50_s, eta.p90_s)}: ${eta.reason}`);
}

// For ranges that end below so many seconds: a unit, its seconds, its smallest step.
const UNITS = [
  { below: 10, name: "s", unit: 1, step: 1 },
  { below: 120, name: "s", unit: 1, step: 5 },
  { below: 7200, name: "min", unit: 60, step: 1 },
  { below: Infinity, name: "h", unit: 3600, step: 0.5 },
];

function spanText(p50, p90) {
  const { name, unit, step } = UNITS.find(({ below }) => p90 < below);
  const [low, high] = [p50, p90].map((s) => Math.max(step, Math.round(s / unit / step) * step));
  return `about ${low === high ? low : `${low} to ${high}`} ${name}`;
}

/** Whether picture `index` is kept back by the safety check. */
export function isWithheld(job, index) {
  if (job.refused?.some((each) => each.index === index)) return true;
  return job.status === "succeeded" && !job.images.some((image) => image.index === index);
}

const SHEETS = {
  queued: "Waiting its turn",
  running: "Developing",
  pending_safety: "Held until it can be checked",
  in_review: "Held until a person has looked at it",
  failed: "Not made",
  cancelled: "Cancelled",
};

/** What lies on a sheet of the tray, for those who can't see it. */
export function sheetText(job, index) {
  const number = job.n > 1 ? `Picture ${index + 1} of ${job.n}: ` : "";
  if (job.images.some((image) => image.index === index)) return `${number}Open the picture`;
  if (isWithheld(job, index)) return `${number}Withheld by the safety check`;
  return `${number}${SHEETS[job.status] ?? job.status}`;
}

/** What there is to say of a job beyond its status: why it failed, waits or begins again, that its
 * text was too long, and which of its pictures were withheld for what; or "". */
export function noteText(job) {
  if (job.status === "failed") return job.error ? problemText(job.error) : "";
  if (job.status === "pending_safety") return job.note ?? "";
  const why = (each) => each.detail || each.category;
  const refused = (job.refused ?? []).filter(why);
  const withheld = refused.map((each) =>
    sentence(job.n > 1 ? `picture ${each.index + 1}: ${why(each)}` : why(each)),
  );
  const waits = job.status === "queued" || job.status === "running";
  const isAgain = job.note && waits;
  const again = isAgain ? sentence(`trying again: ${job.note}`) : "";
  const isPromoted = job.promoted && job.status === "queued";
  const promoted = isPromoted ? "It has waited as long as its speed allows: it goes before others." : "";
  const isFallen = job.fell_from && waits;
  const fallen = isFallen ? sentence(`in ${job.tier}, not ${job.fell_from}: ${job.tier_detail}`) : "";
  return [again, fallen, promoted, loadingText(job), cutText(job), ...withheld]
    .filter(Boolean)
    .join(" ");
}

function loadingText({ status, loading }) {
  if (status !== "queued" || !loading) return "";
  return `${loading.model} is loading, ${spanText(loading.leftS, loading.leftS)}.`;
}

function cutText({ tokensCut }) {
  if (!tokensCut) return "";
  const tokens = plural(tokensCut, "token", "tokens");
  return `The text is too long for this model: the last ${tokens} (a word is one or two) did nothing.`;
}

function slowestRow(job) {
  const rows = (job.rows ?? []).filter(Boolean);
  return rows.length ? rows.reduce((least, row) => (row.step < least.step ? row : least)) : null;
}

function tookText(job) {
  if (!job.started_at || !job.finished_at) return "";
  const seconds = (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000;
  return ` in ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

/** Why a problem was sent, as one sentence, with its limit if the sentence doesn't say it. */
export function problemText(problem) {
  const text = sentence(problem.detail || problem.title || "The server gave no reason");
  const { limit } = problem;
  if (limit === undefined || limit === null) return text;
  const values = typeof limit === "object" ? Object.values(limit) : [limit];
  const digits = text.replace(/(\d)[,\u202f](?=\d)/g, "$1");
  const isSaid = values.every((value) => digits.includes(String(value)));
  return isSaid ? text : `${text} ${limitText(limit)}`;
}

// Limits come as a number, a list of what is allowed, or bounds by name.
function limitText(limit) {
  if (Array.isArray(limit)) return `Allowed: ${limit.join(", ")}.`;
  if (typeof limit === "string") return `Wanted: ${limit}.`;
  if (typeof limit !== "object") return `Limit: ${limit}.`;
  const { min, max, multiple_of: multiple, min_chars: shortest, max_chars: longest } = limit;
  const parts = [];
  if (min !== undefined && max !== undefined) parts.push(`${min} to ${max}`);
  if (multiple !== undefined) parts.push(`multiples of ${multiple}`);
  if (shortest !== undefined) parts.push(`at least ${plural(shortest, "character", "characters")}`);
  if (longest !== undefined) parts.push(`at most ${plural(longest, "character", "characters")}`);
  const others = Object.entries(limit).map(([name, value]) => `${name} ${value}`);
  return `Allowed: ${(parts.length ? parts : others).join(", ")}.`;
}

function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

/** "seed 1841 · 20 steps · DPM++ 2M" */
export function factsText(job) {
  const { seed, steps, sampler } = job;
  const facts = [kindText(job), `seed ${seed}`, plural(steps, "step", "steps")];
  return [...facts, samplerTitle(sampler)].filter(Boolean).join(" · ");
}

const KINDS = {
  image: "From a picture",
  inpaint: "Painted into a picture",
  vary_subtle: "Subtle variation",
  vary_strong: "Strong variation",
  upscale_2x: "Upscaled 2×",
  upscale_4x: "Upscaled 4×",
};

/** What a job did beyond drawing its text, or "". */
export const kindText = ({ kind }) => KINDS[kind] ?? "";

/** "ink 0.8, edges 1": what was added to the model, with its weight, or "". */
export function addedText({ loras = [], controls = [] }) {
  return [...loras, ...controls].map((each) => `${each.name} ${each.weight}`).join(", ");
}

/** "24 Nov, 03:12" in the person's own language and zone. */
export function timeText(iso) {
  const time = new Date(iso);
  return Number.isNaN(time.getTime())
    ? ""
    : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** Until when a signed address is good ("14:32"), or null if it doesn't say. */
export function linkGoodUntil(address) {
  const expires = Number(new URL(address, location.href).searchParams.get("expires"));
  if (!expires) return null;
  return new Date(expires * 1000).toLocaleTimeString(undefined, { timeStyle: "short" });
}

const CONFIDENCE = {
  proven: "Proven",
  near_certain: "Next to certain",
  likely: "Likely",
  unknown: "Nothing is known",
};

/** What a look at a picture's origin came to, in a sentence. `found` is the server's answer. */
export const witnessTitle = (found) => sentence(found.detail);

const CLAIMS = {
  trusted: "whole, and signed by this server",
  valid: "whole, but signed by somebody else",
  invalid: "broken: the file was changed since it was signed, or is damaged",
  none: "none in the file; any saving anew takes it away",
};

/** The three witnesses and how sure they are: [name, text] each. */
export function witnessLines({ confidence, confidence_detail: why, ...found }) {
  const { c2pa, watermark, decoder_mark: decoder, hash_log: logged } = found;
  const by = c2pa.state === "valid" && c2pa.signer ? ` (${c2pa.signer})` : "";
  return [
    ["How sure", sentence(`${CONFIDENCE[confidence] ?? confidence}: ${why}`)],
    ["Signed claim", sentence(`${CLAIMS[c2pa.state] ?? c2pa.state}${by}`)],
    ["Invisible mark", sentence(markText(watermark))],
    ...(decoder ? [["Decoder’s mark", sentence(decoderText(decoder))]] : []),
    ["Hash log", sentence(loggedText(logged))],
  ];
}

function markText(mark) {
  if (!mark) return "none of this server’s";
  const id = mark.payload ? `${mark.payload}` : "found, but its id can’t be read any more";
  return `${id}; by chance in less than ${Math.max(mark.false_max, 1e-30).toExponential(0)} of pictures`;
}

function decoderText({ right, bits, false_max: share }) {
  return `${right} of ${bits} bits; by chance in less than ${share.toExponential(0)} of pictures`;
}

function loggedText(logged) {
  if (!logged) return "nothing of it";
  const by = { file: "this very file", mark: "by its mark", looks: "by its looks" }[logged.by];
  const likeness = logged.likeness === null ? "" : `, likeness ${logged.likeness.toFixed(3)}`;
  const proof = logged.proven ? "" : "; NOT PROVEN: the log was changed";
  return `${logged.image}, ${by}${likeness}${proof}`;
}
