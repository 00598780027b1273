// A report as elements: sentences on findings around tokens. Report text is only ever set as text.
function makeToken(text, index, tokens) {
  const confidence = tokens.confidence[index];
  const span = make("span", `token c${shadeOf(confidence)}`, text);
  span.dataset.token = index;
  span.title = `confidence ${confidence} %, pass ${tokens.at[index] + 1}`;
  return span;
}

// part: {runs: [[text, sentence, token]...], sentences: [{tone, errors}]}, -1 for none.
function writeReport(place, part, tokens) {
  place.replaceChildren();
  let open = -1;
  let parent = place;
  const close = () => {
    if (open < 0) return;
    for (const [kind, finding] of part.sentences[open].errors) {
      place.append(make("wbr"), make("span", `tag ${kind}`, `${kind}: ${finding}`));
    }
  };
  for (const [text, sentence, token] of part.runs) {
    if (sentence !== open) {
      close();
      open = sentence;
      parent = place;
      if (sentence >= 0) {
        parent = make("span", `sentence ${part.sentences[sentence].tone ?? ""}`);
        place.append(parent);
      }
    }
    parent.append(token < 0 ? text : makeToken(text, token, tokens));
  }
  close();
  for (const [piece, index] of tokens?.tail ?? []) {
    const end = makeToken(piece, index, tokens);
    end.classList.add("end");
    place.append(" ", end);
  }
  if (!place.hasChildNodes()) place.append(make("span", "absent", "no text"));
}

// Shows the text as it stood after `pass` passes. A token that a sentence cuts has two spans.
// Of speculation the pass's own tokens: accepted drafts, and the one that replaced a rejected draft.
function replayTo(place, tokens, pass) {
  const drafts = tokens.drafts[pass - 1] ?? [];
  const accepted = drafts.filter(([, kept]) => kept).length;
  const first = tokens.at.indexOf(pass - 1);
  const block = blockAt(tokens, pass);
  for (const span of place.querySelectorAll(".token")) {
    const index = Number(span.dataset.token);
    const fresh = tokens.at[index] === pass - 1;
    const order = fresh && drafts.length ? index - first : Infinity;
    span.classList.toggle("masked", tokens.at[index] >= pass);
    span.classList.toggle("fresh", fresh);
    span.classList.toggle("accepted", order < accepted);
    span.classList.toggle("corrected", order === accepted && accepted < drafts.length);
    span.classList.toggle("in-block", block >= 0 && Math.floor(index / tokens.block) === block);
  }
}

// The block that pass number `pass` was in; -1 where the report was not decoded in blocks.
function blockAt(tokens, pass) {
  if (!tokens.block || !pass) return -1;
  const decided = tokens.at.flatMap((at, index) => (at < pass ? [index] : []));
  return Math.floor(Math.max(0, ...decided) / tokens.block);
}

// The drafts that the pass checked, under the text: those accepted, those discarded.
function writeDrafts(place, tokens, pass) {
  place.hidden = !tokens.drafts.length;
  const drafts = tokens.drafts[pass - 1] ?? [];
  const what = pass === 0 ? "Before the first pass" : `Pass ${pass} checked`;
  place.replaceChildren(pass && drafts.length ? `${what}: ` : `${what}${pass ? " no draft" : ""}`);
  for (const [text, kept] of drafts) {
    place.append(make("span", kept ? "draft accepted" : "draft discarded", text), " ");
  }
}
