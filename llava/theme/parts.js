// Elements and shades that every page of the project makes the same way.

const SHADE_LIMITS = [40, 60, 80, 95]; // per cent; below the first is shade 0

export const byId = (id) => document.getElementById(id);

// Report text reaches a page through here alone: as text, never as markup.
export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export function shadeOf(confidence) {
  return SHADE_LIMITS.filter((limit) => confidence >= limit).length;
}
