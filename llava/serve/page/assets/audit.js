// The audit: what the text says against what the model's own report says.

import { ask } from "./api.js";
import { fingerprint, request, say } from "./drafting.js";
import { byId, make } from "./parts.js";
import { clearProblem, showProblem } from "./problems.js";
import { countGaps, toText } from "./report.js";
import { notify, state } from "./store.js";

const MEANINGS = {
  missing: "the model's report has it, the text does not",
  denied: "the text denies what the model's report has",
  invented: "the text has it, the model's report does not",
};
let audited = "";

const isError = (mark) => Object.hasOwn(MEANINGS, mark);

export async function audit() {
  const place = byId("writing-problem");
  clearProblem(place);
  if (state.running) return;
  const text = toText(state.report);
  const refusal = whyNot(text);
  if (refusal) return showProblem(place, { message: refusal });
  state.running = new AbortController();
  say("Auditing …");
  notify();
  try {
    const { signal } = state.running;
    const reference = await ownReport(signal);
    showAudit(await ask("/v1/audit", { text, reference }, signal), text, reference);
    say("Audited.");
  } catch (error) {
    say("");
    showProblem(place, error, audit);
  } finally {
    state.running = null;
    notify();
  }
  if (!byId("audit-result").hidden) byId("audit-result").focus();
}

function whyNot(text) {
  if (!text) return "There is no text to audit. Type it (t), or draft one.";
  if (countGaps(state.report)) return "The text has gaps. Fill (f) or delete (x) them first.";
  if (!ownIsFresh() && !request().images.length) return "There is no image yet: the audit needs the model's own report.";
  return "";
}

const ownIsFresh = () => state.own?.basis === fingerprint();

// The draft as the model wrote it; where there is none of these images, one is written now.
async function ownReport(signal) {
  if (!ownIsFresh()) {
    say("Writing the model's own report …");
    const basis = fingerprint();
    const answer = await ask("/v1/reports", { ...request(), template: null, stream: false }, signal);
    state.own = { text: answer.text, basis };
  }
  return state.own.text;
}

function showAudit(result, text, reference) {
  audited = text;
  const own = result.reference_sentences ?? [{ text: reference, mark: "none", findings: [] }];
  byId("audit-reference").replaceChildren(...own.map(makeSentence));
  byId("audit-lists").replaceChildren(...Object.entries(MEANINGS).map(([kind, meaning]) => {
    const row = make("div", result[kind].length ? "differ" : "");
    const term = make("dt", "", kind[0].toUpperCase() + kind.slice(1));
    const found = make("dd", result[kind].length ? "" : "absent", result[kind].join(", ") || "none");
    if (result[kind].length) found.append(" ", make("span", "note", meaning));
    row.append(term, found);
    return row;
  }));
  byId("audit-sentences").replaceChildren(...result.sentences.map(makeSentence));
  byId("audit-result").hidden = false;
  noteAudit();
}

function makeSentence({ text, mark, findings }) {
  const item = make("li", "report");
  const tone = isError(mark) ? "differ" : mark === "agrees" ? "agree" : "";
  item.append(make("span", `sentence ${tone}`, text));
  const words = findings.length ? `${mark}: ${findings.join(", ")}` : mark;
  if (mark !== "none") item.append(" ", make("span", `tag ${tone}`, words));
  return item;
}

export function noteAudit() {
  byId("audit-stale").hidden = audited === toText(state.report);
}

export function clearAudit() {
  byId("audit-result").hidden = true;
}
