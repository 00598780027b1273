// What the keys and the buttons do to the chosen text; each returns false where it does not apply.

import { say } from "./drafting.js";
import * as edits from "./edits.js";
import { hasGap, isFilled, isGap, isLocked, slice } from "./report.js";
import { focusRow, idle, sentenceAt, targets } from "./selection.js";
import { commit, state } from "./store.js";

function edit(action, work, at = state.at) {
  if (!idle()) return false;
  const chosen = targets();
  const report = chosen.reduce((report, { i, range }) => work(report, i, range), state.report);
  getSelection().removeAllRanges();
  commit(action, report, at);
  focusRow();
  return true;
}

export function toggleLock() {
  if (!idle()) return false;
  const all = targets().every(({ i, range }) => {
    const parts = range ? slice(state.report[i].parts, ...range) : state.report[i].parts;
    return isLocked({ parts });
  });
  return edit(all ? "unlock" : "lock", (report, i, range) => edits.lock(report, i, !all, range));
}

export function openGap() {
  if (!idle()) return false;
  const openable = targets().some(({ i, range }) => {
    const { parts } = state.report[i];
    return (range ? slice(parts, ...range) : parts).some((part) => isGap(part) || !part.locked);
  });
  if (!openable) {
    say("That text is locked; unlock it (l) first.");
    return true;
  }
  return edit("open", edits.open);
}

// Accepting goes on to the next sentence that is not decided yet.
export function acceptSentence() {
  if (!idle() || hasGap(sentenceAt())) return false;
  const before = state.report.length;
  const report = edits.accept(state.report, state.at);
  const after = state.at + 1 + report.length - before;
  const next = report.findIndex((sentence, i) => i >= after && !isLocked(sentence));
  commit("accept", report, next < 0 ? after : next);
  focusRow();
  return true;
}

// Rejecting opens the fills of a sentence again, or all of it when it has none.
export function rejectSentence() {
  if (!idle()) return false;
  if (!isFilled(sentenceAt())) return openGap();
  commit("reject", edits.reopen(state.report, state.at));
  focusRow();
  return true;
}

export const gapsHere = () => (sentenceAt()?.parts ?? []).filter(isGap);

export function resize(by) {
  if (!idle() || !gapsHere().length) return false;
  const [part] = gapsHere();
  setLength(part, Math.max(1, part.longest + by));
  return true;
}

export function setLength(part, length) {
  const most = state.mostTokens ?? Infinity;
  const longest = Math.max(1, Math.min(most, Math.round(length) || 1));
  commit("length", edits.setGap(state.report, state.at, part, { shortest: longest, longest }));
}

export function toggleFree(part = gapsHere()[0]) {
  if (!idle() || !part) return false;
  commit("length", edits.setGap(state.report, state.at, part, { free: !part.free, shortest: part.longest }));
  return true;
}

export function takeBack() {
  if (!idle() || !gapsHere().some((part) => part.was?.length)) return false;
  return edit("restore", edits.restore);
}

const fillsHere = () => (sentenceAt()?.parts ?? []).filter((part) => part.fill && !part.locked);
export const optionsHere = () =>
  fillsHere().flatMap((part) => part.fill.options.map((option, index) => ({ part, option, index })));

export function takeOption(number) {
  const chosen = idle() && optionsHere()[number];
  if (!chosen) return false;
  commit("alternative", edits.choose(state.report, state.at, chosen.part, chosen.index));
  return true;
}

export function removeSentence() {
  if (!idle()) return false;
  commit("delete", edits.remove(state.report, state.at));
  focusRow();
  return true;
}
