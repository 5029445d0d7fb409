// What the pages share. Every text of the data enters a page as a text node or through textContent, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const LIST_STEP = 200; // items of a list shown at once
let record = null; // what is shown: entities and triples

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

/** What a search compares: without capitals, invisible characters, and other ways to write the same letter. */
const folded = (text) => text.normalize("NFKC").replace(/\p{Cf}/gu, "").toLowerCase();

const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const percent = (share) => `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })}\u00a0%`;
const scoreOf = (triple) => (triple.missed ? "missed" : triple.score.toFixed(3));
const isShown = (triple) => triple.score >= state.minimum;
const concerns = (triple, entity) => triple.head === entity || triple.tail === entity;
const nameOf = (entity) => record.entities[entity].name || "(no name)";
const relationOf = (triple) => triple.name || triple.relation;
const describe = (triple) =>
  `${cut(nameOf(triple.head), 80)} – ${cut(relationOf(triple), 80)} – ${cut(nameOf(triple.tail), 80)}, ${scoreOf(triple)}`;

function setCount(element, number) {
  element.textContent = number.toLocaleString("en");
  element.setAttribute("aria-label", count(number, "fact"));
}

/** Neighbouring entities get hues that lie far apart (the golden angle). */
function paintAs(element, entity) {
  element.style.setProperty("--hue", String(Math.round((20 + entity * 137.508) % 360)));
  return element;
}

/** A name; isolated, so that its direction does not reorder what stands beside it. */
const nameTag = (name, hint = name) =>
  html("bdi", { class: "name", dir: "auto", title: cut(hint, 200) }, cut(name, 200));
const entityTag = (entity) => paintAs(nameTag(nameOf(entity)), entity);

/** Makes a group of elements one stop of the Tab key, within which the arrow keys move. */
function rove(group, selector, follow) {
  group.addEventListener("keydown", (event) => {
    const items = [...group.querySelectorAll(selector)].filter((item) => item.getClientRects().length);
    const at = items.indexOf(event.target);
    const next = {
      ArrowDown: at + 1,
      ArrowRight: at + 1,
      ArrowUp: at - 1,
      ArrowLeft: at - 1,
      Home: 0,
      End: items.length - 1,
    };
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

// ---- Text

/**
 * Fills an element with a stretch of text and its mentions, as nested elements: the longer of two mentions lies outside, and of
 * two that cross, the later is cut in two where the earlier ends. Returns how deep the nesting goes.
 */
function fill(parent, text, start, end, spans) {
  const order = (a, b) => a.start - b.start || b.end - a.end || a.entity - b.entity;
  let [at, deepest] = [start, 0];
  let waiting = [...spans].sort(order);
  while (waiting.length) {
    const [outer, ...others] = waiting;
    const { name, type } = record.entities[outer.entity];
    const mark = paintAs(
      html("mark", { "data-entity": outer.entity, title: cut(type ? `${name} (${type})` : name, 300) }),
      outer.entity,
    );
    const inner = others.filter((span) => span.start < outer.end);
    const depth = fill(
      mark,
      text,
      outer.start,
      outer.end,
      inner.map((span) => ({ ...span, end: Math.min(span.end, outer.end) })),
    );
    mark.style.setProperty("--depth", String(Math.min(depth, 4)));
    parent.append(text.slice(at, outer.start), mark);
    waiting = others
      .filter((span) => span.end > outer.end)
      .map((span) => ({ ...span, start: Math.max(span.start, outer.end) }))
      .sort(order);
    at = outer.end;
    deepest = Math.max(deepest, depth + 1);
  }
  parent.append(text.slice(at, end));
  return deepest;
}

// ---- The filter by relation

function renderRelations() {
  const numbers = new Map();
  for (const { relation, name } of record.triples)
    numbers.set(relation, { name, number: (numbers.get(relation)?.number ?? 0) + 1 });
  const options = [...numbers].map(([relation, { name, number }]) => ({
    relation,
    label: `${cut(name || relation, 60)} (${number})`,
  }));
  options.sort((a, b) => compare(a.label, b.label));
  byId("relation").replaceChildren(
    html("option", { value: "" }, "all"),
    ...options.map(({ relation, label }) => html("option", { value: relation }, label)),
  );
}

// ---- What is chosen

/** Marks the chosen fact or entity wherever it is shown; the selector has the elements that stand for an entity. */
function markChosen(selector) {
  const triple = state.fact === null ? null : record.triples[state.fact];
  document.body.dataset.chosen = triple ? "fact" : state.entity === null ? "" : "entity";
  for (const element of document.querySelectorAll(selector)) {
    const entity = Number(element.dataset.entity);
    const roles = triple
      ? ["head", "tail"].filter((end) => triple[end] === entity)
      : entity === state.entity
        ? ["chosen"]
        : [];
    element.dataset.role = roles.join(" and ");
    if (element.tagName !== "MARK") element.setAttribute("aria-pressed", String(entity === state.entity));
  }
  for (const element of document.querySelectorAll("[data-fact]")) {
    const chosen = Number(element.dataset.fact) === state.fact;
    element.setAttribute(element.tagName === "TR" ? "aria-selected" : "aria-pressed", String(chosen));
    const own = triple
      ? chosen
      : state.entity !== null && concerns(record.triples[element.dataset.fact], state.entity);
    element.classList.toggle("own", own);
  }
  return triple;
}

const clearButton = () => html("button", { type: "button", "data-clear": "", "aria-label": "Clear the choice" }, "✕");

// What a click on an element with such a data attribute does, or the Enter key, on every page; each gets the attribute and the
// element. A page adds its own.
const actions = {
  rows() {
    const first = state.rows;
    state.rows += ROWS;
    refresh();
    byId("rows").children[first].focus();
  },
  sort(column) {
    state.descending = state.sort === column ? !state.descending : ["score", "support"].includes(column);
    state.sort = column;
    state.rows = ROWS;
    refresh();
  },
  show(parts, chosen) {
    byId("facts").dataset.shown = parts;
    for (const button of byId("facts").querySelectorAll("[data-show]"))
      button.setAttribute("aria-pressed", String(button === chosen));
    setZoom();
  },
  zoom(factor) {
    setZoom(factor === "fit" ? undefined : Number(factor));
  },
};

/** True if the element, or one around it, does anything. */
function act(target) {
  const names = Object.keys(actions);
  const element = target.closest(names.map((name) => `[data-${name}]`).join());
  const name = names.find((other) => element && other in element.dataset);
  if (name) actions[name](element.dataset[name], element);
  return Boolean(name);
}

/** Takes back the choice: first of the fact, then of the entity. */
function back() {
  if (state.fact === null) state.entity = null;
  state.fact = null;
  refresh();
}

/** Lets the page answer to clicks, keys and its filters; `choose` gets the filter that was changed and its value. */
function listen(filters, choose) {
  document.addEventListener("click", (event) => act(event.target));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && record && !event.target.matches("input, select")) back();
    // Rows and the graph's parts are no buttons to the browser.
    if (["Enter", " "].includes(event.key) && event.target.matches("tr, g") && act(event.target))
      event.preventDefault();
  });
  for (const filter of filters) byId(filter).addEventListener("change", (event) => choose(filter, event.target.value));
  addEventListener("resize", () => fitted && setZoom());
  drag(byId("canvas"));
  rove(byId("list"), "button", false);
  rove(byId("rows"), "tr", true);
  rove(byId("canvas"), "[role=button]", false);
}
