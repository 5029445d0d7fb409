// The page. Every text of the records enters it as a text node or through textContent, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const LIST_STEP = 200; // documents listed at once
const LEGIBLE = 0.8; // the smallest scale at which the graph opens

const state = {
  document: null, // index; what follows concerns this document
  fact: null, // index of the chosen triple
  entity: null, // index of the chosen entity
  relation: "", // id of the only relation shown, or nothing
  minimum: 0,
  sort: "score",
  descending: true,
  listed: LIST_STEP,
};
let record = null; // the chosen document
let zoom = 1;
let canvas = null; // size of its graph, and its best connected node

// ---- Small parts

const maker =
  (namespace) =>
  (tag, attributes, ...children) => {
    const element = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
const html = maker("http://www.w3.org/1999/xhtml");
const svg = maker("http://www.w3.org/2000/svg");

function cut(text, length) {
  const characters = Array.from(text.slice(0, 2 * length + 2));
  return characters.length > length ? `${characters.slice(0, length - 1).join("")}…` : text;
}

const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const scoreOf = (triple) => triple.score.toFixed(3);
const isShown = (triple) => Number(scoreOf(triple)) >= state.minimum; // the number that is read is the one that counts
const concerns = (triple, entity) => triple.head === entity || triple.tail === entity;
const nameOf = (entity) => record.entities[entity].name || "(no name)";
const relationOf = (triple) => triple.name || triple.relation;
const titleOf = (index) => data.documents[index].title || data.documents[index].id || `Document ${index + 1}`;
const describe = (triple) => `${cut(nameOf(triple.head), 80)} – ${relationOf(triple)} – ${cut(nameOf(triple.tail), 80)}`;

/** Neighbouring entities get hues that lie far apart (the golden angle). */
function paintAs(element, entity) {
  element.style.setProperty("--hue", String(Math.round((20 + entity * 137.508) % 360)));
  return element;
}

/** An entity's name; isolated, so that its direction does not reorder what stands beside it. */
function named(entity) {
  const name = nameOf(entity);
  return paintAs(html("bdi", { class: "name", dir: "auto", title: cut(name, 300) }, name), entity);
}

/** Makes a group of elements one stop of the Tab key, within which the arrow keys move. */
function rove(group, selector, follow) {
  group.addEventListener("keydown", (event) => {
    const items = [...group.querySelectorAll(selector)].filter((item) => item.getClientRects().length);
    const at = items.indexOf(event.target);
    const next = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: items.length - 1 };
    const item = items[next[event.key]];
    if (at < 0 || !item) return;
    event.preventDefault();
    item.focus();
    if (follow) act(item);
  });
  group.addEventListener("focusin", (event) => stop(group, selector, event.target.closest(selector)));
}

/** Lets the Tab key stop at one item of the group. */
function stop(group, selector, item) {
  const items = [...group.querySelectorAll(selector)];
  const chosen = item ?? items.find((other) => !other.hasAttribute("hidden"));
  for (const other of items) other.setAttribute("tabindex", other === chosen ? "0" : "-1");
}

// ---- The list of documents

function listDocuments() {
  const wanted = byId("search").value.trim().toLowerCase();
  const found = [...data.documents.keys()].filter((index) => {
    const { title, text, id } = data.documents[index];
    return !wanted || [title, text, id].some((value) => value.toLowerCase().includes(wanted));
  });
  byId("list").replaceChildren(
    ...found.slice(0, state.listed).map((index) => {
      const name = html("bdi", { class: "name", dir: "auto" }, cut(titleOf(index), 200));
      return html("li", {}, html("button", { type: "button", "data-document": index }, name, html("span", { class: "number" })));
    }),
  );
  if (found.length > state.listed) {
    const more = `Show ${Math.min(LIST_STEP, found.length - state.listed)} more`;
    byId("list").append(html("li", {}, html("button", { type: "button", "data-more": "" }, more)));
  }
  byId("matches").textContent = wanted
    ? `${found.length.toLocaleString("en")} of ${count(data.documents.length, "document")}`
    : count(data.documents.length, "document");
  markDocument();
  countFacts();
}

function markDocument() {
  const buttons = [...byId("list").querySelectorAll("[data-document]")];
  const chosen = buttons.find((button) => Number(button.dataset.document) === state.document);
  for (const button of buttons) button.setAttribute("aria-current", String(button === chosen));
  stop(byId("list"), "button", chosen);
}

/** Numbers that depend on the slider. */
function countFacts() {
  const all = data.documents.reduce((sum, { triples }) => sum + triples.length, 0);
  const numbers = data.documents.map(({ triples }) => triples.filter(isShown).length);
  const shown = numbers.reduce((sum, number) => sum + number, 0);
  const part = shown === all ? "" : `${shown.toLocaleString("en")} of `;
  byId("summary").textContent = `${count(data.documents.length, "document")}, ${part}${count(all, "fact")}`;
  byId("minimum-shown").textContent = state.minimum.toFixed(2);
  for (const button of byId("list").querySelectorAll("[data-document]")) {
    const number = numbers[button.dataset.document];
    button.lastChild.textContent = number.toLocaleString("en");
    button.lastChild.setAttribute("aria-label", count(number, "fact"));
  }
}

// ---- The text

/**
 * Fills an element with a stretch of text and its mentions, as nested elements: the longer of two mentions lies outside, and of
 * two that cross, the later is cut in two where the earlier ends. Returns how deep the nesting goes.
 */
function fill(parent, start, end, spans) {
  const order = (a, b) => a.start - b.start || b.end - a.end || a.entity - b.entity;
  let [at, deepest] = [start, 0];
  let waiting = [...spans].sort(order);
  while (waiting.length) {
    const [outer, ...others] = waiting;
    const { name, type } = record.entities[outer.entity];
    const mark = paintAs(html("mark", { "data-entity": outer.entity, title: cut(type ? `${name} (${type})` : name, 300) }), outer.entity);
    const inner = others.filter((span) => span.start < outer.end);
    const depth = fill(mark, outer.start, outer.end, inner.map((span) => ({ ...span, end: Math.min(span.end, outer.end) })));
    mark.style.setProperty("--depth", String(Math.min(depth, 4)));
    parent.append(record.text.slice(at, outer.start), mark);
    waiting = others
      .filter((span) => span.end > outer.end)
      .map((span) => ({ ...span, start: Math.max(span.start, outer.end) }))
      .sort(order);
    at = outer.end;
    deepest = Math.max(deepest, depth + 1);
  }
  parent.append(record.text.slice(at, end));
  return deepest;
}

function renderText() {
  const mentions = record.entities.flatMap(({ mentions }, entity) => mentions.map(([start, end]) => ({ start, end, entity })));
  const within = (from, to) =>
    mentions
      .filter(({ start, end }) => start < to && end > from)
      .map((span) => ({ ...span, start: Math.max(span.start, from), end: Math.min(span.end, to) }));
  const text = byId("text");
  text.replaceChildren();
  let at = 0;
  record.sentences.forEach(([start, end], number) => {
    fill(text, at, start, within(at, start));
    const sentence = html("span", { class: "sentence", "data-sentence": number });
    fill(sentence, start, end, within(start, end));
    text.append(sentence);
    at = end;
  });
  fill(text, at, record.text.length, within(at, record.text.length));
  byId("document-title").firstChild.textContent = titleOf(state.document);
  const lost = Object.entries(record.lost).filter(([, number]) => number);
  byId("lost").textContent = lost.length
    ? `Lost in encoding: ${lost.map(([what, number]) => `${what.replace(/^lost_/, "").replaceAll("_", " ")}: ${number.toLocaleString("en")}`).join(", ")}`
    : "";
  byId("scroll").scrollTop = 0;
}

function renderEntities() {
  byId("entities-title").textContent = count(record.entities.length, "entity", "entities");
  byId("entities").replaceChildren(
    ...record.entities.map(({ type }, entity) => {
      const parts = [named(entity), html("span", { class: "type" }, type), html("span", { class: "number" })];
      return html("li", {}, html("button", { type: "button", "data-entity": entity }, ...parts));
    }),
  );
  stop(byId("entities"), "button");
}

// ---- Table and graph

function renderRelations() {
  const numbers = new Map();
  for (const { relation, name } of record.triples) numbers.set(relation, { name, number: (numbers.get(relation)?.number ?? 0) + 1 });
  const options = [...numbers].map(([relation, { name, number }]) => ({ relation, label: `${cut(name || relation, 60)} (${number})` }));
  options.sort((a, b) => compare(a.label, b.label));
  byId("relation").replaceChildren(
    html("option", { value: "" }, "all"),
    ...options.map(({ relation, label }) => html("option", { value: relation }, label)),
  );
}

const compare = new Intl.Collator("en", { numeric: true }).compare;
const columns = {
  head: (a, b) => compare(nameOf(a.head), nameOf(b.head)),
  relation: (a, b) => compare(relationOf(a), relationOf(b)),
  tail: (a, b) => compare(nameOf(a.tail), nameOf(b.tail)),
  score: (a, b) => a.score - b.score,
};

/** Indices of the triples that pass slider and relation filter; with an entity chosen, only its own. */
function factsShown(entity = state.entity) {
  return [...record.triples.keys()].filter((fact) => {
    const triple = record.triples[fact];
    return isShown(triple) && (!state.relation || triple.relation === state.relation) && (entity === null || concerns(triple, entity));
  });
}

function renderTable() {
  const facts = factsShown();
  const sign = state.descending ? -1 : 1;
  facts.sort((a, b) => sign * columns[state.sort](record.triples[a], record.triples[b]) || a - b);
  byId("rows").replaceChildren(
    ...facts.map((fact) => {
      const triple = record.triples[fact];
      const score = html("span", { class: "score" }, scoreOf(triple));
      score.style.setProperty("--score", String(triple.score));
      const relation = html("bdi", { class: "name", dir: "auto", title: `${cut(relationOf(triple), 300)} (${cut(triple.relation, 60)})` }, relationOf(triple));
      const cells = [named(triple.head), relation, named(triple.tail), score];
      return html("tr", { "data-fact": fact, "aria-selected": "false" }, ...cells.map((cell) => html("td", {}, cell)));
    }),
  );
  for (const button of document.querySelectorAll("[data-sort]")) {
    const sorted = button.dataset.sort === state.sort;
    button.parentElement.setAttribute("aria-sort", !sorted ? "none" : state.descending ? "descending" : "ascending");
  }
  const part = facts.length === record.triples.length ? "" : `${facts.length.toLocaleString("en")} of `;
  byId("counts").textContent = `${part}${record.triples.length.toLocaleString("en")}`;
  byId("none").textContent = facts.length ? "" : record.triples.length ? "No fact passes the filters." : "No facts were found in this document.";
  stop(byId("rows"), "tr");
}

const shown = (number) => Math.round(number * 10) / 10;
const pathOf = ([from, ...others]) => `M${shown(from.x)} ${shown(from.y)}C${others.map(({ x, y }) => `${shown(x)} ${shown(y)}`).join(" ")}`;

function arrowOf([, , control, end]) {
  const angle = Math.atan2(end.y - control.y, end.x - control.x);
  const corner = (turn) => ({ x: end.x - 9 * Math.cos(angle + turn), y: end.y - 9 * Math.sin(angle + turn) });
  return [end, corner(0.42), corner(-0.42)].map(({ x, y }) => `${shown(x)},${shown(y)}`).join(" ");
}

function renderGraph() {
  const ink = document.createElement("canvas").getContext("2d");
  const family = getComputedStyle(document.body).fontFamily;
  const measure = (text, size) => {
    ink.font = `${size}px ${family}`;
    return ink.measureText(text).width;
  };
  const entities = [...record.entities.keys()].filter((entity) => record.triples.some((triple) => concerns(triple, entity)));
  const index = new Map(entities.map((entity, node) => [entity, node]));
  const nodes = entities.map((entity) => {
    const label = cut(nameOf(entity), 26);
    return { label, width: Math.max(34, measure(label, 14) + 22), height: 26 };
  });
  const edges = record.triples.map((triple) => {
    const label = cut(relationOf(triple), 24);
    return { label, width: measure(label, 12), head: index.get(triple.head), tail: index.get(triple.tail) };
  });
  const apart = record.entities.length - entities.length;
  byId("apart").textContent = apart ? `${count(apart, "entity", "entities")} without a fact not drawn` : "";
  byId("canvas").replaceChildren();
  if (!entities.length) return;
  const layout = layOut(nodes, edges);
  const degrees = entities.map((entity) => record.triples.filter((triple) => concerns(triple, entity)).length);
  const middle = layout.nodes[degrees.indexOf(Math.max(...degrees))];
  canvas = { width: Math.ceil(layout.width), height: Math.ceil(layout.height), middle };
  const lines = layout.edges.map(({ curve, label }, fact) => {
    const what = `${describe(record.triples[fact])}, ${scoreOf(record.triples[fact])}`;
    return svg(
      "g",
      { class: "edge", "data-fact": fact, role: "button", "aria-pressed": "false", "aria-label": what },
      svg("title", {}, what),
      svg("path", { class: "reach", d: pathOf(curve) }),
      svg("path", { class: "line", d: pathOf(curve) }),
      svg("polygon", { points: arrowOf(curve) }),
      svg("text", { x: shown(label.x), y: shown(label.y), dy: "0.32em" }, edges[fact].label),
    );
  });
  const pills = layout.nodes.map(({ x, y }, node) => {
    const { label, width, height } = nodes[node];
    const name = cut(nameOf(entities[node]), 300);
    const pill = svg(
      "g",
      { class: "node", "data-entity": entities[node], role: "button", "aria-pressed": "false", "aria-label": cut(name, 80) },
      svg("title", {}, name),
      svg("rect", { x: shown(x - width / 2), y: shown(y - height / 2), width: shown(width), height, rx: height / 2 }),
      svg("text", { x: shown(x), y: shown(y), dy: "0.34em" }, label),
    );
    return paintAs(pill, entities[node]);
  });
  const viewBox = `0 0 ${canvas.width} ${canvas.height}`;
  byId("canvas").append(
    svg("svg", { viewBox, role: "group", "aria-label": "Entities and relations" }, ...lines, ...pills),
  );
  setZoom();
}

/** Shows those edges that pass the filters, and the nodes that have one. */
function filterGraph() {
  const facts = new Set(factsShown(null));
  const entities = new Set([...facts].flatMap((fact) => [record.triples[fact].head, record.triples[fact].tail]));
  for (const edge of byId("canvas").querySelectorAll(".edge")) edge.toggleAttribute("hidden", !facts.has(Number(edge.dataset.fact)));
  for (const node of byId("canvas").querySelectorAll(".node")) node.toggleAttribute("hidden", !entities.has(Number(node.dataset.entity)));
  for (const button of byId("entities").querySelectorAll("button")) {
    const entity = Number(button.dataset.entity);
    const number = [...facts].filter((fact) => concerns(record.triples[fact], entity)).length;
    button.lastChild.textContent = number.toLocaleString("en");
    button.lastChild.setAttribute("aria-label", count(number, "fact"));
  }
  stop(byId("canvas"), "[role=button]");
}

/** Sets the graph's scale: a factor of the present one, "fit", or by default to fit as far as that is legible. */
function setZoom(to) {
  const view = byId("canvas");
  const picture = view.firstChild;
  if (!picture) return;
  const fit = Math.min(view.clientWidth / canvas.width, view.clientHeight / canvas.height, 1);
  const before = zoom;
  zoom = to === "fit" ? fit : to ? Math.min(3, Math.max(0.2, zoom * to)) : Math.max(fit, LEGIBLE);
  const middle = to && to !== "fit"
    ? { x: (view.scrollLeft + view.clientWidth / 2) / before, y: (view.scrollTop + view.clientHeight / 2) / before }
    : canvas.middle;
  picture.setAttribute("width", Math.floor(canvas.width * zoom));
  picture.setAttribute("height", Math.floor(canvas.height * zoom));
  view.scrollTo(middle.x * zoom - view.clientWidth / 2, middle.y * zoom - view.clientHeight / 2);
}

/** Lets the pointer drag what a pane scrolls. */
function drag(pane) {
  let last = null;
  pane.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) last = event;
  });
  addEventListener("pointermove", (event) => {
    if (!last) return;
    pane.scrollBy(last.clientX - event.clientX, last.clientY - event.clientY);
    last = event;
  });
  addEventListener("pointerup", () => (last = null));
}

// ---- What is chosen

/** Marks the chosen fact or entity everywhere. */
function mark() {
  const triple = state.fact === null ? null : record.triples[state.fact];
  document.body.dataset.chosen = triple ? "fact" : state.entity === null ? "" : "entity";
  for (const element of document.querySelectorAll("mark, #entities button, .node")) {
    const entity = Number(element.dataset.entity);
    const roles = triple ? ["head", "tail"].filter((end) => triple[end] === entity) : entity === state.entity ? ["chosen"] : [];
    element.dataset.role = roles.join(" and ");
    if (element.tagName !== "MARK") element.setAttribute("aria-pressed", String(entity === state.entity));
  }
  for (const element of document.querySelectorAll("[data-fact]")) {
    const chosen = Number(element.dataset.fact) === state.fact;
    element.setAttribute(element.tagName === "TR" ? "aria-selected" : "aria-pressed", String(chosen));
    const own = triple ? chosen : state.entity !== null && concerns(record.triples[element.dataset.fact], state.entity);
    element.classList.toggle("own", own);
  }
  const weights = new Map(triple?.explanation);
  for (const sentence of byId("text").querySelectorAll(".sentence")) {
    sentence.querySelector(".weight")?.remove();
    const weight = weights.get(Number(sentence.dataset.sentence));
    sentence.classList.toggle("explains", weight !== undefined);
    if (weight === undefined) continue;
    sentence.style.setProperty("--weight", String(Math.min(weight, 1)));
    sentence.prepend(html("span", { class: "weight", title: "Share of the pair’s attention" }, weight.toFixed(2)));
  }
  byId("choice").replaceChildren(...(triple ? describeFact(triple) : state.entity === null ? [hint()] : describeEntity()));
}

const hint = () => html("p", { class: "hint" }, "Choose a fact in the table or the graph, or an entity, to see it in the text.");
const clearButton = () => html("button", { type: "button", "data-clear": "", "aria-label": "Clear the choice" }, "✕");

function describeFact(triple) {
  const relation = html("bdi", { class: "relation-name", dir: "auto" }, cut(relationOf(triple), 120));
  const fact = html("p", { class: "fact" }, named(triple.head), " → ", relation, " → ", named(triple.tail), html("span", { class: "number" }, scoreOf(triple)), clearButton());
  if (!triple.explanation.length) return [fact, html("p", { class: "hint" }, "No sentence explains this fact: none was recorded.")];
  const sentences = triple.explanation.map(([number, weight]) => {
    const button = html("button", { type: "button", "data-jump": number }, `sentence ${number + 1}`, html("span", { class: "number" }, weight.toFixed(2)));
    button.style.setProperty("--weight", String(Math.min(weight, 1)));
    return button;
  });
  return [fact, html("p", { class: "sentences" }, html("span", {}, "Attention on "), ...sentences)];
}

function describeEntity() {
  const { type, mentions } = record.entities[state.entity];
  const facts = `${type}, ${count(mentions.length, "mention")}, ${count(factsShown().length, "fact")}`;
  return [html("p", { class: "fact" }, named(state.entity), html("span", { class: "type" }, facts), clearButton())];
}

/** Scrolls to what is chosen: in the text to a mention in the heaviest sentence, if there is one. */
function reveal() {
  const text = byId("text");
  const heaviest = state.fact === null ? null : record.triples[state.fact].explanation[0]?.[0];
  const sentence = text.querySelector(`[data-sentence="${heaviest}"]`);
  const target = sentence?.querySelector("mark:not([data-role=''])") ?? sentence ?? text.querySelector("mark:not([data-role=''])");
  if (state.fact === null) centre(byId("canvas").querySelector(`[data-entity="${state.entity}"]`));
  else {
    byId("rows").querySelector(`[data-fact="${state.fact}"]`)?.scrollIntoView({ block: "nearest" });
    centre(byId("canvas").querySelector(`[data-fact="${state.fact}"]`));
  }
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  target?.scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
}

/** Scrolls the graph, and nothing around it, to a part of it. */
function centre(part) {
  const [view, area] = [byId("canvas").getBoundingClientRect(), part.getBoundingClientRect()];
  byId("canvas").scrollBy(area.x + area.width / 2 - view.x - view.width / 2, area.y + area.height / 2 - view.y - view.height / 2);
}

function refresh() {
  renderTable();
  filterGraph();
  if (state.fact !== null && !factsShown().includes(state.fact)) state.fact = null;
  mark();
}

function open(index) {
  Object.assign(state, { document: index, fact: null, entity: null, relation: "" });
  record = data.documents[index];
  renderText();
  renderEntities();
  renderRelations();
  renderGraph();
  refresh();
  markDocument();
}

/** What a click or the Enter key on an element does; true if it does anything. */
function act(target) {
  const element = target.closest("[data-document], [data-more], [data-fact], [data-entity], [data-sort], button[data-show], [data-zoom], [data-clear], [data-jump]");
  if (!element) return false;
  const { document: index, more, fact, entity, sort, show, zoom: factor, clear, jump } = element.dataset;
  if (index !== undefined) open(Number(index));
  else if (more !== undefined) {
    const first = state.listed;
    state.listed += LIST_STEP;
    listDocuments();
    byId("list").children[first].firstChild.focus();
  } else if (fact !== undefined) {
    state.fact = Number(fact);
    mark();
    reveal();
  } else if (entity !== undefined) choose(Number(entity));
  else if (sort !== undefined) {
    state.descending = state.sort === sort ? !state.descending : sort === "score";
    state.sort = sort;
    renderTable();
    mark();
  } else if (show !== undefined) {
    byId("facts").dataset.show = show;
    for (const button of byId("facts").querySelectorAll("button[data-show]")) button.setAttribute("aria-pressed", String(button === element));
    setZoom();
  } else if (factor !== undefined) setZoom(factor === "fit" ? factor : Number(factor));
  else if (clear !== undefined) back();
  else byId("text").querySelector(`[data-sentence="${jump}"]`).scrollIntoView({ block: "center" });
  return true;
}

function choose(entity) {
  Object.assign(state, { entity, fact: null });
  refresh();
  reveal();
}

/** Takes back the choice: first of the fact, then of the entity. */
function back() {
  if (state.fact === null) state.entity = null;
  state.fact = null;
  refresh();
}

function start() {
  document.title = data.title;
  byId("title").textContent = data.title;
  const lowest = data.documents.flatMap(({ triples }) => triples).reduce((least, { score }) => Math.min(least, score), 0.5);
  state.minimum = Math.floor(lowest * 20) / 20;
  byId("minimum").min = state.minimum;
  byId("minimum").value = state.minimum;
  document.addEventListener("click", (event) => act(event.target));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && record) back();
    // Rows and the graph's parts are no buttons to the browser.
    if (["Enter", " "].includes(event.key) && event.target.matches("tr, g") && act(event.target)) event.preventDefault();
  });
  byId("minimum").addEventListener("input", (event) => {
    state.minimum = Number(event.target.value);
    countFacts();
    if (record) refresh();
  });
  byId("relation").addEventListener("change", (event) => {
    state.relation = event.target.value;
    refresh();
  });
  byId("search").addEventListener("input", () => {
    state.listed = LIST_STEP;
    listDocuments();
  });
  addEventListener("resize", () => setZoom());
  drag(byId("canvas"));
  rove(byId("list"), "button", false);
  rove(byId("entities"), "button", false);
  rove(byId("rows"), "tr", true);
  rove(byId("canvas"), "[role=button]", false);
  if (data.documents.length) open(0);
  listDocuments();
}

start();
