// The graph on the page: drawing, filtering, zoom.

const MOST_EDGES = 60; // more lines are a mat in which nothing can be read
let zoom = 1;
let fitted = true; // whether the graph is as large as its place
let canvas = null; // size of the graph
let drawn = null; // indices of the facts that are drawn

const shown = (number) => Math.round(number * 10) / 10;
const pathOf = ([from, ...others]) =>
  `M${shown(from.x)} ${shown(from.y)}C${others.map(({ x, y }) => `${shown(x)} ${shown(y)}`).join(" ")}`;

function arrowOf([, , control, end]) {
  const angle = Math.atan2(end.y - control.y, end.x - control.x);
  const corner = (turn) => ({ x: end.x - 9 * Math.cos(angle + turn), y: end.y - 9 * Math.sin(angle + turn) });
  return [end, corner(0.42), corner(-0.42)].map(({ x, y }) => `${shown(x)},${shown(y)}`).join(" ");
}

/** True if a document has more facts than can be drawn; each filter then has a graph of its own. */
const isCrowded = () => record.triples.length > MOST_EDGES;

/** The facts to draw: all of the document's, or of too many the strongest that pass the filters. */
function factsToDraw() {
  if (!isCrowded()) return [...record.triples.keys()];
  const strength = (fact) => (record.triples[fact].missed ? -1 : (record.triples[fact].support ?? 0) + record.triples[fact].score);
  const strongest = factsShown().sort((a, b) => strength(b) - strength(a) || a - b);
  return strongest.slice(0, MOST_EDGES).sort((a, b) => a - b);
}

/** Lets the next drawing begin with nothing. */
function forgetGraph() {
  drawn = null;
}

/** Draws the graph, if its facts are others than before; `facts` are those that pass the filters, of any entity. */
function renderGraph(facts) {
  const wanted = factsToDraw();
  if (drawn?.join() !== wanted.join()) {
    drawn = wanted;
    drawGraph();
  }
  const passing = isCrowded() ? factsShown().length : 0;
  const apart = record.entities.length - new Set(drawn.flatMap((fact) => [record.triples[fact].head, record.triples[fact].tail])).size;
  byId("apart").textContent =
    passing > drawn.length
      ? `The ${drawn.length} strongest of ${passing.toLocaleString("en")} facts are drawn`
      : apart && !isCrowded()
        ? `${count(apart, "entity", "entities")} without a fact not drawn`
        : "";
  filterGraph(facts);
}

function drawGraph() {
  const triples = drawn.map((fact) => record.triples[fact]);
  const ink = document.createElement("canvas").getContext("2d");
  const family = getComputedStyle(document.body).fontFamily;
  const measure = (text, size) => {
    ink.font = `${size}px ${family}`;
    return ink.measureText(text).width;
  };
  const ends = new Set(triples.flatMap(({ head, tail }) => [head, tail]));
  const entities = [...record.entities.keys()].filter((entity) => ends.has(entity));
  const index = new Map(entities.map((entity, node) => [entity, node]));
  const nodes = entities.map((entity) => {
    const label = cut(nameOf(entity), 26);
    return { label, width: Math.max(34, measure(label, 14) + 22), height: 26 };
  });
  const edges = triples.map((triple) => {
    const label = cut(relationOf(triple), 24);
    return { label, width: measure(label, 12), head: index.get(triple.head), tail: index.get(triple.tail) };
  });
  byId("canvas").replaceChildren();
  if (!entities.length) return;
  const layout = layOut(nodes, edges);
  canvas = { width: Math.ceil(layout.width), height: Math.ceil(layout.height) };
  const lines = layout.edges.map(({ curve, label }, edge) => {
    const what = describe(triples[edge]);
    return svg(
      "g",
      { class: "edge", "data-fact": drawn[edge], "data-verdict": verdictOf(triples[edge]), role: "button", "aria-pressed": "false", "aria-label": what },
      svg("title", {}, what),
      svg("path", { class: "reach", d: pathOf(curve) }),
      svg("path", { class: "line", d: pathOf(curve) }),
      ...(triples[edge].symmetric ? [] : [svg("polygon", { points: arrowOf(curve) })]),
      svg("text", { x: shown(label.x), y: shown(label.y), dy: "0.32em" }, edges[edge].label),
    );
  });
  const pills = layout.nodes.map(({ x, y }, node) => {
    const { label, width, height } = nodes[node];
    const name = cut(nameOf(entities[node]), 300);
    const pill = svg(
      "g",
      {
        class: "node",
        "data-entity": entities[node],
        role: "button",
        "aria-pressed": "false",
        "aria-label": cut(name, 80),
      },
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

/** Shows these facts, and the nodes that have one. */
function filterGraph(facts) {
  const entities = new Set([...facts].flatMap((fact) => [record.triples[fact].head, record.triples[fact].tail]));
  for (const edge of byId("canvas").querySelectorAll(".edge"))
    edge.toggleAttribute("hidden", !facts.has(Number(edge.dataset.fact)));
  for (const node of byId("canvas").querySelectorAll(".node"))
    node.toggleAttribute("hidden", !entities.has(Number(node.dataset.entity)));
  stop(byId("canvas"), "[role=button]");
}

/** Sets the graph's scale: a factor of the present one, or by default as large as its place. */
function setZoom(factor) {
  const view = byId("canvas");
  const picture = view.firstChild;
  if (!picture) return;
  const fit = Math.min(view.clientWidth / canvas.width, view.clientHeight / canvas.height, 1);
  const before = zoom;
  fitted = !factor;
  zoom = fitted ? fit : Math.min(3, Math.max(Math.min(fit, 0.2), zoom * factor));
  const middle = {
    x: (view.scrollLeft + view.clientWidth / 2) / before,
    y: (view.scrollTop + view.clientHeight / 2) / before,
  };
  picture.setAttribute("width", Math.floor(canvas.width * zoom));
  picture.setAttribute("height", Math.floor(canvas.height * zoom));
  view.scrollTo(middle.x * zoom - view.clientWidth / 2, middle.y * zoom - view.clientHeight / 2);
}

/** Lets the mouse drag what a pane scrolls; the end of such a move is no click. */
function drag(pane) {
  let last = null;
  let far = 0;
  pane.addEventListener("pointerdown", (event) => {
    const held = event.pointerType === "mouse" && event.button === 0 && event.target !== pane; // not its scrollbars
    [last, far] = [held ? event : null, 0];
  });
  addEventListener("pointermove", (event) => {
    if (!last || !(event.buttons & 1)) return;
    const [x, y] = [last.clientX - event.clientX, last.clientY - event.clientY];
    pane.scrollBy(x, y);
    far += Math.abs(x) + Math.abs(y);
    last = event;
  });
  addEventListener("pointerup", () => (last = null));
  pane.addEventListener("click", (event) => far > 5 && event.stopPropagation(), true);
}

/** Scrolls the graph, and nothing around it, to a part of it, if it is drawn. */
function centre(part) {
  if (!part) return;
  const [view, area] = [byId("canvas").getBoundingClientRect(), part.getBoundingClientRect()];
  byId("canvas").scrollBy(
    area.x + area.width / 2 - view.x - view.width / 2,
    area.y + area.height / 2 - view.y - view.height / 2,
  );
}
