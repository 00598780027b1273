// What is chosen in the report: a sentence, some of its words, or what the mouse has marked.

import { say } from "./drafting.js";
import { byId } from "./parts.js";
import { wordsOf } from "./rows.js";
import { choose, state } from "./store.js";

export const sentenceAt = () => state.report[state.at];
export const idle = () => !state.running && state.editing === null && state.report.length > 0;
export const focusRow = () => byId("rows").querySelector("[tabindex='0']")?.focus();

// Sentences with the places that are chosen in them: by the mouse, by words, or the whole sentence.
export function targets() {
  const dragged = mouseTargets();
  if (dragged.length) return dragged;
  if (!state.range) return [{ i: state.at, range: null }];
  const words = wordsOf(sentenceAt());
  return [{ i: state.at, range: [words[state.range[0]].from, words[state.range[1]].to] }];
}

function mouseTargets() {
  const selection = getSelection();
  if (selection.isCollapsed || !selection.rangeCount) return [];
  const range = selection.getRangeAt(0);
  const found = new Map();
  for (const word of byId("rows").querySelectorAll(".word")) {
    if (!range.intersectsNode(word) || !touches(range, word)) continue;
    const i = Number(word.closest("li").dataset.at);
    const [from, to] = [Number(word.dataset.from), Number(word.dataset.to)];
    found.set(i, [Math.min(found.get(i)?.[0] ?? from, from), to]);
  }
  return [...found].map(([i, places]) => ({ i, range: places }));
}

// A selection that ends right before a word does not touch it.
function touches(range, word) {
  const own = document.createRange();
  own.selectNodeContents(word);
  return range.compareBoundaryPoints(Range.END_TO_START, own) < 0
    && range.compareBoundaryPoints(Range.START_TO_END, own) > 0;
}

export function moveTo(at) {
  if (!idle()) return false;
  choose(at);
  focusRow();
  return true;
}

export function moveWord(by, extend) {
  if (!idle()) return false;
  const last = wordsOf(sentenceAt()).length - 1;
  const [first, end] = state.range ?? (by > 0 ? [-1, -1] : [last + 1, last + 1]);
  const clamp = (value) => Math.max(0, Math.min(last, value));
  const range = extend && state.range
    ? [by < 0 ? clamp(first + by) : first, by > 0 ? clamp(end + by) : end]
    : [clamp((by < 0 ? first : end) + by), clamp((by < 0 ? first : end) + by)];
  choose(state.at, range);
  const words = wordsOf(sentenceAt()).slice(range[0], range[1] + 1);
  say(`Chosen: ${words.map(({ text }) => text || "the gap").join(" ")}`); // for who cannot see it
  focusRow();
  return true;
}
