// What is being written, and its history: the one place that holds the report.

const listeners = [];
let past = [];
let future = [];

export const state = {
  report: [],
  at: 0, // the chosen sentence
  range: null, // [first, last] of its words that are chosen, or null
  candidate: "", // the text as the model first wrote it, for the log
  own: null, // {text, basis}: the model's own report, written without a template, for the audit
  editing: null, // the sentence that is being typed
  running: null, // AbortController of a draft or fill
};

export const onChange = (listener) => listeners.push(listener);

export function notify(action = "") {
  for (const listener of listeners) listener(action);
}

const keep = (at) => Math.max(0, Math.min(at, state.report.length - 1));

// action: what was done, for the log of edits.
export function commit(action, report, at = state.at) {
  past.push({ report: state.report, at: state.at });
  future = [];
  Object.assign(state, { report, range: null, editing: null });
  state.at = keep(at);
  notify(action);
}

function travel(from, to, action) {
  const entry = from.pop();
  if (!entry) return;
  to.push({ report: state.report, at: state.at });
  Object.assign(state, { ...entry, range: null, editing: null });
  state.at = keep(state.at);
  notify(action);
}

export const undo = () => travel(past, future, "undo");
export const redo = () => travel(future, past, "redo");
export const canUndo = () => past.length > 0;
export const canRedo = () => future.length > 0;

export function choose(at, range = null) {
  state.at = keep(at);
  state.range = range;
  notify();
}

export function clear() {
  past = [];
  future = [];
  Object.assign(state, { report: [], at: 0, range: null, candidate: "", own: null, editing: null });
  notify("clear");
}
