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
function replayTo(place, tokens, pass) {
  for (const span of place.querySelectorAll(".token")) {
    const at = tokens.at[span.dataset.token];
    span.classList.toggle("masked", at >= pass);
    span.classList.toggle("fresh", at === pass - 1);
  }
}
