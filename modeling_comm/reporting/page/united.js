// The page of one graph of many documents: its edges are the facts.

const state = {
  fact: null, // index of the chosen edge
  entity: null, // index of the chosen entity
  relation: "", // id of the only relation shown, or nothing
  type: "", // type of an end of the only facts shown, or nothing
  minimum: 0,
  support: 1, // documents, at least
  found: null, // what the search has found: { entities, relations }; nothing without one
  sort: "support",
  descending: true,
  listed: LIST_STEP,
  rows: ROWS, // listed in the table
};
const NOTHING = "The graph has no fact.";
const PLACES = {
  evidence: "predicted evidence",
  attention: "where its attention rests",
  mentions: "where they are mentioned",
};

/** Whether an edge passes the filters. */
const passes = (triple) =>
  isShown(triple) &&
  triple.support >= state.support &&
  (!state.relation || triple.relation === state.relation) &&
  (!state.type || typesOf(triple).includes(state.type)) &&
  (!state.found ||
    state.found.relations.has(triple.relation) ||
    [triple.head, triple.tail].some((end) => state.found.entities.has(end)));

const typesOf = (triple) => [triple.head, triple.tail].map((end) => record.entities[end].type);

/** Finds entities by any of their names, and relations. */
function search(wanted) {
  const words = folded(wanted.trim());
  const fits = (texts) => texts.some((text) => folded(text).includes(words));
  state.found = words && {
    entities: new Set([...record.entities.keys()].filter((entity) => fits(record.entities[entity].names))),
    relations: new Set(
      record.triples.filter(({ name, relation }) => fits([name, relation])).map(({ relation }) => relation),
    ),
  };
}

function renderTypes() {
  const numbers = new Map();
  for (const { type } of record.entities) numbers.set(type, (numbers.get(type) ?? 0) + 1);
  const types = [...numbers].sort(([a], [b]) => compare(a, b));
  byId("type").replaceChildren(
    html("option", { value: "" }, "all"),
    ...types.map(([type, number]) => html("option", { value: type }, `${cut(type, 60)} (${number})`)),
  );
}

// ---- The list of entities

/** Lists the entities of these facts, those with most facts first. */
function listEntities(facts) {
  const numbers = new Map();
  for (const fact of facts) {
    const { head, tail } = record.triples[fact];
    for (const end of new Set([head, tail])) numbers.set(end, (numbers.get(end) ?? 0) + 1);
  }
  const found = [...numbers.keys()]
    .filter((entity) => !state.found?.entities.size || state.found.entities.has(entity))
    .sort((a, b) => numbers.get(b) - numbers.get(a) || a - b);
  byId("list").replaceChildren(
    ...found.slice(0, state.listed).map((entity) => {
      const parts = [
        entityTag(entity),
        html("span", { class: "type" }, record.entities[entity].type),
        html("span", { class: "number" }),
      ];
      setCount(parts[2], numbers.get(entity));
      return html("li", {}, html("button", { type: "button", "data-entity": entity }, ...parts));
    }),
  );
  if (found.length > state.listed) {
    const more = `Show ${Math.min(LIST_STEP, found.length - state.listed)} more`;
    byId("list").append(html("li", {}, html("button", { type: "button", "data-more": "" }, more)));
  }
  const part = found.length === record.entities.length ? "" : `${found.length.toLocaleString("en")} of `;
  byId("matches").textContent = part + count(record.entities.length, "entity", "entities");
  const chosen = byId("list").querySelector(`[data-entity="${state.entity}"]`);
  stop(byId("list"), "button", chosen);
}

// ---- What is chosen

function describeChoice() {
  if (state.fact !== null) {
    const triple = record.triples[state.fact];
    const relation = html("bdi", { class: "relation-name", dir: "auto" }, cut(relationOf(triple), 120));
    const arrow = triple.symmetric ? " ↔ " : " → ";
    const parts = [entityTag(triple.head), arrow, relation, arrow, entityTag(triple.tail)];
    const numbers = [`score ${scoreOf(triple)}`, count(triple.support, "document")];
    if (triple.probability !== undefined) numbers.splice(1, 0, `probability ${triple.probability.toFixed(3)}`);
    return [
      html("p", { class: "fact" }, ...parts, clearButton()),
      html("p", { class: "sentences" }, numbers.join(", ")),
    ];
  }
  if (state.entity !== null) {
    const { names, type, documents } = record.entities[state.entity];
    const facts = [type, count(documents, "document"), count(factsShown().length, "fact")].filter(Boolean).join(", ");
    const others = names.slice(1).map((name) => nameTag(name));
    return [
      html("p", { class: "fact" }, entityTag(state.entity), html("span", { class: "type" }, facts), clearButton()),
      ...(others.length ? [html("p", { class: "sentences" }, "Also: ", ...others.slice(0, 20))] : []),
    ];
  }
  return [
    html(
      "p",
      { class: "hint" },
      "Choose a fact in the table or the graph to read where it was found, or an entity to see its facts.",
    ),
  ];
}

/** The sentences of the chosen edge, document by document. */
function describePlaces() {
  if (state.fact === null) return [];
  const { head, tail, places, support } = record.triples[state.fact];
  const parts = places.map(({ document, score, by, sentences, rule }) => {
    const { id, title } = data.documents[document];
    const name = html("h3", {}, nameTag(title || id, id), " ", html("span", { class: "number" }, score.toFixed(3)));
    const why = rule ? `${PLACES[by]}; it follows by the rule ${cut(rule, 200)}` : PLACES[by];
    const read = sentences.map((index) => {
      const { number, text, mentions } = data.sentences[index];
      const spans = mentions.filter(([, , entity]) => entity === head || entity === tail);
      const sentence = html(
        "p",
        { class: "sentence", dir: "auto", lang: "" },
        html("span", { class: "number" }, `sentence ${number + 1}`),
      );
      fill(
        sentence,
        text,
        0,
        text.length,
        spans.map(([start, end, entity]) => ({ start, end, entity })),
      );
      return sentence;
    });
    return html("article", {}, name, html("p", { class: "hint" }, why), ...read);
  });
  const rest = support - places.length;
  if (rest) parts.push(html("p", { class: "hint" }, `${count(rest, "more document")} not kept in this page`));
  return parts;
}

function mark() {
  byId("text").replaceChildren(...describePlaces());
  byId("choice").replaceChildren(...describeChoice());
  markChosen("mark, #list [data-entity], .node");
}

/** Scrolls to what is chosen. */
function reveal() {
  byId("scroll").scrollTop = 0;
  byId("rows").querySelector(`[data-fact="${state.fact}"]`)?.scrollIntoView({ block: "nearest" });
  const chosen = state.fact === null ? `[data-entity="${state.entity}"]` : `[data-fact="${state.fact}"]`;
  centre(byId("canvas").querySelector(chosen));
  turnTo(state.fact === null ? "facts" : "reading");
}

/** On a narrow screen the sentences are below the table, and the table below the list. */
function turnTo(pane) {
  if (matchMedia("(max-width: 1050px)").matches) byId(pane).scrollIntoView();
}

/** Applies filters and choice; `later` leaves the graph until the filters stop changing. */
function refresh(later = false) {
  const facts = factsShown(null);
  if (state.fact !== null && !factsShown().includes(state.fact)) state.fact = null;
  renderTable();
  listEntities(facts);
  clearTimeout(waiting);
  if (later) waiting = setTimeout(() => renderGraph(new Set(factsShown(null))), 150);
  else renderGraph(new Set(facts));
  mark();
}
let waiting = null;

// What else a click does, see `actions`.
Object.assign(actions, {
  more() {
    const first = state.listed;
    state.listed += LIST_STEP;
    refresh();
    byId("list").children[first].firstChild.focus();
  },
  fact(fact) {
    state.fact = Number(fact);
    if (!factsShown().includes(state.fact)) state.entity = null; // an edge of the graph that is none of the entity's
    refresh();
    reveal();
  },
  entity(entity) {
    Object.assign(state, { entity: Number(entity), fact: null, rows: ROWS });
    refresh();
    reveal();
  },
  clear() {
    back();
    byId("scroll").focus({ preventScroll: true }); // the button is gone
    turnTo("facts");
  },
});

function start() {
  document.title = data.title;
  byId("title").textContent = data.title;
  byId("summary").textContent = data.summary;
  record = data;
  for (const triple of record.triples) triple.score = Number(triple.score.toFixed(3)); // the number that is read is the one that counts
  const lowest = record.triples.reduce((least, { score }) => Math.min(least, score), 1);
  state.minimum = Math.floor(lowest * 20) / 20;
  for (const limit of ["min", "value"]) byId("minimum")[limit] = state.minimum;
  byId("support").max = record.triples.reduce((most, { support }) => Math.max(most, support), 1);
  renderRelations();
  renderTypes();
  const filter = (name, value, later = true) => {
    Object.assign(state, { [name]: value, rows: ROWS, listed: LIST_STEP });
    byId("minimum-shown").textContent = state.minimum.toFixed(2);
    refresh(later);
  };
  listen(["relation", "type"], (name, value) => filter(name, value, false));
  byId("minimum").addEventListener("input", (event) => filter("minimum", Number(event.target.value)));
  byId("support").addEventListener("input", (event) => filter("support", Number(event.target.value) || 1));
  byId("search").addEventListener("input", (event) => {
    search(event.target.value);
    filter("entity", null);
  });
  filter("fact", null, false);
}

start();
