// Named templates: those of the server, and the user's own where the user saves them.

import { byId } from "./parts.js";
import { clearProblem, showProblem } from "./problems.js";
import { fromTemplate, toTemplate } from "./report.js";
import { commit, state } from "./store.js";

const STORE = "llava-templates"; // in localStorage: [{name, text}]
let given = [];

function own() {
  try {
    const saved = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return saved.filter(({ name, text }) => typeof name === "string" && typeof text === "string");
  } catch {
    return []; // what another page or an older version left is not ours to show
  }
}

const all = () => [...given, ...own()];
const chosen = () => all()[byId("template-list").selectedIndex];

function list(name) {
  const options = all().map((template) => new Option(template.name, template.name));
  byId("template-list").replaceChildren(...options);
  const index = all().findLastIndex((template) => template.name === name);
  byId("template-list").selectedIndex = Math.max(0, index);
  show();
}

function show() {
  const template = chosen();
  byId("template-preview").textContent = template?.text ?? "";
  byId("template-use").disabled = !template;
  byId("template-delete").disabled = !own().some(({ name }) => name === template?.name);
}

function use() {
  commit("template", fromTemplate(chosen().text, true), 0);
  byId("rows").querySelector("[tabindex='0']")?.focus();
}

function save() {
  const place = byId("template-problem");
  clearProblem(place);
  const name = byId("template-name").value.trim();
  const text = toTemplate(state.report);
  if (!name) return showProblem(place, { message: "The template needs a name." });
  if (!text) return showProblem(place, { message: "There is no report to save." });
  if (given.some((template) => template.name === name)) {
    return showProblem(place, { message: `“${name}” is the server's own; choose another name.` });
  }
  store([...own().filter((template) => template.name !== name), { name, text }]);
  list(name);
}

function store(templates) {
  try {
    if (templates.length) localStorage.setItem(STORE, JSON.stringify(templates));
    else localStorage.removeItem(STORE);
  } catch {
    showProblem(byId("template-problem"), { message: "This browser keeps no data for the page; copy the text instead." });
  }
}

export function startTemplates(templates) {
  given = templates;
  list();
  byId("template-list").addEventListener("change", show);
  byId("template-use").addEventListener("click", use);
  byId("template-save").addEventListener("click", save);
  byId("template-delete").addEventListener("click", () => {
    store(own().filter(({ name }) => name !== chosen().name));
    list();
  });
}
