// What a reader does to a report: lock, open, choose, rewrite. Pure functions, as in report.js.

import {
  fromParts, fromTemplate, gap, hasGap, hasLocked, isGap, isLocked, sentenceText, shown, slice, sum, text,
} from "./report.js";

const change = (report, i, parts) =>
  report.map((sentence, at) => (at === i ? { ...sentence, parts } : sentence));

const lengthOf = (sentence) => sum(sentence.parts.map((part) => shown(part).length));

function inThree(sentence, range) {
  const [from, to] = range ?? [0, lengthOf(sentence)];
  const { parts } = sentence;
  return [slice(parts, 0, from), slice(parts, from, to), slice(parts, to, lengthOf(sentence))];
}

// Locks or unlocks a range of a sentence (by default all); a gap cannot be locked.
export function lock(report, i, locked, range) {
  const [before, inside, after] = inThree(report[i], range);
  const marked = inside.map((part) => (isGap(part) ? part : { ...part, locked }));
  return change(report, i, [...before, ...marked, ...after]);
}

// Tokens of a text; where they are not known, about one and a half a word.
function countTokens({ text: string, tokens }) {
  if (!string.trim()) return 0;
  return tokens?.length || Math.round(string.trim().split(/\s+/).length * 1.5);
}

const lengthIn = (parts) =>
  sum(parts.map((part) => (isGap(part) ? part.longest : countTokens(part))));

// Replaces what is not locked in a range (by default all) with gaps, one for each stretch.
export function open(report, i, range) {
  const [before, inside, after] = inThree(report[i], range);
  return change(report, i, [...before, ...openParts(inside), ...after]);
}

function openParts(parts) {
  const row = [];
  let stretch = [];
  const close = () => {
    if (stretch.some((part) => isGap(part) || part.text.trim())) row.push(...gapFor(stretch));
    else row.push(...stretch);
    stretch = [];
  };
  for (const part of parts) {
    if (!part.locked) {
      stretch.push(part);
      continue;
    }
    close();
    row.push(part);
  }
  close();
  return row;
}

// White space at a stretch's ends stays text: a gap begins and ends with a word.
function gapFor(stretch) {
  const joined = stretch.map(shown).join("");
  const lead = joined.match(/^\s*/)[0];
  const tail = joined.slice(lead.length).match(/\s*$/)[0];
  const length = Math.max(1, lengthIn(stretch));
  const was = slice(stretch, lead.length, joined.length - tail.length);
  const row = [gap(length, length, false, was)];
  return [...(lead ? [text(lead)] : []), ...row, ...(tail ? [text(tail)] : [])];
}

const openTokens = ({ parts }) => lengthIn(parts.filter((part) => !part.locked));

// Everything that is not locked as free gaps: what a new draft writes. Neighbouring sentences share
// a gap of at most `most` tokens.
export function openRest(report, most = Infinity) {
  let length = 0;
  const row = report.flatMap((sentence, i) => {
    length += openTokens(sentence);
    const next = report[i + 1];
    const joined = next && !hasLocked(sentence) && !hasLocked(next) && length + openTokens(next) <= most;
    if (!joined) length = 0;
    return [...sentence.parts, text(sentence.after, null, !joined)];
  });
  const opened = openParts(row.filter((part) => isGap(part) || part.text));
  return fromParts(opened.map((part) => (isGap(part) ? { ...part, free: true } : part)));
}

// Only the fills of a sentence, as gaps again.
export const reopen = (report, i) =>
  change(report, i, report[i].parts.flatMap((part) => (part.fill && !part.locked ? gapFor([part]) : [part])));

export const setGap = (report, i, part, changes) =>
  change(report, i, report[i].parts.map((one) => (one === part ? { ...part, ...changes } : one)));

// What the gaps of a sentence replaced, where it is known.
export function restore(report, i) {
  const parts = report[i].parts.flatMap((part) => (isGap(part) && part.was?.length ? part.was : [part]));
  return change(report, i, parts);
}

export function choose(report, i, part, chosen) {
  const option = part.fill.options[chosen];
  const own = text(option.text, option.tokens, false, { ...part.fill, chosen });
  return change(report, i, report[i].parts.map((one) => (one === part ? own : one)));
}

// A sentence in new words, which are locked: typed text is never the model's to change.
export function rewrite(report, i, template) {
  const typed = fromTemplate(template.trim(), true);
  if (typed.length) typed[typed.length - 1].after ||= report[i]?.after || " ";
  return [...report.slice(0, i), ...typed, ...report.slice(i + 1)];
}

export const insert = (report, i, sentence) => {
  const head = report.slice(0, i);
  if (head.length) head[i - 1] = { ...head[i - 1], after: head[i - 1].after || " " };
  return [...head, sentence, ...report.slice(i)];
};

export const remove = (report, i) => report.filter((_, at) => at !== i);

// The whole report in new words; sentences that did not change keep what is known of them.
export function retype(report, template) {
  const old = new Map(report.filter((s) => !hasGap(s)).map((s) => [sentenceText(s), s.parts]));
  return fromTemplate(template, true).map((sentence) => ({
    ...sentence,
    parts: old.get(sentenceText(sentence)) ?? sentence.parts,
  }));
}

// A fill that is accepted becomes sentences of its own.
export const accept = (report, i) => {
  const locked = lock(report, i, true);
  if (!isLocked(locked[i])) return locked;
  const own = fromParts(locked[i].parts.map((part) => ({ ...part, fill: null })));
  if (own.length) own[own.length - 1].after = report[i].after;
  return [...report.slice(0, i), ...own, ...report.slice(i + 1)];
};
