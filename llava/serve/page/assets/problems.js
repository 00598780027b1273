// A problem is shown where it arose, with what to do about it.

import { byId, make } from "./parts.js";
import { setToken } from "./api.js";

export function clearProblem(place) {
  place.replaceChildren();
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

// retry: called by the button "Try again", and once a missing token was given.
export function showProblem(place, error, retry) {
  if (error.name === "AbortError") return;
  clearProblem(place);
  place.append(make("span", "", error.message[0].toUpperCase() + error.message.slice(1)));
  markField(error.field);
  if (retry) {
    const button = make("button", "", "Try again");
    button.type = "button";
    button.addEventListener("click", () => {
      clearProblem(place);
      retry();
    });
    place.append(" ", button);
  }
  if (error.status === 401) askToken(retry, place);
}

function markField(name) {
  if (!name) return;
  for (const input of document.querySelectorAll("[data-field]")) {
    if (!name.endsWith(input.dataset.field)) continue;
    input.setAttribute("aria-invalid", "true");
    const closed = input.closest("details");
    if (closed) closed.open = true;
  }
}

function askToken(retry, place) {
  const dialog = byId("token-dialog");
  if (dialog.open) return;
  byId("token").value = "";
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "ok") return;
    setToken(byId("token").value.trim());
    clearProblem(place);
    retry?.();
  }, { once: true });
  dialog.returnValue = "";
  dialog.showModal();
}
