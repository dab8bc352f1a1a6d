// The page at /docs: draws /openapi.json. Every word of the document is put in as text, never as markup.
const METHODS = ["get", "post", "put", "delete"];

function make(name, content = [], attributes = {}) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...[content].flat());
  return node;
}

const json = (value) => make("pre", make("code", JSON.stringify(value, null, 2)), { tabindex: "0" });
const nameOf = (reference) => reference.split("/").pop();

function link(reference) {
  const name = nameOf(reference);
  return make("a", name, { href: `#schema-${name}` });
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
  return make("table", make("tbody", pairs.map(([left, ...right]) => (
    make("tr", [make("th", left, { scope: "row" }), ...right.map((cell) => make("td", cell))])
  ))));
}

function fields(schema) {
  const needed = new Set(schema.required ?? []);
  return rows(Object.entries(schema.properties ?? {}).map(([name, one]) => (
    [make("code", name), typeOf(one), needed.has(name) ? "" : "optional"]
  )));
}

function exampleOf(content) {
  const kind = Object.values(content ?? {})[0];
  return kind && "example" in kind ? [json(kind.example)] : [];
}

function operation(path, method, one) {
  const inside = make("div", make("p", one.description ?? one.summary), { class: "inside" });
  if (one.parameters?.length) {
    const listed = one.parameters.map((each) => [make("code", each.name), each.in, each.description ?? ""]);
    inside.append(make("h3", "Parameters"), rows(listed));
  }
  if (one.requestBody) {
    const schema = Object.values(one.requestBody.content)[0].schema;
    inside.append(make("h3", ["Body: ", ...typeOf(schema)]), ...exampleOf(one.requestBody.content));
  }
  inside.append(make("h3", "Answers"), rows(Object.entries(one.responses).map(([status, answer]) => (
    [status, answer.description, typeOf(Object.values(answer.content ?? {})[0]?.schema)]
  ))));
  const good = Object.entries(one.responses).find(([status]) => status < "300");
  if (good) inside.append(...exampleOf(good[1].content));
  const head = [make("span", method.toUpperCase(), { class: "method" }), make("code", path), ` ${one.summary}`];
  const id = one.operationId;
  return make("details", [make("summary", head), inside], { id, "data-words": `${method} ${path} ${one.summary}`.toLowerCase() });
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
    make("section", [make("h2", tag), ...each])
  )));
  const schemas = Object.entries(api.components.schemas).map(([name, schema]) => (
    make("details", [make("summary", make("code", name)), make("div", fields(schema), { class: "inside" })], { id: `schema-${name}` })
  ));
  document.getElementById("schemas").append(make("h2", "Forms"), ...schemas);
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
