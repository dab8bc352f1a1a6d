// The page at /docs: draws /openapi.json. Every word of the document is put in as text, never as markup.
import { el } from "./dom.js";

const METHODS = ["get", "post", "put", "delete"];

const json = (value) => el("pre", { tabindex: "0" }, el("code", {}, JSON.stringify(value, null, 2)));
const nameOf = (reference) => reference.split("/").pop();

function link(reference) {
  const name = nameOf(reference);
  return el("a", { href: `#schema-${name}` }, name);
}

function typeOf(schema) {
  if (!schema) return ["anything"];
  if (schema.$ref) return [link(schema.$ref)];
  if (schema.anyOf) return schema.anyOf.flatMap((one, at) => (at ? [" or ", ...typeOf(one)] : typeOf(one)));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items)];
  return [[schema.type ?? "anything"].flat().join(" or ")];
}

function rows(pairs) {
  return el("table", {}, el("tbody", {}, ...pairs.map(([left, ...right]) => (
    el("tr", {}, el("th", { scope: "row" }, left), ...right.map((cell) => el("td", {}, ...[cell].flat())))
  ))));
}

function fields(schema) {
  const needed = new Set(schema.required ?? []);
  return rows(Object.entries(schema.properties ?? {}).map(([name, one]) => (
    [el("code", {}, name), typeOf(one), needed.has(name) ? "" : "optional"]
  )));
}

function exampleOf(content) {
  const kind = Object.values(content ?? {})[0];
  return kind && "example" in kind ? [json(kind.example)] : [];
}

function operation(path, method, one) {
  const inside = el("div", { class: "inside" }, el("p", {}, one.description ?? one.summary));
  if (one.parameters?.length) {
    const listed = one.parameters.map((each) => [el("code", {}, each.name), each.in, each.description ?? ""]);
    inside.append(el("h3", {}, "Parameters"), rows(listed));
  }
  if (one.requestBody) {
    const schema = Object.values(one.requestBody.content)[0].schema;
    inside.append(el("h3", {}, "Body: ", ...typeOf(schema)), ...exampleOf(one.requestBody.content));
  }
  inside.append(el("h3", {}, "Answers"), rows(Object.entries(one.responses).map(([status, answer]) => (
    [status, answer.description, typeOf(Object.values(answer.content ?? {})[0]?.schema)]
  ))));
  const good = Object.entries(one.responses).find(([status]) => status < "300");
  if (good) inside.append(...exampleOf(good[1].content));
  const head = [el("span", { class: "method" }, method.toUpperCase()), el("code", {}, path), ` ${one.summary}`];
  const words = `${method} ${path} ${one.summary}`.toLowerCase();
  return el("details", { id: one.operationId, "data-words": words }, el("summary", {}, ...head), inside);
}

function draw(api) {
  document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
  document.getElementById("about").textContent = api.info.description;
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
      const tag = methods[method].tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(path, method, methods[method]));
    }
  }
  document.getElementById("operations").append(...[...groups].map(([tag, each]) => (
    el("section", {}, el("h2", {}, tag), ...each)
  )));
  const schemas = Object.entries(api.components.schemas).map(([name, schema]) => (
    el("details", { id: `schema-${name}` }, el("summary", {}, el("code", {}, name)), el("div", { class: "inside" }, fields(schema)))
  ));
  document.getElementById("schemas").append(el("h2", {}, "Forms"), ...schemas);
}

function find(text) {
  const wanted = text.trim().toLowerCase();
  for (const section of document.querySelectorAll("#operations section")) {
    for (const each of section.querySelectorAll("details")) each.hidden = !each.dataset.words.includes(wanted);
    section.hidden = !section.querySelector("details:not([hidden])");
  }
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

document.getElementById("find").addEventListener("input", (event) => find(event.target.value));
addEventListener("hashchange", openTarget);
try {
  const answer = await fetch("/openapi.json", { signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(`the valet answered ${answer.status}`);
  draw(await answer.json());
  openTarget();
} catch (error) {
  document.getElementById("about").textContent = `The description could not be read: ${error.message}.`;
}
