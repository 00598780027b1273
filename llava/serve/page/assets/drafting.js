// Draft and Fill: a request, the stream of its passes, and the report that comes of it.

import { stream } from "./api.js";
import { context, sampling } from "./context.js";
import { openRest } from "./edits.js";
import { requestImages } from "./images.js";
import { byId, make } from "./parts.js";
import { clearProblem, showProblem } from "./problems.js";
import {
  countGaps, fillGaps, fromAnswer, hasLocked, isFilled, toTemplate, toText,
} from "./report.js";
import { commit, notify, state } from "./store.js";

const BLANK = "\u2003\u2009"; // a masked token, as wide as a short word
let settings = null;
let basis = ""; // images and context of the last draft or fill
let labelled = ""; // the text whose findings are shown

export function startDrafting(given) {
  settings = given;
}

export function request() {
  return { images: requestImages(), context: context(), ...sampling() };
}

// Images and context in short: whether a report is still of them.
export const fingerprint = () => {
  const { images, context: fields } = request();
  const short = images.map(({ data, ...rest }) => [data.length, data.slice(-64), rest]);
  return JSON.stringify([short, fields]);
};

export function noteBasis() {
  if (requestImages().length) clearProblem(byId("writing-problem"));
  if (!state.report.length || !basis || basis === fingerprint()) return;
  say("Images or context changed since the model wrote; draft again to take them in.");
}

export const say = (words) => {
  byId("status").textContent = words;
};

// Locked text is kept: with any, a draft is a fill of all the rest.
export async function draft() {
  if (!requestImages().length) return refuse("There is no image yet. Drop one, or choose files.", "files");
  if (!state.report.some(hasLocked)) return run(whole, draft);
  const opened = openRest(state.report, settings.limits.gap_tokens);
  if (!countGaps(opened)) return refuse("All of the report is locked. Unlock (l) or open (g) a sentence first.");
  return run(() => fillIn(opened, "redraft"), draft);
}

export async function fill() {
  if (!requestImages().length) return refuse("There is no image yet. Drop one, or choose files.", "files");
  if (!countGaps(state.report)) return refuse("There is no gap. Choose a sentence and open it (g) first.");
  return run(() => fillIn(state.report, "fill"), fill);
}

function refuse(message, focus) {
  showProblem(byId("writing-problem"), { message });
  if (focus) byId(focus).focus();
}

async function whole() {
  const answer = await post({ ...request(), template: null });
  state.candidate ||= answer.text;
  state.own = { text: answer.text, basis };
  commit("draft", fromAnswer(answer), 0);
  showFindings(answer);
  const drafted = answer.text.trim() ? "Drafted" : "The model wrote no text";
  say(`${drafted} in ${effort(answer)}.${cut(answer)}`);
}

async function fillIn(report, action) {
  const template = toTemplate(report, settings.limits.gap_tokens);
  const answer = await post({ ...request(), template });
  if (answer.gaps?.length !== countGaps(report)) throw new Error("The answer has a different number of gaps. Try again.");
  const filled = fillGaps(report, answer);
  state.candidate ||= answer.text;
  commit(action, filled, Math.max(0, filled.findIndex(isFilled)));
  showFindings(answer);
  const n = answer.gaps.length;
  say(`Filled ${n} ${n === 1 ? "gap" : "gaps"} in ${effort(answer)}.${cut(answer)}`);
}

// The canvas was full before the text ended.
const cut = ({ ended }) =>
  (ended === false ? " It may be cut short: raise gen length under Sampling." : "");
const effort = ({ passes, seconds }) => `${passes} passes, ${seconds.toFixed(1)} s`;

async function post(body) {
  let before = [];
  const asked = fingerprint();
  const report = await stream("/v1/reports", body, (pass) => {
    showPass(pass, before);
    before = pass.tokens;
  }, state.running.signal);
  basis = asked;
  return report;
}

async function run(work, again) {
  if (state.running) return;
  clearProblem(byId("writing-problem"));
  state.running = new AbortController();
  state.editing = null;
  byId("stream").replaceChildren(make("span", "absent", "Waiting for the first pass …"));
  say("Writing …");
  notify();
  let done = false;
  try {
    await work();
    done = true;
  } catch (error) {
    say(error.name === "AbortError" ? "Stopped; the report is as it was." : "");
    showProblem(byId("writing-problem"), error, again);
  } finally {
    state.running = null;
    notify(done ? "" : "stopped");
  }
}

export const stop = () => state.running?.abort();

const SPECIAL = /^<\|.*\|>$/;

function showPass({ pass, tokens }, before) {
  const place = byId("stream");
  const spans = tokens.map((token, index) => {
    if (token.text === null) return make("span", "token masked", BLANK);
    if (SPECIAL.test(token.text)) return make("span", "", "");
    const fresh = before.length && before[index]?.text == null;
    return make("span", fresh ? "token fresh" : "token", token.text);
  });
  place.replaceChildren(...spans);
  const decided = tokens.filter((token) => token.text !== null).length;
  byId("pass-count").textContent = `Pass ${pass}: ${decided} of ${tokens.length} tokens decided.`;
}

function showFindings({ findings }) {
  for (const kind of ["present", "uncertain", "absent"]) {
    byId(kind).textContent = findings[kind]?.join(", ") || "none";
  }
  labelled = toText(state.report);
  noteFindings();
}

// Findings are of the text as the model left it.
export function noteFindings() {
  const text = toText(state.report);
  byId("findings").hidden = !labelled || !text;
  byId("findings-stale").hidden = labelled === text;
}
