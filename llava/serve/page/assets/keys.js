// The keys of the page: one table that is both obeyed and shown as help.

import { byId, make } from "./parts.js";

const groups = []; // {title, keys: [{keys, words, run}]}

// keys: as event.key, with "Ctrl+" before it (also ⌘). run(key) returns false where it does not apply.
export function addKeys(title, keys) {
  groups.push({ title, keys });
}

const nameOf = (event) => `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${
  event.shiftKey && event.key.length > 1 ? "Shift+" : ""}${event.key}`;

function isTyping(target) {
  return target.matches("textarea, select, input:not([type=range], [type=checkbox], [type=file])");
}

function takesKey(target, key) {
  if (["Enter", " "].includes(key)) return target.matches("button, summary, a, input");
  return target.matches("[type=range]") && key.startsWith("Arrow");
}

function onKey(event) {
  if (event.defaultPrevented || event.altKey || document.querySelector("dialog[open]")) return;
  const key = nameOf(event);
  const ctrl = key.startsWith("Ctrl+");
  if (!ctrl && key !== "Escape" && isTyping(event.target)) return;
  if (isTyping(event.target) && /Ctrl\+(Shift\+)?[zZyY]/.test(key)) return; // the field's own undo
  if (!ctrl && key.length === 1 && !byId("single-keys").checked) return;
  if (takesKey(event.target, event.key)) return;
  for (const { keys, run } of groups.flatMap((group) => group.keys)) {
    if (!keys.includes(key) || run(key) === false) continue;
    event.preventDefault();
    return;
  }
}

const SPOKEN = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc" };
const speak = (key) =>
  key.split(/\+(?=.)/).map((part) => SPOKEN[part] ?? part).join(" ");

function writeHelp() {
  for (const { title, keys } of groups) {
    const list = make("dl");
    for (const { keys: names, words } of keys) {
      const row = make("div");
      const term = make("dt");
      const few = names.length > 3 ? [`${names[0]} – ${names.at(-1)}`] : names.slice(0, 2);
      few.forEach((name) => term.append(make("kbd", "", speak(name)), " "));
      row.append(term, make("dd", "", words));
      list.append(row);
    }
    const group = make("section");
    group.append(make("h3", "", title), list);
    byId("help-keys").append(group);
  }
}

export function showHelp() {
  byId("help").showModal();
}

export function startKeys() {
  writeHelp();
  document.addEventListener("keydown", onKey);
  byId("show-help").addEventListener("click", showHelp);
}
