// The page of documents.

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

const NOTHING = "No facts were found in this document.";

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

/** Whether a triple passes the filters. */
const passes = (triple) =>
  (triple.missed || isShown(triple)) &&
  (!state.relation || triple.relation === state.relation) &&
  (!state.verdict || verdictOf(triple) === state.verdict);

// ---- The list of documents

const titleOf = (index) => data.documents[index].title || data.documents[index].id || `Document ${index + 1}`;

function listDocuments() {
  const wanted = folded(byId("search").value.trim());
  const found = [...data.documents.keys()].filter((index) => {
    const { title, text, id } = data.documents[index];
    return !wanted || [title, text, id].some((value) => folded(value).includes(wanted));
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
  // Triples that say the same, such as a symmetric one in both directions, are one fact.
  const facts = (counts) =>
    data.documents.reduce((sum, { triples }) => {
      const found = triples.map((triple, index) => (counts(triple) ? (triple.same ?? index) : -1));
      return sum + new Set(found.filter((index) => index >= 0)).size;
    }, 0);
  if (!facts((triple) => verdictOf(triple))) return "";
  const gold = facts(({ gold, missed }) => gold || missed);
  const right = facts((triple) => triple.gold && isShown(triple));
  const wrong = facts((triple) => triple.gold === false && isShown(triple));
  const numbers = [right, wrong, gold - right].map((number) => number.toLocaleString("en"));
  return `; ${numbers[0]} right, ${numbers[1]} wrong, ${numbers[2]} missed`;
}

// ---- The text

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
    fill(text, record.text, at, start, within(at, start));
    const sentence = html("span", { class: "sentence", "data-sentence": number });
    fill(sentence, record.text, start, end, within(start, end));
    text.append(sentence);
    at = end;
  });
  fill(text, record.text, at, record.text.length, within(at, record.text.length));
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

// ---- What is chosen

function mark() {
  const triple = markChosen("mark, #entities button, .node");
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

function describeFact(triple) {
  const relation = html("bdi", { class: "relation-name", dir: "auto" }, cut(relationOf(triple), 120));
  const arrow = triple.symmetric ? " ↔ " : " → ";
  const parts = [entityTag(triple.head), arrow, relation, arrow, entityTag(triple.tail)];
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

// What else a click does, see `actions`.
Object.assign(actions, {
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
  jump(sentence) {
    byId("text").querySelector(`[data-sentence="${sentence}"]`).scrollIntoView({ block: "center" });
  },
  clear() {
    back();
    byId("scroll").focus(); // the button is gone
  },
});

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
  listen(["relation", "verdict"], (filter, value) => {
    state[filter] = value;
    refresh();
  });
  byId("minimum").addEventListener("input", (event) => {
    state.minimum = Number(event.target.value);
    countFacts();
    if (record) refresh(true);
  });
  byId("search").addEventListener("input", () => {
    state.listed = LIST_STEP;
    listDocuments();
  });
  rove(byId("entities"), "button", false);
  if (data.documents.length) actions.document(0);
  listDocuments();
}

start();
