// Puts the page to work: settings from the server, the toolbar, and what follows a change.

import { ask } from "./api.js";
import { audit, clearAudit, noteAudit } from "./audit.js";
import { clearContext, startContext } from "./context.js";
import { draft, fill, noteBasis, noteFindings, say, startDrafting, stop } from "./drafting.js";
import { retype } from "./edits.js";
import { EDITOR_KEYS, drawEditor, finishTyping } from "./editor.js";
import { clearImages, startImages } from "./images.js";
import { addKeys, showHelp, startKeys } from "./keys.js";
import { note, startLog } from "./log.js";
import { byId } from "./parts.js";
import { clearProblem, showProblem } from "./problems.js";
import { countGaps, hasLocked, toTemplate, toText } from "./report.js";
import { focusRow } from "./selection.js";
import {
  canRedo, canUndo, clear, commit, notify, onChange, redo, state, undo,
} from "./store.js";
import { startTemplates } from "./templates.js";

let typing = false; // the whole report as one text

function draw(action) {
  if (action && action !== "stopped") typing = false;
  const { report, running } = state;
  const gaps = countGaps(report);
  const locked = report.some(hasLocked);
  byId("draft-text").textContent = locked ? "Redraft the rest" : "Draft";
  byId("fill-text").textContent = gaps > 1 ? `Fill ${gaps} gaps` : "Fill the gap";
  byId("fill").hidden = !gaps;
  byId("stop").hidden = !running;
  byId("undo").disabled = !canUndo() || Boolean(running);
  byId("redo").disabled = !canRedo() || Boolean(running);
  for (const id of ["draft", "fill", "type", "audit", "new-case"]) byId(id).disabled = Boolean(running);
  byId("copy").disabled = !report.length;
  byId("stream").hidden = !running;
  byId("stream").setAttribute("aria-busy", String(Boolean(running)));
  byId("rows").hidden = Boolean(running) || typing;
  byId("whole-place").hidden = !typing;
  byId("type").setAttribute("aria-pressed", String(typing));
  byId("empty").hidden = report.length > 0 || Boolean(running) || typing;
  byId("legend").hidden = !report.length || typing;
  if (!running) byId("pass-count").textContent = "";
  drawEditor();
  noteAudit();
  noteFindings();
  note(action);
  if (action && !running && action !== "stopped") clearProblem(byId("writing-problem"));
  if (["draft", "redraft", "fill"].includes(action)) setTimeout(goToReport);
}

// Who writes a context field meanwhile keeps the focus there.
function goToReport() {
  if (!document.activeElement.matches("textarea, input:not([type=file])")) focusRow();
}

// --- the whole report as text --------------------------------------------------------------------

function toggleTyping() {
  if (state.running) return false;
  if (typing) return endTyping(true);
  typing = true;
  finishTyping();
  byId("whole").value = toTemplate(state.report);
  notify();
  byId("whole").focus();
  return true;
}

function endTyping(keep) {
  if (!typing) return false;
  typing = false;
  const { value } = byId("whole");
  if (keep && value !== toTemplate(state.report)) commit("type", retype(state.report, value), 0);
  else notify();
  focusRow();
  return true;
}

// --- the toolbar ---------------------------------------------------------------------------------

async function copy() {
  if (!state.report.length) return;
  const text = toText(state.report);
  const gaps = countGaps(state.report);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyByHand(text); // without https, or refused by the browser
  }
  say(gaps ? `Copied, with ${gaps === 1 ? "a gap" : `${gaps} gaps`} as [ ].` : "Copied.");
}

function copyByHand(text) {
  const field = document.createElement("textarea");
  const focus = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focus?.focus();
}

function newCase() {
  if (state.running) return;
  if (state.report.length && !confirm("Clear the images, the context and the report?")) return;
  typing = false;
  clear();
  clearImages();
  clearContext();
  clearAudit();
  clearProblem(byId("writing-problem"));
  byId("sample-id").value = "";
  say("");
  byId("files").focus();
}

const whenIdle = (run) => () => (state.running ? false : run());

const PAGE_KEYS = [
  { keys: ["d", "Ctrl+Enter"], words: "draft; with locked text, redraft the rest", run: () => (typing ? endTyping(true) : void draft()) },
  { keys: ["f"], words: "fill the gaps", run: () => void fill() },
  { keys: ["u", "Ctrl+z"], words: "undo", run: whenIdle(undo) },
  { keys: ["U", "Ctrl+y", "Ctrl+Z"], words: "redo", run: whenIdle(redo) },
  { keys: ["t"], words: "type the whole report, gaps as [5]", run: toggleTyping },
  { keys: ["v"], words: "audit the text", run: () => void audit() },
  { keys: ["c"], words: "copy as text", run: () => void copy() },
  { keys: ["i"], words: "add images", run: () => byId("files").focus() },
  { keys: ["?"], words: "these keys", run: showHelp },
  { keys: ["Escape"], words: "leave the text as it was", run: () => endTyping(false) },
];

// Text that is being typed is kept before anything is done to the report.
function settle() {
  finishTyping();
  endTyping(true);
}

const CLICKS = {
  draft, fill, stop, undo, redo, audit, copy,
  "new-case": newCase,
};

async function start() {
  const place = byId("page-problem");
  let settings;
  try {
    settings = await ask("/v1/settings");
  } catch (error) {
    showProblem(place, error, start);
    return;
  }
  byId("model").textContent = settings.model;
  state.mostTokens = settings.limits.gap_tokens;
  startImages(settings, noteBasis);
  startContext(settings, noteBasis);
  startDrafting(settings);
  startTemplates(settings.templates);
  startLog(settings);
  onChange(draw);
  addKeys("Page", PAGE_KEYS);
  addKeys("Sentence", EDITOR_KEYS);
  startKeys();
  for (const [id, run] of Object.entries(CLICKS)) {
    byId(id).addEventListener("click", () => {
      settle();
      run();
    });
  }
  byId("type").addEventListener("click", toggleTyping);
  byId("whole-done").addEventListener("click", () => endTyping(true));
  byId("whole-cancel").addEventListener("click", () => endTyping(false));
  byId("show-shades").addEventListener("change", (event) => {
    byId("rows").classList.toggle("without-shades", !event.target.checked);
  });
  notify();
  document.documentElement.dataset.ready = "true";
}

start();
