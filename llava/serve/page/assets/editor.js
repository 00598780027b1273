// The editor's rows at work: typing in one, its buttons, and its keys.

import {
  acceptSentence, gapsHere, openGap, optionsHere, rejectSentence, removeSentence, resize, setLength,
  takeBack, takeOption, toggleFree, toggleLock,
} from "./actions.js";
import { fill, stop } from "./drafting.js";
import * as edits from "./edits.js";
import { byId, make } from "./parts.js";
import { hasGap, isFilled, isGap, isLocked, toTemplate } from "./report.js";
import { drawRows } from "./rows.js";
import { focusRow, idle, moveTo, moveWord } from "./selection.js";
import { commit, notify, state } from "./store.js";

export function startTyping() {
  if (!idle()) return false;
  state.editing = state.at;
  notify();
  const field = byId("rows").querySelector("textarea");
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
  return true;
}

function stopTyping(value) {
  const i = state.editing;
  const before = toTemplate([state.report[i]]);
  if (value === before || (!value.trim() && !before)) {
    state.editing = null;
    if (before) notify();
    else commit("delete", edits.remove(state.report, i));
  } else commit("type", edits.rewrite(state.report, i, value), i);
  focusRow();
}

// What was begun in a row is kept when something else is asked for.
export function finishTyping() {
  if (state.editing !== null) stopTyping(byId("rows").querySelector("textarea").value);
}

function makeEditor(sentence, i) {
  const place = make("div", "line");
  const field = make("textarea", "report");
  field.value = toTemplate([sentence]);
  field.rows = Math.max(2, Math.ceil(field.value.length / 60));
  field.setAttribute("aria-label", `Sentence ${i + 1}; Enter keeps it, Escape leaves it as it was`);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      stopTyping(field.value);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      stopTyping(toTemplate([sentence]));
    }
  });
  const tools = make("div", "row-actions");
  tools.append(button("Keep", "Enter", "keep", () => stopTyping(field.value)),
    button("Cancel", "Esc", "cancel", () => stopTyping(toTemplate([sentence]))),
    make("span", "note", "[5] is a gap of 5 tokens"));
  place.append(field, tools);
  return place;
}

function addSentence() {
  if (!idle()) return false;
  const at = state.at + 1;
  const after = at < state.report.length ? " " : "";
  commit("add", edits.insert(state.report, at, { parts: [], after }), at);
  return startTyping();
}

// --- the buttons of a row ------------------------------------------------------------------------

function button(words, key, action, run) {
  const node = make("button", "", words);
  node.type = "button";
  node.dataset.action = action;
  if (key) node.append(" ", make("kbd", "", key));
  node.addEventListener("mousedown", (event) => event.preventDefault()); // keeps the selection
  node.addEventListener("click", run);
  return node;
}

function makeActions(sentence) {
  const place = make("div", "actions");
  const row = make("div", "row-actions");
  const locked = isLocked(sentence);
  if (!locked && !hasGap(sentence)) row.append(button("Accept", "a", "accept", acceptSentence));
  const hasText = sentence.parts.some((part) => !isGap(part));
  if (hasText) row.append(button(locked ? "Unlock" : "Lock", "l", "lock", toggleLock));
  if (!locked && hasText) {
    row.append(isFilled(sentence)
      ? button("Reject", "r", "reject", rejectSentence)
      : button("Open as gap", "g", "open", openGap));
  }
  row.append(button("Edit", "e", "edit", startTyping), button("Delete", "x", "delete", removeSentence),
    button("Add after", "o", "add", addSentence));
  place.append(row, ...gapsHere().map(makeGapTools), ...makeOptions());
  return place;
}

function makeGapTools(part, index, all) {
  const row = make("div", "row-actions gap-tools");
  const label = make("label", "", all.length > 1 ? `Gap ${index + 1}` : "Gap");
  const length = make("input");
  Object.assign(length, { type: "number", min: 1, max: state.mostTokens, value: part.longest });
  length.dataset.action = `length-${index}`;
  length.setAttribute("aria-label", "Length in tokens");
  length.addEventListener("change", () => setLength(part, Number(length.value)));
  label.append(" ", length, ` token${part.longest === 1 ? "" : "s"}`);
  const free = make("label");
  const box = make("input");
  Object.assign(box, { type: "checkbox", checked: part.free });
  box.dataset.action = `free-${index}`;
  box.addEventListener("change", () => toggleFree(part));
  free.append(box, " free length ", make("kbd", "", "0"));
  row.append(label, free);
  if (index === 0) {
    row.append(button("Fill", "f", "fill", fill));
    if (part.was?.length) row.append(button("Put back", "z", "restore", takeBack));
  }
  return row;
}

function makeOptions() {
  const options = optionsHere();
  if (!options.length) return [];
  const list = make("ol", "options");
  list.setAttribute("aria-label", "Fills by log-probability");
  options.forEach(({ part, option, index }, number) => {
    const node = button("", "", `option-${number}`, () => takeOption(number));
    node.setAttribute("aria-pressed", String(index === part.fill.chosen));
    node.append(make("kbd", "", number < 9 ? number + 1 : ""),
      make("span", "option-text", option.text || "(nothing)"),
      make("span", "share", option.logProbability?.toFixed(2).replace("-", "−") ?? ""));
    const item = make("li");
    item.append(node);
    list.append(item);
  });
  return [make("p", "note", "Fills, with their log-probability"), list];
}

// --- starting ------------------------------------------------------------------------------------

export const drawEditor = () => drawRows({ editor: makeEditor, actions: makeActions });

function escape() {
  if (state.running) return stop();
  return state.range ? moveTo(state.at) : false;
}

export const EDITOR_KEYS = [
  { keys: ["ArrowDown", "j"], words: "next sentence", run: () => moveTo(state.at + 1) },
  { keys: ["ArrowUp", "k"], words: "previous sentence", run: () => moveTo(state.at - 1) },
  {
    keys: ["ArrowLeft", "ArrowRight"],
    words: "choose a word",
    run: (key) => moveWord(key.endsWith("Right") ? 1 : -1),
  },
  {
    keys: ["Shift+ArrowLeft", "Shift+ArrowRight"],
    words: "choose more words",
    run: (key) => moveWord(key.endsWith("Right") ? 1 : -1, true),
  },
  { keys: ["Escape"], words: "choose the whole sentence again; stop writing", run: escape },
  { keys: ["a"], words: "accept: lock it and go on", run: acceptSentence },
  { keys: ["r"], words: "reject: open it as a gap", run: rejectSentence },
  { keys: ["l"], words: "lock or unlock what is chosen", run: toggleLock },
  { keys: ["g"], words: "open what is chosen as a gap", run: openGap },
  { keys: ["+", "="], words: "a longer gap", run: () => resize(1) },
  { keys: ["-"], words: "a shorter gap", run: () => resize(-1) },
  { keys: ["0"], words: "free or given length", run: () => toggleFree() },
  { keys: ["z"], words: "put back what the gap replaced", run: takeBack },
  { keys: [..."123456789"], words: "take this fill", run: (key) => takeOption(key - 1) },
  { keys: ["e", "Enter"], words: "edit the sentence", run: startTyping },
  { keys: ["o"], words: "add a sentence after it", run: addSentence },
  { keys: ["x", "Delete"], words: "delete the sentence", run: removeSentence },
];

byId("rows").addEventListener("click", (event) => {
  const row = event.target.closest("li.row");
  if (!row || event.target.closest("button, input, textarea, label")) return;
  if (Number(row.dataset.at) === state.at || !getSelection().isCollapsed) return;
  finishTyping();
  moveTo(Number(row.dataset.at));
});
