// The reader study's log: a row for each finished case, and what was done in it.

import { ask } from "./api.js";
import { context } from "./context.js";
import { imageNames } from "./images.js";
import { byId, make } from "./parts.js";
import { clearProblem, showProblem } from "./problems.js";
import { sentenceText, toText } from "./report.js";
import { state } from "./store.js";

const CASE = ["sample_id", "images", "indication", "candidate", "final", "seconds"];
const EDIT = ["sample_id", "seconds", "action", "sentence", "text"];
const cases = [];
const edits = []; // of finished cases
let own = []; // of this case
let started = null;
let logged = true; // whether the server keeps a log
let unsaved = false;

const seconds = () => (started === null ? 0 : (performance.now() - started) / 1000);
const rounded = (value) => Number(value.toFixed(1));

export function note(action) {
  if (action === "clear") [own, started] = [[], null];
  else if (action && action !== "stopped" && state.report.length) {
    started ??= performance.now();
    const sentence = state.report[state.at];
    const text = sentence ? sentenceText(sentence) : "";
    own.push({ seconds: rounded(seconds()), action, sentence: state.at + 1, text });
  }
  showCounts();
}

function showCounts() {
  byId("seconds").textContent = seconds().toFixed(0);
  byId("edit-count").textContent = own.length;
  byId("log-count").textContent = cases.length ? `${cases.length} finished` : "";
  byId("download-cases").disabled = byId("download-edits").disabled = !cases.length;
}

async function finish() {
  const place = byId("log-problem");
  clearProblem(place);
  const sample = byId("sample-id").value.trim();
  if (!sample) {
    showProblem(place, { message: "The case needs a sample name: what the study calls it." });
    return byId("sample-id").focus();
  }
  if (!state.report.length) return showProblem(place, { message: "There is no report yet." });
  const row = {
    sample_id: sample,
    images: imageNames(),
    indication: context().indication ?? "",
    candidate: state.candidate,
    final: toText(state.report),
    seconds: rounded(seconds()),
  };
  cases.push(row);
  edits.push(...own.map((edit) => ({ sample_id: sample, ...edit })));
  unsaved = true;
  byId("log-status").textContent = `${sample}: ${row.seconds} s. ${await keep(row)} Press New case for the next.`;
  [own, started] = [[], null];
  showCounts();
}

// The server keeps a row only when it was started with a folder for it (else 404).
async function keep(row) {
  if (!logged) return "Kept in this page.";
  try {
    await ask("/v1/log", { ...row, edits: own });
    return "Logged by the server.";
  } catch (error) {
    if (error.status === 404) logged = false;
    else showProblem(byId("log-problem"), error);
    return "Kept in this page: download the CSV before you close it.";
  }
}

// Quoted always; a spreadsheet must not take text for a formula, so such text gets an apostrophe.
export function cell(value) {
  const text = Array.isArray(value) ? value.join("; ") : String(value ?? "");
  const safe = typeof value !== "number" && /^\s*[=+\-@]|^[\t\r\n]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

export const csv = (columns, rows) =>
  [columns, ...rows.map((row) => columns.map((name) => row[name]))]
    .map((row) => `${row.map(cell).join(",")}\r\n`).join("");

function download(name, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function startLog(settings) {
  logged = settings.log !== false;
  byId("finish").addEventListener("click", finish);
  byId("download-cases").addEventListener("click", () => {
    unsaved = false;
    download("cases.csv", csv(CASE, cases));
  });
  byId("download-edits").addEventListener("click", () => download("edits.csv", csv(EDIT, edits)));
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });
  setInterval(showCounts, 1000);
  showCounts();
}
