// The report as rows, a sentence each: its words with their shades, and what can be done with it.

import { byId, make, shadeOf } from "./parts.js";
import { hasGap, hasLocked, isFilled, isGap, isLocked, sentenceText } from "./report.js";
import { state } from "./store.js";

const SHOWN_BLANKS = 12;

// --- words ---------------------------------------------------------------------------------------

// {from, to, part, text} of each word and gap; places count a gap as one character.
export function wordsOf(sentence) {
  const words = [];
  let start = 0;
  for (const part of sentence.parts) {
    if (isGap(part)) words.push({ from: start, to: start + 1, part, text: "" });
    else {
      for (const match of part.text.matchAll(/\S+/g)) {
        const from = start + match.index;
        words.push({ from, to: from + match[0].length, part, text: match[0], inside: match.index });
      }
    }
    start += isGap(part) ? 1 : part.text.length;
  }
  return words;
}

// Per cent of the least certain token of a word; null where the model has not written it.
function confidence({ part, inside, text }) {
  let start = 0;
  let least = null;
  for (const token of part.tokens ?? []) {
    const end = start + token.text.length;
    const overlaps = start < inside + text.length && end > inside && /[\p{L}\p{N}]/u.test(token.text);
    if (overlaps && typeof token.logProbability === "number") {
      least = Math.min(least ?? Infinity, 100 * Math.exp(token.logProbability));
    }
    start = end;
  }
  return least;
}

function makeWord(word, chosen) {
  const span = make("span", "word", word.text);
  Object.assign(span.dataset, { from: word.from, to: word.to });
  if (isGap(word.part)) showGap(span, word.part);
  else if (word.part.locked) span.classList.add("kept");
  else {
    const share = confidence(word);
    if (share !== null) {
      span.classList.add("token", `c${shadeOf(share)}`);
      span.title = `the model's confidence: ${share.toFixed(0)} %`;
    }
    if (word.part.fill) span.classList.add("filled");
  }
  span.classList.toggle("chosen", chosen);
  return span;
}

export function gapLength({ shortest, longest, free }) {
  if (free) return `free, about ${longest} tokens`;
  const range = shortest === longest ? shortest : `${shortest} to ${longest}`;
  return `${range} ${longest === 1 ? "token" : "tokens"}`;
}

function showGap(span, part) {
  span.classList.add("gap");
  span.setAttribute("role", "img");
  span.setAttribute("aria-label", `gap of ${gapLength(part)}`);
  for (let i = 0; i < Math.min(part.longest, SHOWN_BLANKS); i += 1) span.append(make("i"));
  span.append(make("small", "", part.free ? `~${part.longest}` : gapLength(part).replace(/ tokens?/, "")));
}

// --- rows ----------------------------------------------------------------------------------------

const STATES = {
  gap: ["…", "has a gap"],
  filled: ["?", "filled, to be accepted or rejected"],
  locked: ["✓", "locked"],
  open: ["", "open"],
};

export function stateOf(sentence) {
  if (hasGap(sentence)) return "gap";
  if (isLocked(sentence)) return "locked";
  return isFilled(sentence) ? "filled" : "open";
}

function makeLine(sentence, i) {
  const name = stateOf(sentence);
  const line = make("div", "line report");
  const partly = name === "open" && hasLocked(sentence) ? "partly locked" : STATES[name][1];
  line.tabIndex = i === state.at ? 0 : -1;
  line.setAttribute("role", "group");
  line.setAttribute("aria-roledescription", "sentence");
  line.setAttribute("aria-label",
    `${i + 1} of ${state.report.length}, ${partly}: ${sentenceText(sentence)}`);
  const range = i === state.at ? state.range : null;
  let place = 0;
  wordsOf(sentence).forEach((word, index) => {
    if (word.from > place) line.append(" ");
    place = word.to;
    line.append(makeWord(word, Boolean(range) && index >= range[0] && index <= range[1]));
  });
  if (!line.hasChildNodes()) line.append(make("span", "absent", "empty"));
  return line;
}

function makeRow(sentence, i, tools) {
  const name = stateOf(sentence);
  const row = make("li", `row ${name}`);
  row.dataset.at = i;
  const sign = make("span", "sign", STATES[name][0]);
  sign.setAttribute("aria-hidden", "true");
  row.append(sign);
  if (i === state.editing) row.append(tools.editor(sentence, i));
  else row.append(makeLine(sentence, i));
  if (i === state.at) {
    row.classList.add("current");
    if (state.editing === null) row.append(tools.actions(sentence, i));
  }
  if (sentence.after.includes("\n\n")) row.classList.add("paragraph-end");
  return row;
}

// tools: {editor, actions}, which make what a row offers.
export function drawRows(tools) {
  const place = byId("rows");
  const focus = place.contains(document.activeElement) ? document.activeElement : null;
  const action = focus?.dataset.action;
  place.replaceChildren(...state.report.map((sentence, i) => makeRow(sentence, i, tools)));
  if (!focus) return;
  const same = action && place.querySelector(`[data-action="${action}"]`);
  (same && !same.disabled ? same : place.querySelector("textarea, [tabindex='0']"))?.focus();
}
