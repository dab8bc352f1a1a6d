// The limits: two rings each, and the times. A value is saved when it is let go, and “Saved” is said only
// after the valet has answered; what it refuses is said under the field, with what still applies.
import { el, replace } from "./dom.js";
import { limitPct, livePct, parseSeconds, settingS } from "./format.js";
import { icon } from "./icons.js";
import { errorLine } from "./overview.js";
import { drawSlide } from "./slide.js";

const OURS_DO_NOT_COUNT = "What your own models hold is never by itself a reason.";
const SLIDES = [
  { signal: "ram", title: "RAM", words: () => OURS_DO_NOT_COUNT, pause: "ram_pause_pct", resume: "ram_resume_pct" },
  { signal: "vram", title: "VRAM", words: () => OURS_DO_NOT_COUNT, pause: "gpu_vram_pause_pct", resume: "gpu_vram_resume_pct" },
  { signal: "cpu", title: "CPU", words: (stored) => `Counts only when it lasts ${settingS(stored.cpu_sustained_seconds)}.`, pause: "cpu_pause_pct", resume: "cpu_resume_pct" },
];
const TIMES = [
  { field: "pause_timeout_seconds", title: "Models come back after the pressure is gone", about: "So that a short dip does not bring them back too early." },
  { field: "cpu_sustained_seconds", title: "A busy CPU counts after", about: "A short peak is no reason." },
  { field: "check_interval_seconds", title: "Look at RAM, VRAM and CPU every", about: "Games are noticed at once all the same." },
];
const SWITCH = { field: "auto_resume_on_ram_pressure", title: "Resume when RAM is free again", about: "Otherwise you resume by hand." };

export class Limits {
  #stored = null;
  #signals = [];
  #fields = new Map(); // setting → { input, show, errors }
  #saved = new Map(); // group → where “Saved” stands
  #slides = [];
  #queue = Promise.resolve();

  /** `save(change)` resolves to all limits as stored, or rejects with the valet's refusal. */
  constructor(page, { save }) {
    this.page = page;
    this.save = save;
  }

  /** What is stored, and what is measured. A field that is being changed, or is wrong, is left alone. */
  show(stored, signals) {
    this.#signals = signals;
    if (stored && !this.#stored) this.#build();
    if (stored) this.#stored = stored;
    if (!this.#stored) return;
    for (const field of this.#fields.values()) field.show(this.#stored);
    this.#drawAll();
  }

  /** Nothing can be changed while the valet is gone. */
  setEnabled(isEnabled) {
    for (const { input } of this.#fields.values()) input.disabled = !isEnabled;
  }

  #build() {
    this.verdict = el("div", { class: "note plainly idle", id: "limits-verdict" });
    const slides = SLIDES.map((each) => this.#slide(each));
    const pressure = this.#group("load", "Memory and load", [...slides, this.#switch(SWITCH)]);
    const times = this.#group("times", "Times", TIMES.map((each) => this.#time(each)));
    replace(this.page, this.verdict, pressure, times);
  }

  #group(key, title, children) {
    const saved = el("span", { class: "is run small", role: "status", id: `saved-${key}` });
    this.#saved.set(key, saved);
    for (const field of this.#fields.values()) field.group ??= key;
    return el(
      "section",
      { class: "group", "aria-labelledby": `h-${key}` },
      el("header", {}, el("h2", { id: `h-${key}` }, title), saved),
      el("div", { class: "box" }, ...children),
    );
  }

  #slide(slide) {
    const output = el("output", { class: "is small" });
    const about = el("p", { class: "small dim" });
    const drawing = el("div", { class: "slide" });
    const errors = el("div", { class: "errors" });
    const rings = [
      this.#ring(slide, slide.resume, "resume below", errors),
      this.#ring(slide, slide.pause, "pause at", errors),
    ];
    drawing.append(...rings);
    this.#slides.push({ ...slide, output, about, drawing });
    return el(
      "div",
      { class: "limit", role: "group", "aria-label": slide.title },
      el("header", {}, el("h3", {}, slide.title), output),
      about,
      drawing,
      errors,
    );
  }

  #ring(slide, field, words, errors) {
    const input = el("input", { type: "range", min: 0, max: 100, step: 1, id: field, "aria-label": `${slide.title}: ${words}` });
    input.addEventListener("input", () => this.#drawAll());
    input.addEventListener("change", () => this.#change(field, Math.round(Number(input.value))));
    this.#add(field, input, errors, (stored) => {
      input.value = String(stored[field]);
    }, (value) => limitPct(value));
    return input;
  }

  #time({ field, title, about }) {
    const input = el("input", { type: "text", id: field, inputmode: "decimal", autocomplete: "off", spellcheck: "false" });
    const errors = el("div", { class: "errors wide" });
    input.addEventListener("change", () => {
      const seconds = parseSeconds(input.value);
      if (seconds === null) this.#refuse(field, `“${input.value}” is not a time. Use seconds, such as ${settingS(10)}.`);
      else this.#change(field, seconds);
    });
    this.#add(field, input, errors, (stored) => {
      if (document.activeElement !== input) input.value = settingS(stored[field]);
    }, (value) => settingS(value));
    return this.#row(field, title, about, input, errors);
  }

  #switch({ field, title, about }) {
    const input = el("input", { type: "checkbox", role: "switch", class: "switch", id: field });
    const errors = el("div", { class: "errors wide" });
    input.addEventListener("change", () => this.#change(field, input.checked));
    this.#add(field, input, errors, (stored) => {
      input.checked = stored[field];
    }, (value) => (value ? "on" : "off"));
    return this.#row(field, title, about, input, errors);
  }

  #row(field, title, about, input, errors) {
    input.setAttribute("aria-describedby", `${field}-about`);
    const words = el("div", {}, el("label", { for: field }, title), el("div", { class: "small dim", id: `${field}-about` }, about));
    return el("div", { class: "row" }, words, input, errors);
  }

  #add(name, input, errors, show, shown) {
    const field = { input, errors, shown, pending: 0, show: null, group: undefined };
    field.show = (stored) => {
      const isLeft = field.pending > 0 || input.getAttribute("aria-invalid") === "true" || input.matches(":active");
      if (!isLeft) show(stored);
    };
    this.#fields.set(name, field);
  }

  /** Save one value; one after the other, so that the last one said is the last one stored. */
  #change(name, value) {
    const field = this.#fields.get(name);
    field.pending += 1;
    this.#accept(name);
    this.#say(field.group, "");
    this.#queue = this.#queue.then(async () => {
      try {
        this.#stored = await this.save({ [name]: value });
        this.#say(field.group, "Saved");
      } catch (error) {
        this.#refuse(name, error.details?.[0]?.message ?? error.message);
      }
      field.pending -= 1;
      this.show(this.#stored, this.#signals);
    });
  }

  #refuse(name, why) {
    const { input, errors, shown, group } = this.#fields.get(name);
    this.#say(group, "");
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-errormessage", `${name}-error`);
    const line = errorLine(`${why} Still ${shown(this.#stored[name])}.`, `${name}-error`);
    line.setAttribute("role", "alert");
    errors.replaceChildren(line);
  }

  #accept(name) {
    const { input, errors } = this.#fields.get(name);
    for (const each of this.#fields.values()) {
      if (each.errors === errors) each.input.removeAttribute("aria-invalid"); // two rings share one line
    }
    input.removeAttribute("aria-errormessage");
    errors.replaceChildren();
  }

  #say(group, word) {
    replace(this.#saved.get(group), word && icon("check"), word && el("span", { class: "dim" }, word));
  }

  #drawAll() {
    for (const slide of this.#slides) {
      const measured = fullest(this.#signals.filter((each) => each.signal === slide.signal));
      const value = (field) => Number(this.#fields.get(field).input.value);
      slide.about.textContent = slide.words(this.#stored);
      drawSlide(slide.drawing, { measured, resume: value(slide.resume), pause: value(slide.pause) });
      replace(slide.output, ...verdictOf(slide, measured));
      for (const field of [slide.resume, slide.pause]) this.#fields.get(field).input.setAttribute("aria-valuetext", limitPct(value(field)));
    }
    this.#drawVerdict();
  }

  #drawVerdict() {
    const counting = this.#signals.filter((each) => each.counts);
    const nearest = fullest(this.#signals.filter((each) => !each.breached));
    const ours = this.#signals.filter((each) => each.breached && !each.counts && each.signal !== "cpu");
    this.verdict.hidden = this.#signals.length === 0;
    this.verdict.className = `note plainly ${counting.length ? "hold" : "idle"}`;
    const head = counting.length
      ? `With these limits ${counting.map(nameOf).join(" and ")} pauses now.`
      : "With these limits nothing pauses now.";
    const lines = [
      !counting.length && nearest && `The nearest is ${nameOf(nearest)}: it is at ${livePct(nearest.raw_pct)} and pauses at ${limitPct(nearest.pause_pct)}.`,
      ...ours.map((each) => `${nameOf(each)} is ${limitPct(Math.round(each.raw_pct))} full, but other programs want no more than before: that does not pause them.`),
    ].filter(Boolean);
    replace(this.verdict, icon(counting.length ? "hold" : "check"), el("p", {}, el("b", {}, head), ` ${lines.join(" ")}`));
  }
}

/** The signal that is closest to its limit; several GPUs have one each. */
function fullest(signals) {
  const distance = (signal) => signal.pause_pct - signal.raw_pct;
  return signals.reduce((best, each) => (best && distance(best) <= distance(each) ? best : each), null);
}

function nameOf(signal) {
  return signal.gpu ? `VRAM of ${signal.gpu}` : signal.signal.toUpperCase();
}

function verdictOf(slide, measured) {
  if (!measured) return [el("span", { class: "dim" }, slide.signal === "vram" ? "No GPU is measured" : "Not measured yet")];
  if (measured.counts) return [icon("hold"), el("span", {}, "Pauses now")];
  if (measured.breached) return [icon("idle"), el("span", { title: measured.why }, "At its limit, but no reason")];
  return [icon("check"), el("span", {}, "Fine")];
}
