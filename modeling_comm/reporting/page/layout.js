// Where the graph's parts lie. Nothing here touches the page, and nothing is random: the same facts give the same picture.

const LABEL_HEIGHT = 16;
const CURVE_GAP = 18; // between neighbouring edges of the same two nodes
const GAP = { x: 18, y: 24 }; // at least, between two nodes
const MARGIN = 16; // around each component
const SLIGHT = 60; // pixels of a label that others may cover

/**
 * Lays out a graph: each connected component by itself, then all of them in rows.
 * nodes: [{width, height}]; edges: [{head, tail, width}], ends as indices of nodes, width of the label.
 * Returns {width, height, nodes: [{x, y}], edges: [{curve, label: {x, y}}]}: centres of nodes and labels, and of each edge the
 * four points of a cubic curve from head to tail.
 */
function layOut(nodes, edges) {
  const layout = { nodes: new Array(nodes.length), edges: new Array(edges.length) };
  const parts = components(nodes.length, edges).map((members) => arrange(members, nodes, edges));
  for (const { x, y, part } of pack(parts, layout)) {
    const move = (point) => ({ x: point.x + x, y: point.y + y });
    part.members.forEach((node, position) => (layout.nodes[node] = move(part.places[position])));
    part.edges.forEach((edge, position) => {
      const { curve, label } = part.routes[position];
      layout.edges[edge] = { curve: curve.map(move), label: move(label) };
    });
  }
  return layout;
}

/** Lays out one component: larger, within limits, until its labels have room. */
function arrange(members, allNodes, allEdges) {
  const index = new Map(members.map((node, position) => [node, position]));
  const own = [...allEdges.keys()].filter((edge) => index.has(allEdges[edge].head));
  const nodes = members.map((node) => allNodes[node]);
  const edges = own.map((edge) => {
    const { head, tail, width } = allEdges[edge];
    return { head: index.get(head), tail: index.get(tail), width };
  });
  const points = spread(nodes.length, edges);
  let places, routes;
  for (let scale = 1; scale < 1.6; scale *= 1.12) {
    places = points.map(({ x, y }) => ({ x: x * scale, y: y * scale }));
    separate(places, nodes, edges);
    routes = route(places, nodes, edges);
    if (routes.every(({ covered }) => covered < SLIGHT)) break;
  }
  const corners = [
    ...places.flatMap((place, node) => cornersOf(box(place, nodes[node].width, nodes[node].height))),
    ...routes.flatMap(({ curve, area }) => [...curve, ...cornersOf(area)]), // a curve never leaves the hull of its points
  ];
  const low = (axis) => Math.min(...corners.map((corner) => corner[axis])) - MARGIN;
  const high = (axis) => Math.max(...corners.map((corner) => corner[axis])) + MARGIN;
  const [left, top] = [low("x"), low("y")];
  const move = (point) => ({ x: point.x - left, y: point.y - top });
  return {
    members,
    edges: own,
    places: places.map(move),
    routes: routes.map(({ curve, label }) => ({ curve: curve.map(move), label: move(label) })),
    width: high("x") - left,
    height: high("y") - top,
  };
}

/** Puts components beside and below each other, in rows; sets the size of the whole and gives the corner of each. */
function pack(parts, layout) {
  const area = parts.reduce((sum, { width, height }) => sum + width * height, 0);
  const widest = Math.max(600, Math.sqrt(area * 1.5), ...parts.map(({ width }) => width));
  let [x, y, row] = [0, 0, 0];
  layout.width = 0;
  const corners = parts.map((part) => {
    if (x && x + part.width > widest) [x, y, row] = [0, y + row, 0];
    const corner = { x, y, part };
    x += part.width;
    row = Math.max(row, part.height);
    layout.width = Math.max(layout.width, x);
    return corner;
  });
  layout.height = y + row;
  return corners;
}

/** Connected components as lists of nodes, the largest first. */
function components(size, edges) {
  const group = Array.from({ length: size }, (_, node) => node);
  const find = (node) => (group[node] === node ? node : (group[node] = find(group[node])));
  for (const { head, tail } of edges) group[find(head)] = find(tail);
  const members = new Map();
  for (let node = 0; node < size; node++) {
    const root = find(node);
    members.set(root, [...(members.get(root) ?? []), node]);
  }
  return [...members.values()].sort((a, b) => b.length - a.length);
}

/**
 * Points whose distances come close to the shortest paths between the nodes: stochastic gradient descent on the stress
 * (Zheng, Pawar and Goodman 2018), with a fixed sequence in place of chance.
 */
function spread(size, edges) {
  const distance = shortestPaths(size, edges);
  const points = Array.from({ length: size }, (_, node) => {
    const angle = (2 * Math.PI * node) / size;
    return { x: 100 * Math.cos(angle), y: 100 * Math.sin(angle) };
  });
  const pairs = [];
  for (let a = 0; a < size; a++) for (let b = a + 1; b < size; b++) pairs.push([a, b]);
  if (!pairs.length) return points;
  let seed = 1;
  const draw = (limit) => (seed = (seed * 48271) % 2147483647) % limit;
  const lengths = pairs.map(([a, b]) => distance[a][b]);
  const largest = Math.max(...lengths) ** 2;
  const smallest = 0.05 * Math.min(...lengths) ** 2;
  const steps = 80;
  for (let step = 0; step < steps; step++) {
    const rate = largest * (smallest / largest) ** (step / (steps - 1));
    for (let last = pairs.length - 1; last > 0; last--) {
      const other = draw(last + 1);
      [pairs[last], pairs[other]] = [pairs[other], pairs[last]];
    }
    for (const [a, b] of pairs) {
      const wanted = distance[a][b];
      const dx = points[a].x - points[b].x;
      const dy = points[a].y - points[b].y;
      const length = Math.hypot(dx, dy) || 1e-6;
      const move = (Math.min(1, rate / wanted ** 2) * (length - wanted)) / (2 * length);
      points[a].x -= move * dx;
      points[a].y -= move * dy;
      points[b].x += move * dx;
      points[b].y += move * dy;
    }
  }
  // Names and labels are wide: the picture is made wider than high.
  for (const point of points) point.x *= 1.4;
  return points;
}

/** Lengths of the shortest paths; an edge is longer where its ends have many neighbours, or where it is one of several. */
function shortestPaths(size, edges) {
  const neighbours = Array.from({ length: size }, () => new Map());
  for (const { head, tail } of edges) {
    neighbours[head].set(tail, (neighbours[head].get(tail) ?? 0) + 1);
    neighbours[tail].set(head, (neighbours[tail].get(head) ?? 0) + 1);
  }
  const distance = neighbours.map((own, a) =>
    Array.from({ length: size }, (_, b) => {
      if (a === b) return 0;
      if (!own.has(b)) return Infinity;
      return 90 + 16 * Math.sqrt(own.size * neighbours[b].size) + 4 * (own.get(b) - 1);
    }),
  );
  for (let via = 0; via < size; via++)
    for (let a = 0; a < size; a++)
      for (let b = 0; b < size; b++) distance[a][b] = Math.min(distance[a][b], distance[a][via] + distance[via][b]);
  return distance;
}

/** Moves nodes apart that overlap, and off edges that are not theirs. */
function separate(points, nodes, edges) {
  for (let round = 0; round < 300; round++) {
    let moved = false;
    for (let a = 0; a < points.length; a++)
      for (let b = a + 1; b < points.length; b++) {
        const dx = points[b].x - points[a].x;
        const dy = points[b].y - points[a].y;
        const overlapX = (nodes[a].width + nodes[b].width) / 2 + GAP.x - Math.abs(dx);
        const overlapY = (nodes[a].height + nodes[b].height) / 2 + GAP.y - Math.abs(dy);
        if (overlapX <= 0 || overlapY <= 0) continue;
        moved = true;
        const axis = overlapX < 2 * overlapY ? "x" : "y"; // as nodes are wide, else the picture would grow in height alone
        const move = (Math.min(overlapX, overlapY) / 2 + 0.5) * ((axis === "x" ? dx : dy) < 0 ? -1 : 1);
        points[a][axis] -= move;
        points[b][axis] += move;
      }
    if (round < 60) for (const edge of edges) moved = clear(points, nodes, edge) || moved;
    if (!moved) return;
  }
}

function clear(points, nodes, { head, tail }) {
  const dx = points[tail].x - points[head].x;
  const dy = points[tail].y - points[head].y;
  const length = Math.hypot(dx, dy) || 1;
  const normal = { x: -dy / length, y: dx / length };
  let moved = false;
  points.forEach((point, node) => {
    if (node === head || node === tail) return;
    const along = ((point.x - points[head].x) * dx + (point.y - points[head].y) * dy) / length ** 2;
    if (along < 0 || along > 1) return;
    const off = (point.x - points[head].x) * normal.x + (point.y - points[head].y) * normal.y;
    const reach = (Math.abs(normal.x) * nodes[node].width + Math.abs(normal.y) * nodes[node].height) / 2 + 6;
    if (Math.abs(off) >= reach) return;
    const move = ((reach - Math.abs(off)) / 3 + 0.5) * (off < 0 ? -1 : 1);
    point.x += move * normal.x;
    point.y += move * normal.y;
    moved = true;
  });
  return moved;
}

/** Curves and labels of all edges: those between the same two nodes fan out, those from a node to itself are loops. */
function route(places, nodes, edges) {
  const bundles = new Map();
  edges.forEach(({ head, tail }, edge) => {
    const key = `${Math.min(head, tail)} ${Math.max(head, tail)}`;
    bundles.set(key, [...(bundles.get(key) ?? []), edge]);
  });
  const curves = new Array(edges.length);
  for (const bundle of bundles.values())
    bundle.forEach((edge, position) => {
      const { head, tail } = edges[edge];
      const side = position - (bundle.length - 1) / 2;
      curves[edge] =
        head === tail ? loop(places[head], nodes[head], position) : between(places, nodes, head, tail, side);
    });
  const taken = places.map((place, node) => box(place, nodes[node].width + 4, nodes[node].height + 4));
  return curves.map((curve, edge) => ({ curve, ...labelOn(curve, edges[edge].width, taken) }));
}

function box({ x, y }, width, height) {
  return { left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 };
}

const contains = (area, { x, y }) => x > area.left && x < area.right && y > area.top && y < area.bottom;

const cornersOf = ({ left, right, top, bottom }) => [
  { x: left, y: top },
  { x: right, y: bottom },
];

/** A cubic curve from one node's box to another's, on the same side of the line between them whichever is the head. */
function between(places, nodes, head, tail, side) {
  const [from, to] = [places[head], places[tail]];
  const [first, second] = head < tail ? [from, to] : [to, from];
  const length = Math.hypot(second.x - first.x, second.y - first.y) || 1;
  // A cubic reaches three quarters of the way to its two control points.
  const off = ((side * CURVE_GAP) / length) * (4 / 3);
  const control = (share) => ({
    x: from.x + share * (to.x - from.x) - (second.y - first.y) * off,
    y: from.y + share * (to.y - from.y) + (second.x - first.x) * off,
  });
  const curve = [from, control(0.3), control(0.7), to];
  const area = (node, margin) => box(places[node], nodes[node].width + margin, nodes[node].height + margin);
  return trimEnd(trimEnd(curve, area(tail, 4)).reverse(), area(head, 0)).reverse();
}

function loop({ x, y }, { width, height }, position) {
  const top = y - height / 2;
  const reach = 42 + position * 24;
  const half = Math.min(width / 2 - 6, 16);
  return [
    { x: x - half, y: top },
    { x: x - half - 14, y: top - reach },
    { x: x + half + 14, y: top - reach },
    { x: x + half, y: top - 2 },
  ];
}

function pointOn([a, b, c, d], t) {
  const [p, q, r, s] = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3];
  return { x: p * a.x + q * b.x + r * c.x + s * d.x, y: p * a.y + q * b.y + r * c.y + s * d.y };
}

const mix = (a, b, t) => ({ x: a.x + t * (b.x - a.x), y: a.y + t * (b.y - a.y) });

/** The part of a curve before `t` (de Casteljau). */
function before([a, b, c, d], t) {
  const [ab, bc, cd] = [mix(a, b, t), mix(b, c, t), mix(c, d, t)];
  const [abc, bcd] = [mix(ab, bc, t), mix(bc, cd, t)];
  return [a, ab, abc, mix(abc, bcd, t)];
}

/** The part of a curve before it enters the box in which it ends. */
function trimEnd(curve, area) {
  let [outside, inside] = [0.5, 1];
  for (let step = 0; step < 20; step++) {
    const middle = (outside + inside) / 2;
    if (contains(area, pointOn(curve, middle))) inside = middle;
    else outside = middle;
  }
  return before(curve, outside);
}

/** The place on the curve where a label covers least of what is there already; it is taken from then on. */
function labelOn(curve, width, taken) {
  let best = null;
  for (let step = 0; step < 31; step++) {
    const label = pointOn(curve, 0.5 + (step % 2 ? 0.024 : -0.024) * Math.ceil(step / 2)); // from the middle outwards
    const area = box(label, width + 6, LABEL_HEIGHT);
    const covered = taken.reduce((sum, other) => sum + overlap(area, other), 0);
    if (!best || covered < best.covered) best = { label, area, covered };
    if (!covered) break;
  }
  taken.push(best.area);
  return best;
}

function overlap(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}
