// The chosen report: pictures, context, texts, verdicts, and the replay of its denoising.

const REPLAY_SECONDS = 5;
const VERDICTS = { agreed: "agreed", excluded: "denied by both", null: "absent in both" };
let timer = 0;
let replayed = null; // the tokens of the chosen report

function showPictures(place, study, urls) {
  place.replaceChildren();
  for (const image of study.images) {
    if (image.problem) {
      place.append(make("p", "absent", `Image not shown: ${image.problem}`));
      continue;
    }
    const figure = make("figure");
    const picture = make("img");
    picture.alt = `${image.role || "Image"} ${image.path}`;
    picture.src = urls[image.url];
    figure.append(picture);
    if (image.role) figure.append(make("figcaption", "", image.role));
    place.append(figure);
  }
  if (!study.images.length) place.append(make("p", "absent", "This run names no image."));
}

function showContext(place, fields) {
  place.replaceChildren();
  for (const [label, text] of fields) {
    const row = make("div");
    row.append(make("dt", "", label), make("dd", "", text));
    place.append(row);
  }
  if (!fields.length) place.append(make("dd", "absent", "None was given."));
}

function showVerdicts(place, findings) {
  place.replaceChildren();
  const weight = ([, , , kind]) => (MISTAKES.includes(kind) ? 0 : kind === "agreed" ? 1 : 2);
  for (const [name, before, after, kind] of [...findings].sort((a, b) => weight(a) - weight(b))) {
    const item = make("li", kind ?? "neutral");
    item.append(
      make("strong", "", name),
      make("span", "verdict", VERDICTS[kind] ?? kind),
      make("span", "both", `reference ${before}, generated ${after}`),
    );
    place.append(item);
  }
  if (!findings.length) place.append(make("li", "absent", "Neither text mentions a finding."));
}

function facts(study) {
  const parts = [`split ${study.split}`];
  if (study.id !== study.study) parts.unshift(study.id);
  if (study.tokens) parts.push(`mean confidence ${study.tokens.mean.toFixed(2)}`);
  return [...parts, ...study.flags].join(" · ");
}

function setPass(pass) {
  const slider = byId("pass");
  slider.value = pass;
  replayTo(byId("generated"), replayed, Number(slider.value));
  writeDrafts(byId("drafts"), replayed, Number(slider.value));
  const decided = replayed.at.filter((at) => at < Number(slider.value)).length;
  const block = blockAt(replayed, Number(slider.value));
  byId("pass-text").textContent =
    `${slider.value} of ${slider.max}, ${decided} of ${replayed.at.length} tokens` +
    (block < 0 ? "" : `, block ${block + 1} of ${Math.ceil(replayed.at.length / replayed.block)}`);
}

function stopReplay() {
  clearInterval(timer);
  timer = 0;
  byId("play").setAttribute("aria-pressed", "false");
}

// One pass after another from the start, or from the slider.
function toggleReplay() {
  const slider = byId("pass");
  if (timer || byId("replay").hidden) return stopReplay();
  if (slider.value === slider.max) setPass(0);
  byId("play").setAttribute("aria-pressed", "true");
  timer = setInterval(() => {
    setPass(Number(slider.value) + 1);
    if (slider.value === slider.max) stopReplay();
  }, (1000 * REPLAY_SECONDS) / Number(slider.max));
}

function showReplay(tokens) {
  stopReplay();
  replayed = tokens;
  byId("replay").hidden = !tokens;
  byId("no-tokens").hidden = Boolean(tokens);
  byId("drafts").hidden = !tokens?.drafts.length;
  for (const row of document.querySelectorAll(".of-drafts")) row.hidden = !tokens?.drafts.length;
  for (const row of document.querySelectorAll(".of-blocks")) row.hidden = !tokens?.block;
  if (!tokens) return;
  byId("pass").max = tokens.passes;
  setPass(tokens.passes);
}

function showStudy(study, urls) {
  byId("study").hidden = false;
  byId("study-title").textContent = study.study;
  byId("study-facts").textContent = facts(study);
  showPictures(byId("pictures"), study, urls);
  showContext(byId("context"), study.context);
  writeReport(byId("reference"), study.reference, null);
  writeReport(byId("generated"), study.generated, study.tokens);
  showVerdicts(byId("verdicts"), study.findings);
  byId("no-tokens").textContent = study.tokenProblem ?? "";
  showReplay(study.tokens);
}
