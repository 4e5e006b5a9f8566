// Where everything of the picture lies: programs that only ask on the left, peers on the right, programs that others on this machine
// ask between them. d3-force finds an order with few crossings; then each column is spread so that no two labels touch.

import { type Force, forceLink, forceSimulation, forceX, forceY, type SimulationLinkDatum, type SimulationNodeDatum } from "d3-force";
import { number } from "./format";
import type { End, Link, Verdict } from "./types";

export interface Node extends SimulationNodeDatum {
  id: string; end: End; program: boolean; count: number; verdict: Verdict; column: 0 | 1 | 2; x: number; y: number;
}
export interface Edge extends SimulationLinkDatum<Node> {
  source: Node; target: Node; count: number; verdict: Verdict; ports: string[]; idle: number | null; never: boolean; unacked: number;
}
export interface Graph { nodes: Node[]; edges: Edge[]; height: number; columns: number }

const badness: Record<string, number> = { alive: 0, unsure: 1, silent: 2 };
export const worse = (a: Verdict, b: Verdict): Verdict => ((badness[b] ?? 0) > (badness[a] ?? 0) ? b : a);
export const worstFirst = (a: Link, b: Link): number => (badness[b.verdict] ?? 0) - (badness[a.verdict] ?? 0) || b.count - a.count;

const others = (n: number): End => ({ name: `${number(n)} others`, processes: 0, folded: n });

/** few folds all but so many links into one for each program, and sums stay exact. What is silent is never folded before what is not. */
export function few(links: Link[], most: number): Link[] {
  const sorted = [...links].sort(worstFirst);
  if (sorted.length <= most) return sorted;
  const kept = sorted.slice(0, most), rest = new Map<string, Link[]>();
  for (const l of sorted.slice(most)) {
    const key = `${idOf(l.from, true)} ${l.here}`;
    rest.set(key, [...(rest.get(key) ?? []), l]);
  }
  for (const group of rest.values()) kept.push(fold(group, group[0]!.from));
  if (kept.length <= 2 * most) return kept;
  return [...kept.slice(0, 2 * most - 1), fold(kept.slice(2 * most - 1), others(new Set(kept.slice(2 * most - 1).map(l => l.from.name)).size))];
}

function fold(group: Link[], from: End): Link {
  const first = group[0]!;
  if (group.length === 1) return first;
  const all: Link = { ...first, from, to: others(group.reduce((n, l) => n + Math.max(1, l.to.folded), 0)), port: "", protocol: "", count: 0, unacked: 0 };
  for (const l of group) {
    all.count += l.count;
    all.unacked += l.unacked;
    all.verdict = worse(all.verdict, l.verdict);
    all.bound_never ||= l.bound_never;
    if (l.bound_idle_seconds !== null) all.bound_idle_seconds = Math.max(all.bound_idle_seconds ?? 0, l.bound_idle_seconds);
  }
  return all;
}

const idOf = (e: End, program: boolean): string => (program ? `program ${e.name} ${e.unit ?? ""} ${e.container ?? ""} ${e.pid ?? ""}` : `peer ${e.name}`);

/** graphOf is links as nodes and edges: what two ends have in common is one edge. */
export function graphOf(links: Link[]): Graph {
  const nodes = new Map<string, Node>(), edges = new Map<string, Edge>();
  const node = (e: End, program: boolean, id: string, l: Link): Node => {
    let n = nodes.get(id);
    if (!n) nodes.set(id, (n = { id, end: e, program, count: 0, verdict: "alive", column: program ? 0 : 2, x: 0, y: 0 }));
    n.count += l.count;
    n.verdict = worse(n.verdict, l.verdict);
    return n;
  };
  for (const l of links) {
    const from = node(l.from, true, idOf(l.from, true), l);
    // What was folded is a place of its own beside each program: one for all would join what has nothing in common.
    const to = node(l.to, l.here, l.to.folded && !l.here ? `${idOf(l.to, false)} of ${from.id}` : idOf(l.to, l.here), l);
    if (l.here && to !== from) to.column = 1;
    const key = `${from.id} → ${to.id}`, e = edges.get(key);
    if (!e) {
      edges.set(key, { source: from, target: to, count: l.count, verdict: l.verdict, ports: l.port ? [l.port] : [], idle: l.bound_idle_seconds, never: l.bound_never, unacked: l.unacked });
      continue;
    }
    e.count += l.count;
    e.unacked += l.unacked;
    e.verdict = worse(e.verdict, l.verdict);
    e.never ||= l.bound_never;
    if (l.bound_idle_seconds !== null) e.idle = Math.max(e.idle ?? 0, l.bound_idle_seconds);
    if (l.port && !e.ports.includes(l.port)) e.ports.push(l.port);
  }
  const all = [...nodes.values()];
  return { nodes: all, edges: [...edges.values()].sort((a, b) => (badness[b.verdict] ?? 0) - (badness[a.verdict] ?? 0) || b.count - a.count), height: 0, columns: new Set(all.map(n => n.column)).size };
}

/** rounds are enough for a good order, and with many nodes no more than somebody waits for without noticing. */
const rounds = (nodes: number): number => Math.round(Math.max(25, Math.min(120, 2400 / nodes)));

const columnsOf = (nodes: Node[]): Node[][] => [0, 1, 2].map(c => nodes.filter(n => n.column === c).sort((a, b) => a.y - b.y));

/** apart pushes neighbours of a column away from each other: what forceCollide does, where all that collides is in a column. */
function apart(gap: number): Force<Node, Edge> {
  let columns: Node[][] = [];
  const force = () => {
    for (const column of columns) {
      column.sort((a, b) => a.y - b.y);
      for (let i = 1; i < column.length; i++) {
        const above = column[i - 1]!, below = column[i]!, lacks = gap - (below.y - above.y);
        if (lacks <= 0) continue;
        above.y -= lacks / 2;
        below.y += lacks / 2;
      }
    }
  };
  return Object.assign(force, { initialize: (nodes: Node[]) => void (columns = columnsOf(nodes)) });
}

/** arrange places a graph: x of a node is its column, y is in pixels. Nodes that were there before begin where they were. */
export function arrange(g: Graph, gap: number, before: ReadonlyMap<string, number>): void {
  g.nodes.forEach((n, i) => {
    n.x = n.column * 300;
    n.y = before.get(n.id) ?? i * 4;
  });
  forceSimulation(g.nodes)
    .force("column", forceX<Node>(n => n.column * 300).strength(1))
    .force("middle", forceY<Node>(0).strength(0.03))
    .force("edge", forceLink<Node, Edge>(g.edges).distance(1).strength(0.3))
    .force("apart", apart(gap))
    .stop()
    .tick(rounds(g.nodes.length));
  const columns = columnsOf(g.nodes);
  g.height = Math.max(3, ...columns.map(c => c.length)) * gap + gap;
  for (const column of columns) {
    const room = g.height / (column.length + 1);
    const spread = Math.max(gap, Math.min(room, 3 * gap)), top = (g.height - spread * (column.length - 1)) / 2;
    column.forEach((n, i) => (n.y = top + i * spread));
  }
}
