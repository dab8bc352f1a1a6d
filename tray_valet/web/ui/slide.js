// The drawing below two rings: what is used now (blue = the models' share), the limits, and between them the
// band where nothing changes. Widths are SVG attributes, since the page allows no inline style.
import { svg } from "./dom.js";
import { limitPct, livePct } from "./format.js";

const TRACK = { y: 24, height: 6 };
const LABEL_Y = 51;
const SECOND_LABEL_Y = 64;
const RING = 8; // half a ring: the picture is inset by it on both sides
const GAP = 8;

/** Redraw `place`'s picture. `measured`: {raw_pct, ours_pct} or null; limits in per cent. */
export function drawSlide(place, { measured, resume, pause }) {
  const picture = svg(
    "svg",
    { "aria-hidden": "true" },
    svg("rect", { class: "track", ...TRACK, width: "100%", rx: 3 }),
    ...(measured ? used(measured) : []),
    pause > resume && svg("rect", { class: "band", x: `${resume}%`, width: `${pause - resume}%`, y: 21, height: 12 }),
    ...(measured ? now(measured.raw_pct) : []),
  );
  const labels = [
    svg("text", { y: LABEL_Y, x: `${resume}%` }, `resume below ${limitPct(resume)}`),
    svg("text", { y: LABEL_Y, x: `${pause}%` }, `pause at ${limitPct(pause)}`),
  ];
  picture.append(...labels);
  const old = place.querySelector("svg");
  if (old) old.replaceWith(picture);
  else place.prepend(picture);
  setLabels(picture.clientWidth, labels, [resume, pause]);
}

/** Beside their rings and inside the picture; where both do not fit on a line, the second takes the next. */
function setLabels(width, [resumeLabel, pauseLabel], limits) {
  if (!width) return; // the page is not shown
  const lengths = [resumeLabel, pauseLabel].map((label) => label.getComputedTextLength());
  const wanted = [(limits[0] * width) / 100 - lengths[0] + RING, (limits[1] * width) / 100 - RING];
  const starts = wanted.map((x, nth) => Math.max(-RING, Math.min(x, width + RING - lengths[nth])));
  resumeLabel.setAttribute("x", starts[0]);
  pauseLabel.setAttribute("x", starts[1]);
  if (starts[0] + lengths[0] + GAP > starts[1]) pauseLabel.setAttribute("y", SECOND_LABEL_Y);
}

function used({ raw_pct: raw, ours_pct: ours }) {
  const blue = Math.min(ours, raw);
  return [
    svg("rect", { class: "other", ...TRACK, width: `${raw}%`, rx: 3 }),
    blue > 0 && svg("rect", { class: "m1", ...TRACK, width: `${blue}%`, rx: 3 }),
  ];
}

function now(raw) {
  const anchor = raw < 8 ? "start" : raw > 92 ? "end" : "middle";
  return [
    svg("rect", { class: "now", x: `${raw}%`, y: 17, width: 2, height: 20, rx: 1 }),
    svg("text", { x: `${raw}%`, y: 12, "text-anchor": anchor }, `now ${livePct(raw)}`),
  ];
}
