// Puts the page to work: the list, the filters, the keys.

const studies = JSON.parse(byId("data").textContent);
const urls = JSON.parse(byId("images").textContent);
const form = byId("filters");
const list = byId("list");
let visible = [];
let current = null;

const thumbnails = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    target.src = urls[target.dataset.url];
    thumbnails.unobserve(target);
  }
}, { root: list, rootMargin: "300px" });

function summary(study) {
  const count = (kinds) => study.findings.filter(([, , , kind]) => kinds.includes(kind)).length;
  const missed = count(["missed", "denied"]);
  const invented = count(["invented"]);
  const parts = [];
  if (missed) parts.push(`${missed} missed`);
  if (invented) parts.push(`${invented} invented`);
  return [...parts, ...study.flags].join(", ") || "agrees";
}

function makeOption(study) {
  const option = make("div", study.errors || study.flags.length ? "option differ" : "option agree");
  option.id = `option-${study.index}`;
  option.setAttribute("role", "option");
  const shown = study.images.find((image) => !image.problem);
  const thumbnail = make(shown ? "img" : "span", "thumbnail");
  if (shown) {
    thumbnail.alt = "";
    thumbnail.dataset.url = shown.url;
    thumbnails.observe(thumbnail);
  }
  const words = make("span", "words");
  words.append(make("span", "name", study.study), make("span", "summary", summary(study)));
  option.append(thumbnail, words);
  option.addEventListener("click", () => select(study));
  return option;
}

function select(study) {
  current?.option.removeAttribute("aria-selected");
  current = study;
  study.option.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", study.option.id);
  // Not scrollIntoView, which would move the page too.
  const { offsetTop, offsetHeight } = study.option;
  const { scrollTop, clientHeight } = list;
  if (offsetTop < scrollTop) list.scrollTop = offsetTop;
  else if (offsetTop + offsetHeight > scrollTop + clientHeight) {
    list.scrollTop = offsetTop + offsetHeight - clientHeight;
  }
  showStudy(study, urls);
}

function step(by) {
  if (!visible.length) return;
  const place = visible.indexOf(current) + by;
  select(visible[Math.max(0, Math.min(visible.length - 1, place))]);
}

function applyFilters() {
  visible = choose(studies, Object.fromEntries(new FormData(form)));
  list.replaceChildren(...visible.map((study) => study.option));
  byId("count").textContent = `${visible.length} of ${studies.length} reports`;
  if (!visible.length) {
    stopReplay();
    byId("study").hidden = true;
    list.removeAttribute("aria-activedescendant");
    list.append(make("p", "absent", "No report matches."));
  } else select(visible.includes(current) ? current : visible[0]);
}

function toggleLayer(box) {
  byId("study").classList.toggle(`without-${box.id.replace("show-", "")}`, !box.checked);
}

function flip(id) {
  byId(id).checked = !byId(id).checked;
  toggleLayer(byId(id));
}

const LIST_KEYS = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  Home: () => step(-visible.length),
  End: () => step(visible.length),
};
const PAGE_KEYS = {
  j: () => step(1),
  k: () => step(-1),
  p: toggleReplay,
  m: () => flip("show-marks"),
  s: () => flip("show-shades"),
};

function onKey(keys, event) {
  const typing = event.target.matches("select, input:not([type=range], [type=checkbox])");
  const modified = event.ctrlKey || event.metaKey || event.altKey;
  if (typing || modified || !Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
}

for (const [index, study] of studies.entries()) {
  study.index = index;
  study.search = plainText(study).toLowerCase();
  study.option = makeOption(study);
}
list.addEventListener("keydown", (event) => onKey(LIST_KEYS, event));
document.addEventListener("keydown", (event) => onKey(PAGE_KEYS, event));
for (const kind of ["input", "change"]) form.addEventListener(kind, applyFilters); // tools send one
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(applyFilters)); // after the fields are cleared
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("play").addEventListener("click", toggleReplay);
byId("pass").addEventListener("input", (event) => {
  stopReplay();
  setPass(event.target.value);
});
for (const id of ["show-marks", "show-shades"]) {
  byId(id).addEventListener("change", (event) => toggleLayer(event.target));
}
for (const button of document.querySelectorAll("[data-finding]")) {
  button.addEventListener("click", () => {
    form.elements.finding.value = button.dataset.finding;
    applyFilters();
    byId("reports").scrollIntoView();
    list.focus({ preventScroll: true });
  });
}
applyFilters();
document.documentElement.dataset.ready = performance.now(); // ms since the page was asked for
