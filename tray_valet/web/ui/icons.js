// The glyphs, on a grid of 16. “s” is a solid shape, the rest are strokes.
import { svg } from "./dom.js";

const SHAPES = {
  bell: [["path", { d: "M2 11.5a6 6 0 0 1 12 0zM1.5 14h13M8 5.5V4M6.75 3.5h2.5" }]],
  gauge: [
    ["path", { d: "M2.2 12.2a6.3 6.3 0 1 1 11.6 0M8 9.5l2.6-3.4" }],
    ["circle", { class: "s", cx: 8, cy: 9.8, r: 1.2 }],
  ],
  sliders: [
    ["path", { d: "M2 4.5h6M12 4.5h2M2 11.5h2M8 11.5h6" }],
    ["circle", { cx: 10, cy: 4.5, r: 2 }],
    ["circle", { cx: 6, cy: 11.5, r: 2 }],
  ],
  run: [["path", { class: "s", d: "M4.8 2.9v10.2a.6.6 0 0 0 .9.5l8-5.1a.6.6 0 0 0 0-1l-8-5.1a.6.6 0 0 0-.9.5z" }]],
  hold: [["path", { class: "s", d: "M4 2.5h2.8v11H4zM9.2 2.5H12v11H9.2z" }]],
  move: [
    ["circle", { cx: 8, cy: 8, r: 5.8 }],
    ["path", { class: "s", d: "M8 2.2a5.8 5.8 0 0 1 0 11.6z" }],
  ],
  idle: [["circle", { cx: 8, cy: 8, r: 5.5 }]],
  warn: [
    ["path", { d: "M8 2 15 14H1zM8 6.5v3.5" }],
    ["circle", { class: "s", cx: 8, cy: 12, r: 0.9 }],
  ],
  check: [["path", { d: "m3 8.5 3.3 3.3L13 4.5" }]],
  game: [
    ["path", { d: "M5 4.5h6a3.5 3.5 0 0 1 3.5 3.5v2.2a2 2 0 0 1-3.6 1.2L10 10H6l-.9 1.4a2 2 0 0 1-3.6-1.2V8A3.5 3.5 0 0 1 5 4.5zM5.5 6.2v2.4M4.3 7.4h2.4" }],
    ["circle", { class: "s", cx: 10.6, cy: 7.4, r: 0.9 }],
  ],
  unload: [["path", { d: "M8 2v7M5 6.5 8 9.5l3-3M3 13h10" }]],
};

/** A glyph beside a word. */
export function icon(name) {
  return svg("svg", { class: "i", viewBox: "0 0 16 16", "aria-hidden": "true" }, ...shapesOf(name));
}

/** Draw the glyphs that the page itself asks for. */
export function drawIcons(root) {
  for (const place of root.querySelectorAll("svg[data-icon]")) place.replaceChildren(...shapesOf(place.dataset.icon));
}

function shapesOf(name) {
  return (SHAPES[name] ?? SHAPES.idle).map(([tag, attributes]) => svg(tag, attributes));
}
