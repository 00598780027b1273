// Zoom and pan of the image that is shown: wheel and drag, buttons, or keys.

import { byId } from "./parts.js";

const MOST = 12;
const STEP = 1.25;
const view = { scale: 1, x: 0, y: 0 };
const frame = byId("frame");
const image = byId("shown");

function apply() {
  const room = (view.scale - 1) / 2;
  view.x = Math.max(-room, Math.min(room, view.x));
  view.y = Math.max(-room, Math.min(room, view.y));
  const { clientWidth, clientHeight } = frame;
  image.style.transform =
    `translate(${view.x * clientWidth}px, ${view.y * clientHeight}px) scale(${view.scale})`;
  frame.classList.toggle("zoomed", view.scale > 1);
  byId("zoom-text").textContent = `${Math.round(100 * view.scale)} %`;
}

// (x, y): the point that stays where it is, in shares of the frame from its middle.
function zoom(factor, x = 0, y = 0) {
  const scale = Math.max(1, Math.min(MOST, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  apply();
}

function pan(x, y) {
  view.x += x;
  view.y += y;
  apply();
}

export function showWhole() {
  Object.assign(view, { scale: 1, x: 0, y: 0 });
  apply();
}

const KEYS = {
  "+": () => zoom(STEP),
  "=": () => zoom(STEP),
  "-": () => zoom(1 / STEP),
  0: showWhole,
  ArrowLeft: () => pan(0.1, 0),
  ArrowRight: () => pan(-0.1, 0),
  ArrowUp: () => pan(0, 0.1),
  ArrowDown: () => pan(0, -0.1),
};

frame.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  event.stopPropagation();
  KEYS[event.key]();
});
frame.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = frame.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width - 0.5;
  const y = (event.clientY - box.top) / box.height - 0.5;
  zoom(Math.exp(-event.deltaY / 400), x, y);
}, { passive: false });
frame.addEventListener("pointerdown", (event) => frame.setPointerCapture(event.pointerId));
frame.addEventListener("pointermove", (event) => {
  if (!event.buttons || view.scale === 1) return;
  pan(event.movementX / frame.clientWidth, event.movementY / frame.clientHeight);
});
frame.addEventListener("dblclick", () => (view.scale > 1 ? showWhole() : zoom(2)));
byId("zoom-in").addEventListener("click", () => zoom(STEP));
byId("zoom-out").addEventListener("click", () => zoom(1 / STEP));
byId("zoom-all").addEventListener("click", showWhole);
