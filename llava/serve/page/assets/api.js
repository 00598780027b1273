// The server as the page asks it: JSON, streams of events, and errors with their remedy.

const TOKEN = "llava-token"; // of this tab, until it is closed
// For answers without a message of their own; the API's messages name their remedy.
const REMEDIES = {
  403: "Open the page at the address that the server printed.",
  413: "Choose smaller images.",
  429: "Wait a moment and try again.",
  503: "The server is full or stopping; wait a moment and try again.",
};

export class ApiError extends Error {
  constructor(status, { message, field } = {}) {
    const remedy = REMEDIES[status] ?? "Try again; if it comes back, look at the server's terminal.";
    super(message || `The server answered ${status}. ${remedy}`);
    this.status = status;
    this.field = field;
  }
}

export const setToken = (token) => sessionStorage.setItem(TOKEN, token);

async function send(path, body, signal) {
  const headers = { Accept: "application/json, text/event-stream" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal };
  if (body) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, {
      message: "The server does not answer. Check in its terminal that it still runs, then try again.",
    });
  }
  if (!response.ok) throw new ApiError(response.status, await problemOf(response));
  return response;
}

async function problemOf(response) {
  try {
    const { error, detail } = await response.json();
    return error ?? { message: typeof detail === "string" ? detail : undefined };
  } catch {
    return {};
  }
}

export async function ask(path, body, signal) {
  return (await send(path, body, signal)).json();
}

// Posts and calls onPass for each "pass"; returns what the "report" event holds.
export async function stream(path, body, onPass, signal) {
  const response = await send(path, { ...body, stream: true }, signal);
  let report = null;
  for await (const { event, data } of events(response.body)) {
    if (event === "pass") onPass(JSON.parse(data));
    if (event === "report") report = JSON.parse(data);
    if (event === "error") throw new ApiError(500, failure(data));
  }
  if (!report) throw new ApiError(0, { message: "The server stopped before the report was done. Try again." });
  return report;
}

function failure(data) {
  const { error, ...rest } = JSON.parse(data);
  return error ?? rest;
}

// Server-sent events of a body: fields by line, an empty line ends an event.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = done ? "" : blocks.pop();
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event.data) yield event;
    }
    if (done) return;
  }
}

function parseEvent(block) {
  const fields = { event: "message", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = line.match(/^(\w+):? ?(.*)$/) ?? [];
    if (name === "data") fields.data.push(value);
    if (name === "event") fields.event = value;
  }
  return { event: fields.event, data: fields.data.join("\n") };
}
