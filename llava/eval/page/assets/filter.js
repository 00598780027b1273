// Which reports the form asks for, and in which order.

const SHOWN = ["agreed", "missed", "denied", "invented"]; // verdicts: the finding is in a text
const MISTAKES = ["missed", "denied", "invented"];

function plainText(study) {
  const text = (part) => part.runs.map(([piece]) => piece).join("");
  return [study.id, study.study, text(study.reference), text(study.generated)].join("\n");
}

// With a finding chosen, errors are those on that finding alone.
function hasError(study, wanted, finding) {
  const kinds = study.findings
    .filter(([name]) => !finding || name === finding)
    .map(([, , , verdict]) => verdict);
  if (study.flags.includes(wanted)) return true;
  if (wanted === "no error") return !kinds.some((kind) => MISTAKES.includes(kind));
  return kinds.includes(wanted);
}

function matches(study, asked) {
  const concerns = ([name, , , kind]) => name === asked.finding && SHOWN.includes(kind);
  return (
    (!asked.split || study.split === asked.split) &&
    (!asked.finding || study.findings.some(concerns)) &&
    (!asked.error || hasError(study, asked.error, asked.finding)) &&
    (!asked.words || study.search.includes(asked.words.trim().toLowerCase()))
  );
}

const ORDERS = {
  file: (a, b) => a.index - b.index,
  errors: (a, b) => b.errors - a.errors || a.index - b.index,
  confidence: (a, b) =>
    (a.tokens?.mean ?? 2) - (b.tokens?.mean ?? 2) || a.index - b.index,
};

function choose(studies, asked) {
  return studies.filter((study) => matches(study, asked)).sort(ORDERS[asked.order]);
}
