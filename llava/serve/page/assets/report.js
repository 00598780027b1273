// A report as sentences of parts: text (locked or not) and gaps. Pure functions: each returns a new
// report and changes none, so that undo is a list of reports.
//
// report   [sentence]
// sentence {parts: [part], after}               after: the white space up to the next sentence
// text     {kind: "text", text, tokens, locked, fill}   tokens: [{text, logProbability}] or null
//          fill: null, or {options: [{text, logProbability, tokens}], chosen}: it came from a gap
// gap      {kind: "gap", shortest, longest, free, was}  in tokens; was: the parts it replaced

const GAP = "\uFFFC";
const BLANK = /(\\?)\[(\d+)(?:-(\d+))?\]/g;
// A full stop after a line's number ("1. No effusion.") does not end a sentence.
const SENTENCE = /\uFFFC(?=\s+[A-Z\uFFFC])|\S.*?(?:(?<!^\d{1,2})[.!?](?=\s|$)|$)/gm;
const LENGTHS = 16; // lengths that are tried for all free gaps of one request together

export const text = (string, tokens = null, locked = false, fill = null) => ({
  kind: "text", text: string, tokens, locked, fill,
});

export const gap = (shortest, longest = shortest, free = false, was = null) => ({
  kind: "gap", shortest, longest, free, was,
});

export const isGap = (part) => part.kind === "gap";
export const shown = (part) => (isGap(part) ? GAP : part.text);
export const sum = (values) => values.reduce((total, value) => total + value, 0);

// --- parts ---------------------------------------------------------------------------------------

function cutTokens(tokens, from, to) {
  if (!tokens) return null;
  let start = 0;
  const kept = [];
  for (const token of tokens) {
    const end = start + token.text.length;
    const piece = token.text.slice(Math.max(from - start, 0), Math.max(to - start, 0));
    if (start < to && end > from && piece) kept.push({ ...token, text: piece });
    start = end;
  }
  return kept;
}

function cutPart(part, from, to) {
  if (isGap(part) || (from === 0 && to === part.text.length)) return part;
  return text(part.text.slice(from, to), cutTokens(part.tokens, from, to), part.locked, null);
}

// The parts between two places of their joined text; a gap takes one place.
export function slice(parts, from, to) {
  const inside = [];
  let start = 0;
  for (const part of parts) {
    const length = shown(part).length;
    const [a, b] = [Math.max(from - start, 0), Math.min(to - start, length)];
    if (a < b) inside.push(cutPart(part, a, b));
    start += length;
  }
  return inside;
}

function withoutGaps(part) {
  return isGap(part) ? part : { ...part, text: part.text.replaceAll(GAP, " ") };
}

// Texts and gaps in a row -> sentences.
export function fromParts(row) {
  const parts = row.map(withoutGaps).filter((part) => isGap(part) || part.text);
  const joined = parts.map(shown).join("");
  const found = [...joined.matchAll(SENTENCE)];
  return found.map((match, i) => {
    const end = match.index + match[0].length;
    const next = i + 1 < found.length ? found[i + 1].index : joined.length;
    return { parts: slice(parts, match.index, end), after: joined.slice(end, next) };
  });
}

export const flatten = (report) =>
  report.flatMap(({ parts, after }) => (after ? [...parts, text(after)] : parts));

// --- text and template ---------------------------------------------------------------------------

export function fromTemplate(string, locked = false) {
  const parts = [];
  let fixed = "";
  let end = 0;
  for (const match of string.matchAll(BLANK)) {
    fixed += string.slice(end, match.index);
    end = match.index + match[0].length;
    if (match[1]) {
      fixed += match[0].slice(1);
      continue;
    }
    const [shortest, longest] = [Number(match[2]), Number(match[3] ?? match[2])];
    parts.push(text(fixed, null, locked), gap(shortest, longest));
    fixed = "";
  }
  parts.push(text(fixed + string.slice(end), null, locked));
  return fromParts(parts);
}

const escapeBlanks = (string) => string.replace(/\[\d+(?:-\d+)?\]/g, "\\$&");

// Free gaps share the lengths that one request may try.
export function toTemplate(report, most = Infinity) {
  const parts = flatten(report);
  const free = parts.filter((part) => isGap(part) && part.free).length;
  const lengths = Math.max(1, Math.floor(LENGTHS ** (1 / free) + 1e-9));
  const blanks = parts.filter(isGap).map((part) => {
    const range = part.free ? freeRange(part.longest, lengths, most) : [part.shortest, part.longest];
    const [a, b] = range.map((length) => Math.min(length, most));
    return a === b ? `[${a}]` : `[${a}-${b}]`;
  });
  // What looks like a blank may begin in one part and end in the next.
  const texts = parts.map(shown).join("").split(GAP).map(escapeBlanks);
  return texts.map((fixed, i) => fixed + (blanks[i] ?? "")).join("").trimEnd();
}

function freeRange(about, lengths, most) {
  const shortest = Math.max(1, Math.min(about - Math.floor(lengths / 2), most - lengths + 1));
  return [shortest, Math.min(most, shortest + lengths - 1)];
}

export const toText = (report) =>
  flatten(report).map((part) => (isGap(part) ? "[ ]" : part.text)).join("").trimEnd();

export const sentenceText = ({ parts }) =>
  parts.map((part) => (isGap(part) ? "[ ]" : part.text)).join("");

export const countGaps = (report) => flatten(report).filter(isGap).length;
export const isLocked = ({ parts }) => parts.every((part) => !isGap(part) && part.locked);
export const hasLocked = ({ parts }) => parts.some((part) => part.locked);
export const hasGap = ({ parts }) => parts.some(isGap);
export const isFilled = ({ parts }) => parts.some((part) => part.fill && !part.locked);

// --- what the model wrote ------------------------------------------------------------------------

// Tokens that spell the text exactly, or null. The API's tokens may go on after it (end of text).
export function spelling(string, tokens) {
  const row = (tokens ?? []).map((t) => ({ text: t.text, logProbability: t.log_probability }));
  const joined = row.map((token) => token.text).join("");
  const start = joined.indexOf(string);
  if (!row.length || start < 0 || joined.slice(0, start).trim()) return null;
  return cutTokens(row, start, start + string.length);
}

export const fromAnswer = (answer) =>
  fromParts([text(answer.text, spelling(answer.text, answer.tokens))]);

// The report with its gaps filled by an answer; given text keeps its tokens and its locks.
export function fillGaps(report, answer) {
  const tokens = spelling(answer.text, answer.tokens);
  let place = 0;
  let index = 0;
  const fill = (part, before) => {
    const found = answer.gaps[index];
    index += 1;
    // A space of the template before a gap is the first character of the gap's first token.
    const own = /\s$/.test(before) || !before ? found.text.replace(/^ /, "") : found.text;
    const spelled = answer.text.startsWith(own, place) ? cutTokens(tokens, place, place + own.length) : null;
    const first = { text: own, logProbability: found.log_probability, tokens: spelled };
    const others = found.alternatives.map((other) => ({
      text: own === found.text ? other.text : other.text.replace(/^ /, ""),
      logProbability: other.log_probability,
      tokens: null,
    }));
    const options = [first, ...others.filter((other) => other.text !== own)];
    return text(own, spelled, false, { options, chosen: 0 });
  };
  let before = "";
  return report.map((sentence) => {
    const parts = sentence.parts.map((part) => {
      const done = isGap(part) ? fill(part, before) : part;
      before = done.text;
      place += done.text.length;
      return done;
    });
    before = sentence.after || before;
    place += sentence.after.length;
    return { ...sentence, parts };
  });
}
