// The table of facts, the filters, and what they let through.

const ROWS = 200; // rows added to the table at once

const compare = new Intl.Collator("en", { numeric: true }).compare;
const columns = {
  head: (a, b) => compare(nameOf(a.head), nameOf(b.head)),
  relation: (a, b) => compare(relationOf(a), relationOf(b)),
  tail: (a, b) => compare(nameOf(a.tail), nameOf(b.tail)),
  score: (a, b) => a.score - b.score,
  // Of a graph of many documents: of two facts in as many documents the one with the better score is the stronger.
  support: (a, b) => a.support - b.support || a.score - b.score,
};

/** What the gold facts say of a fact: right, wrong or missed; nothing where there are none. */
const verdictOf = (triple) =>
  triple.missed ? "missed" : triple.gold === undefined ? "" : triple.gold ? "right" : "wrong";
const SIGNS = { right: "✓ ", wrong: "✗ ", missed: "", "": "" };

/** Indices of the triples that pass all filters; with an entity chosen, only its own. */
function factsShown(entity = state.entity) {
  return [...record.triples.keys()].filter((fact) => {
    const triple = record.triples[fact];
    return passes(triple) && (entity === null || concerns(triple, entity));
  });
}

function rowOf(fact) {
  const triple = record.triples[fact];
  const verdict = verdictOf(triple);
  const score = html("span", { class: "score", "data-verdict": verdict }, SIGNS[verdict] + scoreOf(triple));
  score.style.setProperty("--score", String(triple.score));
  const relation = nameTag(relationOf(triple), `${cut(relationOf(triple), 150)} (${triple.relation})`);
  const support = triple.support ? [html("span", { class: "number" }, triple.support.toLocaleString("en"))] : [];
  const cells = [entityTag(triple.head), relation, entityTag(triple.tail), ...support, score];
  return html("tr", { "data-fact": fact, "aria-selected": "false" }, ...cells.map((cell) => html("td", {}, cell)));
}

function renderTable() {
  const facts = factsShown();
  const focused = document.activeElement.closest("#rows tr")?.dataset.fact;
  const sign = state.descending ? -1 : 1;
  facts.sort((a, b) => sign * columns[state.sort](record.triples[a], record.triples[b]) || a - b);
  const listed = facts.slice(0, state.rows);
  // What is chosen in the graph has a row, however far below it would be.
  if (state.fact !== null && !listed.includes(state.fact)) listed.push(state.fact);
  byId("rows").replaceChildren(...listed.map(rowOf));
  const rest = facts.length - Math.min(facts.length, state.rows);
  byId("more").hidden = !rest;
  byId("more").textContent = `Show ${Math.min(ROWS, rest)} more of ${rest.toLocaleString("en")}`;
  for (const button of document.querySelectorAll("[data-sort]")) {
    const sorted = button.dataset.sort === state.sort;
    button.parentElement.setAttribute("aria-sort", !sorted ? "none" : state.descending ? "descending" : "ascending");
  }
  const part = facts.length === record.triples.length ? "" : `${facts.length.toLocaleString("en")} of `;
  byId("counts").textContent = `${part}${record.triples.length.toLocaleString("en")}`;
  byId("none").textContent = facts.length
    ? ""
    : record.triples.length
      ? "No fact passes the filters."
      : NOTHING;
  stop(byId("rows"), "tr");
  if (focused !== undefined) byId("rows").querySelector(`[data-fact="${focused}"]`)?.focus();
}

/** The filter by what the gold facts say, where a document has any. */
function renderVerdicts() {
  const numbers = { right: 0, wrong: 0, missed: 0 };
  const judged = record.triples.map(verdictOf).filter(Boolean);
  for (const verdict of judged) numbers[verdict] += 1;
  byId("verdict").closest("label").hidden = !judged.length;
  byId("verdict").replaceChildren(
    html("option", { value: "" }, "all"),
    ...Object.entries(numbers).map(([value, number]) => html("option", { value }, `${value} (${number})`)),
  );
}
