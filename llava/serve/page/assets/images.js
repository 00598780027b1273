// The study's images: dropped or chosen, previewed by the server, with their roles and windows.

import { ask } from "./api.js";
import { byId, make } from "./parts.js";
import { clearProblem, showProblem } from "./problems.js";
import { showWhole } from "./viewer.js";

const WAIT = 150; // ms after the last move of a window's slider
let pictures = []; // {name, data, role, preview, stored, window, forModel, card}
let current = null;
let settings = null;
let changed = () => {};
let timer = 0;

export const imageNames = () => pictures.map((picture) => picture.name);
export const requestImages = () =>
  pictures.filter((picture) => picture.preview).map(({ data, role, window, forModel }) =>
    (window && forModel ? { data, role, window } : { data, role }));

const readable = (bytes) =>
  bytes >= 1e6 ? `${(bytes / 1e6).toFixed(0)} MB` : `${Math.ceil(bytes / 1e3)} kB`;

export function startImages(given, onChange) {
  settings = given;
  changed = onChange;
  const { images, image_bytes: bytes } = settings.limits;
  byId("file-limits").textContent =
    `JPEG, PNG or DICOM; up to ${images} images of ${readable(bytes)}`;
}

export function clearImages() {
  pictures = [];
  current = null;
  byId("pictures").replaceChildren();
  clearProblem(byId("image-problem"));
  show(null);
}

// --- adding --------------------------------------------------------------------------------------

export async function addFiles(files) {
  clearProblem(byId("image-problem"));
  for (const file of files) {
    const { images, image_bytes: bytes } = settings.limits;
    if (pictures.length >= images) {
      problem(`${file.name}: a study has at most ${images} images. Remove one first.`);
      return;
    }
    if (file.size > bytes) {
      problem(`${file.name} has ${readable(file.size)}, at most ${readable(bytes)} are taken. Save it smaller.`);
      continue;
    }
    await addPicture(file);
  }
}

const problem = (message) => showProblem(byId("image-problem"), { message });

async function addPicture(file) {
  const picture = { name: file.name, data: await readFile(file), role: nextRole(), window: null };
  pictures.push(picture);
  picture.card = makeCard(picture);
  byId("pictures").append(picture.card.item);
  await preview(picture);
}

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// The first image is usually frontal, the second lateral, the third of a prior study.
function nextRole() {
  const { roles } = settings;
  const wanted = ["frontal", "lateral", "prior"][Math.min(pictures.length, 2)];
  return roles.find((role) => role.toLowerCase().startsWith(wanted)) ?? roles[0];
}

async function preview(picture) {
  const body = { data: picture.data };
  if (picture.window) {
    body.window_center = picture.window.center;
    body.window_width = picture.window.width;
  }
  clearProblem(picture.card.problem);
  try {
    const answer = await ask("/v1/images", body);
    picture.stored ??= answer.window;
    picture.preview = answer;
    picture.card.thumbnail.src = answer.png;
    picture.card.facts.textContent = `${answer.kind}, ${answer.width} × ${answer.height}`;
    if (!current || picture === current) show(picture, picture === current);
  } catch (error) {
    showProblem(picture.card.problem, error, error.status === 0 || error.status === 401 ? () => preview(picture) : null);
  }
  changed();
}

// --- cards ---------------------------------------------------------------------------------------

function makeCard(picture) {
  const item = make("li", "picture");
  const open = make("button", "thumbnail-button");
  open.type = "button";
  open.setAttribute("aria-label", `Show ${picture.name}`);
  const thumbnail = make("img", "thumbnail");
  thumbnail.alt = "";
  open.append(thumbnail);
  open.addEventListener("click", () => picture.preview && show(picture));
  const facts = make("span", "note");
  const words = make("div", "words");
  words.append(make("span", "name", picture.name), facts);
  const role = makeRoles(picture);
  const remove = make("button", "remove", "✕");
  remove.type = "button";
  remove.setAttribute("aria-label", `Remove ${picture.name}`);
  remove.addEventListener("click", () => removePicture(picture));
  const place = make("div", "problem");
  place.setAttribute("role", "alert");
  item.append(open, words, role, remove, place);
  return { item, open, thumbnail, facts, problem: place };
}

function makeRoles(picture) {
  const select = make("select", "role");
  select.setAttribute("aria-label", `Role of ${picture.name}`);
  for (const role of settings.roles) select.append(new Option(role, role));
  select.value = picture.role;
  select.addEventListener("change", () => {
    picture.role = select.value;
    changed();
  });
  return select;
}

function removePicture(picture) {
  pictures = pictures.filter((other) => other !== picture);
  picture.card.item.remove();
  if (picture === current) show(pictures.find((other) => other.preview) ?? null);
  byId("files").focus();
  changed();
}

// --- the one that is shown -----------------------------------------------------------------------

function show(picture, keepView = false) {
  current?.card.open.removeAttribute("aria-current");
  current = picture;
  byId("viewer").hidden = !picture;
  if (!picture) return;
  picture.card.open.setAttribute("aria-current", "true");
  byId("shown").src = picture.preview.png;
  byId("shown").alt = `${picture.role}: ${picture.name}`;
  showWindow(picture);
  if (!keepView) showWhole();
}

function showWindow(picture) {
  const { window: shown } = picture.preview;
  byId("window").hidden = !shown;
  if (!shown) return;
  byId("window-model").checked = Boolean(picture.forModel);
  const { center, width } = picture.stored;
  setSlider("center", shown.center, center - 2 * width, center + 2 * width);
  setSlider("width", shown.width, Math.max(1, width / 20), 4 * width);
}

function setSlider(name, value, least, most) {
  const slider = byId(`window-${name}`);
  Object.assign(slider, { min: Math.round(least), max: Math.round(most), step: 1 });
  if (document.activeElement !== slider) slider.value = value;
  byId(`window-${name}-text`).textContent = Math.round(value);
}

function applyWindow() {
  if (!current) return;
  const picture = current;
  const value = (name) => Number(byId(`window-${name}`).value);
  picture.window = { center: value("center"), width: Math.max(1, value("width")) };
  clearTimeout(timer);
  timer = setTimeout(() => preview(picture), WAIT);
}

for (const name of ["center", "width"]) {
  byId(`window-${name}`).addEventListener("input", (event) => {
    byId(`window-${name}-text`).textContent = event.target.value;
    applyWindow();
  });
}
byId("window-model").addEventListener("change", (event) => {
  current.forModel = event.target.checked;
  changed();
});
byId("window-stored").addEventListener("click", () => {
  current.window = null;
  preview(current);
});
byId("files").addEventListener("change", (event) => {
  addFiles([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
// The whole page takes a drop: a file that misses the field must not replace the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  addFiles([...event.dataTransfer.files]);
});
