// The overview: who has the memory, what is loaded, what is set aside, what happened.
import { el, replace, svg } from "./dom.js";
import { duration, size, sizeOf, timeOfDay, whole } from "./format.js";
import { icon } from "./icons.js";

const FEW_ENTRIES = 8;
const LOOK_OF_FACT = {
  models_set_aside: ["hold", "hold"],
  hold_placed: ["hold", "hold"],
  models_brought_back: ["run", "run"],
  model_loaded: ["run", "check"],
  model_unloaded: ["", "unload"],
  game_started: ["", "game"],
  game_ended: ["", "game"],
  valet_started: ["", "bell"],
  settings_applied: ["", "sliders"],
};
const byId = (id) => document.getElementById(id);

export class Overview {
  #shown = {};
  #isWhole = false;
  #entries = [];
  #problems = new Map(); // model → why its unloading failed

  /** `unload(model)` resolves when it is gone, or rejects with the reason. */
  constructor({ unload }) {
    this.unload = unload;
    byId("activity-all").addEventListener("click", () => {
      this.#isWhole = !this.#isWhole;
      this.showActivity(this.#entries);
    });
  }

  showMemory(memory) {
    if (!this.#isNew("memory", memory)) return;
    byId("gpu-name").textContent = memory.gpu_names.join(", ");
    replace(byId("memory"), memory.vram ? bar("VRAM", memory.vram) : noGpu(memory), memory.ram && bar("RAM", memory.ram));
  }

  showModels(status) {
    const { models, loading, to_bring_back: aside } = status;
    if (!this.#isNew("models", [models, loading, aside, [...this.#problems]])) return;
    byId("models-total").textContent = models.length ? `${total(models)} in total` : "";
    const rows = [
      ...models.map((model) => this.#loadedRow(model)),
      ...loading.map((model) => row(model, ["loading…"], "")),
    ];
    const columns = ["Model", "Memory", "Context", "Unloads in", ""];
    replace(byId("models"), rows.length ? table(columns, rows) : blank("No model is in memory."));
    byId("models-group").hidden = aside.length > 0 && rows.length === 0;
    byId("aside-group").hidden = aside.length === 0;
    byId("aside-total").textContent = aside.length ? `${total(aside)}, comes back as it was` : "";
    const kept = aside.map((model) => row(model, [size(model.size_mb), context(model)]));
    replace(byId("aside"), table(["Model", "Memory", "Context"], kept));
  }

  showActivity(entries) {
    this.#entries = entries;
    byId("activity-all").hidden = entries.length <= FEW_ENTRIES;
    byId("activity-all").textContent = this.#isWhole ? "Show fewer" : "Show all";
    const listed = this.#isWhole ? entries : entries.slice(0, FEW_ENTRIES);
    if (!this.#isNew("activity", listed.map((entry) => entry.id).concat(this.#isWhole))) return;
    replace(byId("activity"), listed.length ? el("ol", { class: "log" }, ...listed.map(entryLine)) : blank("Nothing has happened yet."));
  }

  #loadedRow(model) {
    const key = `${model.provider}/${model.name}`;
    const problem = this.#problems.get(key);
    const button = el("button", { type: "button", class: "btn", "data-key": `unload ${key}`, "aria-label": `Unload ${model.name}` }, "Unload");
    button.addEventListener("click", async () => {
      button.disabled = true;
      this.#problems.delete(key);
      try {
        await this.unload(model);
      } catch (error) {
        this.#problems.set(key, error.message);
      }
      button.disabled = false;
    });
    const left = model.ttl_left_seconds === null ? "–" : duration(Math.max(0, model.ttl_left_seconds));
    const end = problem ? [button, errorLine(problem)] : [button];
    return row(model, [size(model.size_mb), context(model), left], end);
  }

  #isNew(part, value) {
    const text = JSON.stringify(value);
    const isNew = this.#shown[part] !== text;
    this.#shown[part] = text;
    return isNew;
  }
}

/** “⚠ why”, under what it is about. */
export function errorLine(text, id) {
  return el("p", { class: "err", id }, icon("warn"), el("span", {}, text));
}

function bar(title, memory) {
  const label = `${title}: ${memory.parts.map((part) => `${part.name} ${size(part.size_mb)}`).join(", ")}`;
  let models = 0;
  let at = 0;
  const rects = [];
  const keys = [];
  for (const part of memory.parts) {
    const paint = paintOf(part.kind, part.kind === "model" ? (models += 1) : 0);
    const width = (100 * part.size_mb) / Math.max(1, memory.total_mb);
    if (part.kind !== "free" && width > 0) rects.push(svg("rect", { ...paint, x: `${at}%`, width: `${width}%`, height: "100%" }));
    at += width;
    if (part.size_mb > 0 || part.kind === "free") keys.push(keyLine(part, paint));
  }
  return el(
    "div",
    { class: "pad mem" },
    el("h3", {}, title),
    el("span", { class: "num dim" }, sizeOf(memory.used_mb, memory.total_mb)),
    svg("svg", { class: "bar", role: "img", "aria-label": label }, ...rects),
    el("ul", { class: "key" }, ...keys),
  );
}

function keyLine(part, paint) {
  const swatch = svg("svg", { "aria-hidden": "true" }, svg("rect", { ...paint, width: "100%", height: "100%" }));
  return el("li", {}, swatch, el("span", { class: "cut", title: part.name }, part.name), el("b", {}, size(part.size_mb)));
}

function paintOf(kind, nthModel) {
  if (kind === "model") return { class: `m${Math.min(nthModel, 3)}` };
  return kind === "game" ? { fill: "url(#hatch)" } : { class: kind };
}

function noGpu(memory) {
  const why = memory.gpu_missing_because ? ` ${memory.gpu_missing_because}` : "";
  return el("div", { class: "pad mem" }, el("h3", {}, "VRAM"), el("span", { class: "dim num" }, "not measured"), why && el("p", { class: "small dim" }, why.trim()));
}

function table(columns, rows) {
  const heads = columns.map((name, nth) => el("th", { role: "columnheader", scope: "col", class: nth ? "num" : null }, name || el("span", { class: "vh" }, "Actions")));
  return el(
    "table",
    { class: "list", role: "table" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)),
    el("tbody", { role: "rowgroup" }, ...rows),
  );
}

const LABELS = ["memory", "context", "unloads in"];

function row(model, cells, end) {
  const name = el("td", { role: "cell" }, el("div", { class: "cut", title: model.name }, model.name), el("div", { class: "small cut" }, model.provider));
  const numbers = cells.map((text, nth) => el("td", { role: "cell", class: "num", "data-label": cells.length > 1 ? LABELS[nth] : null, colspan: cells.length === 1 ? 3 : null }, text));
  const last = end === undefined ? null : el("td", { role: "cell", class: "end" }, ...[end].flat());
  return el("tr", { role: "row" }, name, ...numbers, last);
}

function entryLine(entry) {
  const [look, glyph] = entry.problem ? ["warn", "warn"] : LOOK_OF_FACT[entry.kind] ?? ["", "idle"];
  return el("li", { class: look || null }, el("time", { datetime: new Date(entry.at * 1000).toISOString() }, timeOfDay(entry.at)), icon(glyph), el("span", {}, entry.text));
}

function total(models) {
  return size(models.reduce((sum, model) => sum + model.size_mb, 0));
}

function context(model) {
  return model.context_length ? whole(model.context_length) : "–";
}

function blank(text) {
  return el("p", { class: "blank" }, text);
}
