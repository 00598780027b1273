// Random edits of random reports, each followed by a fill; returns what went wrong.
const report = await import("/assets/report.js");
const edits = await import("/assets/edits.js");
let seed = 1;
const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return seed % n; };
const pieces = ["The heart is big. ", "No effusion.", "\n\n", "1. Clear. ", "3.5 cm ", "[5] ", "é. "];
const draw = () => pieces[random(pieces.length)];
const wrong = [];
for (let round = 0; round < 500; round += 1) {
  const text = ["Old", ...Array.from({ length: random(7) }, draw)].join("").trim();
  const tokens = text.split(/(?=\s)/).map((one) => ({ text: one, log_probability: -0.1 }));
  let now = report.fromAnswer({ text, tokens });
  if (report.toText(now) !== text) wrong.push(["sentences", text]);
  for (let step = 0; step < 4; step += 1) {
    const i = random(now.length);
    const length = report.sentenceText(now[i]).length;
    const from = random(length);
    const range = [from, from + 1 + random(length - from)];
    if (step % 2) now = edits.lock(now, i, true, range);
    else now = edits.open(now, i, random(2) ? range : null);
  }
  const asked = random(2) ? edits.openRest(now, 6) : now;
  if (!report.countGaps(asked)) continue;
  const gaps = [];
  const answer = report.toTemplate(asked, 64).replace(/(\\?)\[\d+(?:-\d+)?\]/g, (blank, escaped) => {
    if (escaped) return blank.slice(1);
    gaps.push({ text: `fill${gaps.length}.`, log_probability: -1, alternatives: [] });
    return gaps.at(-1).text;
  });
  const filled = report.fillGaps(asked, { text: answer, tokens: [], gaps });
  if (report.toText(filled) !== answer) wrong.push(["fill", answer, report.toText(filled), report.toTemplate(asked)]);
  const locked = (one) => one.flatMap(({ parts }) => parts).filter((part) => part.locked);
  const words = (one) => locked(one).map((part) => part.text).join("").replace(/\s/g, "");
  if (words(filled) !== words(now)) wrong.push(["locked", text, words(now), words(filled)]);
}
return wrong;
