// The page. Every text of the records enters it as a text node or through textContent, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const LIST_STEP = 200; // documents listed at once

const state = {
  document: null, // index; what follows concerns this document
  fact: null, // index of the chosen triple
  entity: null, // index of the chosen entity
  relation: "", // id of the only relation shown, or nothing
  verdict: "", // what the gold facts say of the only facts shown, or nothing
  minimum: 0,
  sort: "score",
  descending: true,
  listed: LIST_STEP,
  rows: ROWS, // listed in the table
};
let record = null; // the chosen document

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
const percent = (share) => `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })}\u00a0%`;
const scoreOf = (triple) => (triple.missed ? "missed" : triple.score.toFixed(3));
const isShown = (triple) => triple.score >= state.minimum;
const concerns = (triple, entity) => triple.head === entity || triple.tail === entity;
const nameOf = (entity) => record.entities[entity].name || "(no name)";
const relationOf = (triple) => triple.name || triple.relation;
const titleOf = (index) => data.documents[index].title || data.documents[index].id || `Document ${index + 1}`;
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

/** Sentences that are marked for a fact: its predicted evidence, or else those on which its attention rests. */
const marksOf = (triple) => (triple.evidence ? evidenceOf(triple) : explanationOf(triple));

function evidenceOf(triple) {
  const weights = new Map(triple.explanation);
  return triple.evidence.map((sentence) => ({
    sentence,
    shade: (element) => element.style.setProperty("--weight", "1"),
    share: () =>
      html(
        "span",
        { class: "number", title: "Predicted evidence, and its share of the pair’s attention" },
        weights.has(sentence) ? `evidence ${percent(weights.get(sentence))}` : "evidence",
      ),
  }));
}

/** Sentences on which a fact's attention rests. They are shaded relative to the heaviest. */
function explanationOf(triple) {
  const heaviest = Math.max(...triple.explanation.map(([, weight]) => weight)) || 1;
  return triple.explanation.map(([sentence, weight]) => ({
    sentence,
    shade: (element) => element.style.setProperty("--weight", String(weight / heaviest)),
    share: () =>
      html(
        "span",
        { class: "number", title: "Share of the attention that the pair pays to sentences" },
        percent(weight),
      ),
  }));
}

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

// ---- The list of documents

function listDocuments() {
  const wanted = byId("search").value.trim().toLowerCase();
  const found = [...data.documents.keys()].filter((index) => {
    const { title, text, id } = data.documents[index];
    return !wanted || [title, text, id].some((value) => value.toLowerCase().includes(wanted));
  });
  byId("list").replaceChildren(
    ...found.slice(0, state.listed).map((index) => {
      const parts = [nameTag(titleOf(index)), html("span", { class: "number" })];
      return html("li", {}, html("button", { type: "button", "data-document": index }, ...parts));
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
  const predicted = data.documents.map(({ triples }) => triples.filter(({ missed }) => !missed));
  const all = predicted.reduce((sum, triples) => sum + triples.length, 0);
  const numbers = predicted.map((triples) => triples.filter(isShown).length);
  const shown = numbers.reduce((sum, number) => sum + number, 0);
  const part = shown === all ? "" : `${shown.toLocaleString("en")} of `;
  byId("summary").textContent = `${count(data.documents.length, "document")}, ${part}${count(all, "fact")}${judgement()}`;
  byId("minimum-shown").textContent = state.minimum.toFixed(2);
  for (const button of byId("list").querySelectorAll("[data-document]")) {
    setCount(button.lastChild, numbers[button.dataset.document]);
  }
}

/** In words, how the predictions that are shown compare with the gold facts, if there are any. */
function judgement() {
  const judged = data.documents.flatMap(({ triples }) => triples).filter((triple) => verdictOf(triple));
  if (!judged.length) return "";
  const gold = judged.filter(({ gold, missed }) => gold || missed).length;
  const right = judged.filter((triple) => triple.gold && isShown(triple)).length;
  const wrong = judged.filter((triple) => triple.gold === false && isShown(triple)).length;
  const numbers = [right, wrong, gold - right].map((number) => number.toLocaleString("en"));
  return `; ${numbers[0]} right, ${numbers[1]} wrong, ${numbers[2]} missed`;
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
    const mark = paintAs(
      html("mark", { "data-entity": outer.entity, title: cut(type ? `${name} (${type})` : name, 300) }),
      outer.entity,
    );
    const inner = others.filter((span) => span.start < outer.end);
    const depth = fill(
      mark,
      outer.start,
      outer.end,
      inner.map((span) => ({ ...span, end: Math.min(span.end, outer.end) })),
    );
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
  const mentions = record.entities.flatMap(({ mentions }, entity) =>
    mentions.map(([start, end]) => ({ start, end, entity })),
  );
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
  const lost = Object.entries(record.lost).map(
    ([what, number]) => `${what.replace(/^lost_/, "").replaceAll("_", " ")} ${number.toLocaleString("en")}`,
  );
  byId("lost").textContent = lost.length ? `What was lost: ${lost.join(", ")}` : "";
}

function renderEntities() {
  byId("entities-title").textContent = count(record.entities.length, "entity", "entities");
  byId("entities").replaceChildren(
    ...record.entities.map(({ type }, entity) => {
      const parts = [entityTag(entity), html("span", { class: "type" }, type), html("span", { class: "number" })];
      return html("li", {}, html("button", { type: "button", "data-entity": entity }, ...parts));
    }),
  );
  stop(byId("entities"), "button");
}

function countEntities(facts) {
  const numbers = record.entities.map(() => 0);
  for (const fact of facts) {
    const { head, tail } = record.triples[fact];
    numbers[head] += 1;
    if (tail !== head) numbers[tail] += 1;
  }
  for (const button of byId("entities").querySelectorAll("button")) {
    setCount(button.lastChild, numbers[button.dataset.entity]);
  }
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

/** Marks the chosen fact or entity everywhere. */
function mark() {
  const triple = state.fact === null ? null : record.triples[state.fact];
  document.body.dataset.chosen = triple ? "fact" : state.entity === null ? "" : "entity";
  for (const element of document.querySelectorAll("mark, #entities button, .node")) {
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
  for (const sentence of byId("text").querySelectorAll(".explains")) {
    sentence.classList.remove("explains");
    sentence.querySelector(".number").remove();
  }
  for (const { sentence, shade, share } of triple ? marksOf(triple) : []) {
    const element = byId("text").querySelector(`[data-sentence="${sentence}"]`);
    element.classList.add("explains");
    element.prepend(share());
    shade(element);
  }
  byId("choice").replaceChildren(
    ...(triple ? describeFact(triple) : state.entity === null ? [hint()] : describeEntity()),
  );
}

const hint = () =>
  html("p", { class: "hint" }, "Choose a fact in the table or the graph, or an entity, to see it in the text.");
const clearButton = () => html("button", { type: "button", "data-clear": "", "aria-label": "Clear the choice" }, "✕");

function describeFact(triple) {
  const relation = html("bdi", { class: "relation-name", dir: "auto" }, cut(relationOf(triple), 120));
  const parts = [entityTag(triple.head), " → ", relation, " → ", entityTag(triple.tail)];
  const fact = html(
    "p",
    { class: "fact" },
    ...parts,
    html("span", { class: "number" }, scoreOf(triple)),
    clearButton(),
  );
  if (!marksOf(triple).length) {
    const none = triple.evidence ? "No sentence is predicted as evidence." : "No explaining sentence was recorded.";
    const why = triple.missed ? "A gold fact that was not predicted." : none;
    return [fact, html("p", { class: "hint" }, why)];
  }
  const sentences = marksOf(triple).map(({ sentence, shade, share }) => {
    const button = html("button", { type: "button", "data-jump": sentence }, `sentence ${sentence + 1}`, share());
    shade(button);
    return button;
  });
  return [fact, html("p", { class: "sentences" }, triple.evidence ? "Evidence: " : "Attention on ", ...sentences)];
}

function describeEntity() {
  const { type, mentions } = record.entities[state.entity];
  const facts = `${type}, ${count(mentions.length, "mention")}, ${count(factsShown().length, "fact")}`;
  return [
    html("p", { class: "fact" }, entityTag(state.entity), html("span", { class: "type" }, facts), clearButton()),
  ];
}

/** Scrolls to what is chosen: in the text to a mention in the heaviest sentence, if there is one. */
function reveal() {
  const text = byId("text");
  const heaviest = state.fact === null ? null : record.triples[state.fact].explanation[0]?.[0];
  const sentence = text.querySelector(`[data-sentence="${heaviest}"]`);
  const target =
    sentence?.querySelector("mark:not([data-role=''])") ?? sentence ?? text.querySelector("mark:not([data-role=''])");
  if (state.fact === null) centre(byId("canvas").querySelector(`[data-entity="${state.entity}"]`));
  else {
    byId("rows").querySelector(`[data-fact="${state.fact}"]`)?.scrollIntoView({ block: "nearest" });
    centre(byId("canvas").querySelector(`[data-fact="${state.fact}"]`));
  }
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  target?.scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
}

/** Applies filters and choice; `later` leaves a graph of its own for the filters until these stop changing. */
function refresh(later = false) {
  if (state.fact !== null && !factsShown().includes(state.fact)) state.fact = null;
  const facts = new Set(factsShown(null));
  renderTable();
  countEntities(facts);
  clearTimeout(waiting);
  if (later && isCrowded()) waiting = setTimeout(refresh, 150);
  else renderGraph(facts);
  mark();
}
let waiting = null;

// What a click on an element with such a data attribute does, or the Enter key; each gets the attribute and the element.
const actions = {
  document(index) {
    Object.assign(state, { document: Number(index), fact: null, entity: null, relation: "", verdict: "", rows: ROWS });
    record = data.documents[state.document];
    renderText();
    renderEntities();
    renderRelations();
    renderVerdicts();
    forgetGraph();
    refresh();
    markDocument();
    for (const pane of ["scroll", "table"]) byId(pane).scrollTop = 0;
  },
  more() {
    const first = state.listed;
    state.listed += LIST_STEP;
    listDocuments();
    byId("list").children[first].firstChild.focus();
  },
  rows() {
    const first = state.rows;
    state.rows += ROWS;
    refresh();
    byId("rows").children[first].focus();
  },
  fact(fact) {
    state.fact = Number(fact);
    if (!factsShown().includes(state.fact)) state.entity = null; // an edge of the graph that is none of the entity's
    refresh();
    reveal();
  },
  entity(entity) {
    Object.assign(state, { entity: Number(entity), fact: null });
    refresh();
    reveal();
  },
  sort(column) {
    state.descending = state.sort === column ? !state.descending : column === "score";
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
  jump(sentence) {
    byId("text").querySelector(`[data-sentence="${sentence}"]`).scrollIntoView({ block: "center" });
  },
  clear() {
    back();
    byId("scroll").focus(); // the button is gone
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

function start() {
  document.title = data.title;
  byId("title").textContent = data.title;
  const triples = data.documents.flatMap((one) => one.triples);
  const hasEvidence = triples.some(({ evidence }) => evidence);
  byId("about-evidence").hidden = !hasEvidence;
  byId("about-attention").hidden = hasEvidence;
  for (const triple of triples) triple.score = Number(triple.score.toFixed(3)); // the number that is read is the one that counts
  const lowest = triples.reduce((least, { score, missed }) => (missed ? least : Math.min(least, score)), 0.5);
  state.minimum = Math.floor(lowest * 20) / 20;
  byId("minimum").min = state.minimum;
  byId("minimum").value = state.minimum;
  document.addEventListener("click", (event) => act(event.target));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && record && !event.target.matches("input, select")) back();
    // Rows and the graph's parts are no buttons to the browser.
    if (["Enter", " "].includes(event.key) && event.target.matches("tr, g") && act(event.target))
      event.preventDefault();
  });
  byId("minimum").addEventListener("input", (event) => {
    state.minimum = Number(event.target.value);
    countFacts();
    if (record) refresh(true);
  });
  for (const filter of ["relation", "verdict"])
    byId(filter).addEventListener("change", (event) => {
      state[filter] = event.target.value;
      refresh();
    });
  addEventListener("resize", () => fitted && setZoom());
  byId("search").addEventListener("input", () => {
    state.listed = LIST_STEP;
    listDocuments();
  });
  drag(byId("canvas"));
  rove(byId("list"), "button", false);
  rove(byId("entities"), "button", false);
  rove(byId("rows"), "tr", true);
  rove(byId("canvas"), "[role=button]", false);
  if (data.documents.length) actions.document(0);
  listDocuments();
}

start();
