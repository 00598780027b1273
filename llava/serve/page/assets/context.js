// The request's fields: clinical context, and how the report is sampled.

import { byId, make } from "./parts.js";

let settings = null;

const spoken = (name) => {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
};

function labelled(name, input, place) {
  const label = make("label", "", spoken(name));
  input.dataset.field = name;
  label.append(input);
  place.append(label);
}

export function startContext(given, onChange) {
  settings = given;
  for (const [index, name] of settings.context_fields.entries()) {
    const input = make("textarea");
    input.rows = 1;
    input.maxLength = settings.limits.text;
    input.addEventListener("input", () => {
      countMore();
      onChange();
    });
    labelled(name, input, byId(index ? "more-context" : "context"));
  }
  const decoder = make("select");
  for (const name of settings.decoders) decoder.append(new Option(name, name));
  decoder.value = settings.defaults.decoder ?? settings.decoders[0];
  labelled("decoder", decoder, byId("sampling"));
  for (const [name, value] of Object.entries(settings.defaults)) {
    if (name !== "decoder" && name !== "seed" && (typeof value === "number" || value === null)) {
      addNumber(name, value ?? "");
    }
  }
  addNumber("seed", "");
}

function addNumber(name, value) {
  const input = make("input");
  Object.assign(input, { type: "number", step: "any", value });
  if (value === "") input.placeholder = name === "seed" ? "any" : "not set";
  labelled(name, input, byId("sampling"));
}

function countMore() {
  const filled = fields("more-context").filter((input) => input.value.trim()).length;
  byId("context-count").textContent = filled ? `${filled} filled in` : "";
}

const contextFields = () => [...fields("context"), ...fields("more-context")];
const fields = (place) => [...byId(place).querySelectorAll("[data-field]")];

export function context() {
  const filled = contextFields().filter((input) => input.value.trim());
  return Object.fromEntries(filled.map((input) => [input.dataset.field, input.value.trim()]));
}

// Only what differs from the server's own settings is sent.
export function sampling() {
  const asked = {};
  let seed = null;
  for (const { value, dataset: { field } } of fields("sampling")) {
    if (value === "") continue;
    if (field === "seed") seed = Number(value);
    else if (value !== String(settings.defaults[field] ?? "")) {
      asked[field] = field === "decoder" ? value : Number(value);
    }
  }
  return { sampling: asked, seed };
}

export function clearContext() {
  for (const input of contextFields()) input.value = "";
  countMore();
}
