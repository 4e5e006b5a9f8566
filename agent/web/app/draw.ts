// The picture on its canvas.

import { number } from "./format";
import type { Edge, Graph, Node } from "./layout";

/** Frame is the picture in pixels, of which the canvas shows what is below top. */
export interface Frame { width: number; top: number; narrow: boolean; at: (n: Node) => { x: number; y: number }; wide: (e: Edge) => number }

/** frameOf says where columns are on a canvas of this width, and how thick edges are. */
export function frameOf(g: Graph, width: number): Frame {
  const narrow = width < 640, side = narrow ? 14 : Math.min(230, width * 0.24);
  const xs = [side, width / 2, width - side], most = Math.max(1, ...g.edges.map(e => e.count));
  return { width, top: 0, narrow, at: n => ({ x: xs[n.column]!, y: n.y }), wide: e => 1.25 + 14.75 * Math.sqrt(e.count / most) * (most < 16 ? Math.sqrt(most) / 4 : 1) };
}

type Curve = [number, number, number, number, number, number, number, number];

function curve(f: Frame, e: Edge): Curve {
  const a = f.at(e.source), b = f.at(e.target);
  if (e.source === e.target) return [a.x, a.y - 4, a.x + 60, a.y - 34, a.x + 60, a.y + 34, a.x, a.y + 4];
  const bend = a.x === b.x ? 70 : (b.x - a.x) / 2;
  return a.x === b.x ? [a.x, a.y, a.x + bend, a.y, b.x + bend, b.y, b.x, b.y] : [a.x, a.y, a.x + bend, a.y, b.x - bend, b.y, b.x, b.y];
}

function point([x0, y0, x1, y1, x2, y2, x3, y3]: Curve, t: number): { x: number; y: number } {
  const u = 1 - t, a = u * u * u, b = 3 * u * u * t, c = 3 * u * t * t, d = t * t * t;
  return { x: a * x0 + b * x1 + c * x2 + d * x3, y: a * y0 + b * y1 + c * y2 + d * y3 };
}

/** places are those of a curve, from 0 to 1, that may be near x: of one that runs from left to right a few around where it has that x. */
function places(c: Curve, x: number): number[] {
  const all = 48;
  let from = 1, to = all;
  if (c[0] < c[6]) {
    if (x < c[0] || x > c[6]) return [];
    while (to - from > 1) {
      const middle = (from + to) >> 1;
      if (point(c, middle / all).x < x) from = middle;
      else to = middle;
    }
    [from, to] = [Math.max(1, from - 2), Math.min(all, to + 2)];
  }
  return Array.from({ length: to - from }, (_, i) => (from + i) / all);
}

/** hit is what lies at a place: a node with its label, or the nearest edge. */
export function hit(g: Graph, f: Frame, x: number, y: number): Node | Edge | null {
  for (const n of g.nodes) {
    const p = f.at(n), label = f.narrow ? 90 : 200;
    const left = n.column === 0 ? (f.narrow ? -14 : -label) : n.column === 1 ? -60 : -14, right = n.column === 2 ? (f.narrow ? 14 : label) : n.column === 1 ? 60 : 14;
    if (Math.abs(y - p.y) < 11 && x > p.x + left && x < p.x + right) return n;
  }
  let found: Edge | null = null, nearest = 8;
  for (const e of g.edges) {
    const c = curve(f, e);
    for (const t of places(c, x)) {
      const p = point(c, t), d = Math.hypot(p.x - x, p.y - y) - f.wide(e) / 2;
      if (d < nearest) [found, nearest] = [e, d];
    }
  }
  return found;
}

export const isNode = (of: Node | Edge): of is Node => "id" in of;

const touches = (e: Edge, chosen: Node | Edge | null): boolean => !chosen || e === chosen || e.source === chosen || e.target === chosen;

function line(ctx: CanvasRenderingContext2D, f: Frame, e: Edge, colour: string, bright: boolean, back: string): void {
  const c = curve(f, e), wide = f.wide(e);
  ctx.beginPath();
  ctx.moveTo(c[0], c[1]);
  ctx.bezierCurveTo(c[2], c[3], c[4], c[5], c[6], c[7]);
  ctx.lineWidth = wide;
  ctx.strokeStyle = colour;
  ctx.globalAlpha = bright ? (e.verdict === "alive" ? (f.narrow ? 0.3 : 0.45) : 0.8) : 0.1;
  // Form says the same as colour: silent is broken into dashes, unsure into dots.
  ctx.setLineDash(e.verdict === "silent" ? [10, 5] : e.verdict === "unsure" ? [2, 4] : []);
  ctx.lineCap = "butt";
  ctx.stroke();
  ctx.setLineDash([]);
  if (e.verdict === "alive" || !bright) return;
  const p = point(c, 0.5);
  ctx.globalAlpha = 1;
  ctx.fillStyle = back;
  ctx.beginPath();
  ctx.arc(p.x, p.y, 9, 0, 2 * Math.PI);
  ctx.fill();
  ctx.lineWidth = 1.5;
  ctx.stroke();
  ctx.fillStyle = colour;
  ctx.font = "700 11px system-ui, sans-serif";
  ctx.textAlign = "center";
  ctx.fillText(e.verdict === "silent" ? "✕" : "?", p.x, p.y + 0.5);
}

const widths = new Map<string, number>(); // of texts of labels: to measure takes longer than to draw

function widthOf(ctx: CanvasRenderingContext2D, text: string): number {
  let width = widths.get(text);
  if (width === undefined) {
    if (widths.size > 5000) widths.clear();
    widths.set(text, (width = ctx.measureText(text).width));
  }
  return width;
}

/** fitted is a text no wider than so many pixels. */
function fitted(ctx: CanvasRenderingContext2D, text: string, width: number): string {
  if (widthOf(ctx, text) <= width) return text;
  while (text.length > 1 && widthOf(ctx, text + "…") > width) text = text.slice(0, -1);
  return text + "…";
}

function label(ctx: CanvasRenderingContext2D, f: Frame, n: Node, ink: Ink, bright: boolean): void {
  const p = f.at(n), size = 4 + Math.min(5, Math.log10(n.count + 1) * 1.4);
  const colour = n.verdict === "alive" ? (n.program ? ink.program : ink.alive) : ink[n.verdict];
  ctx.globalAlpha = bright ? 1 : 0.35;
  ctx.fillStyle = colour;
  ctx.beginPath();
  if (n.program) ctx.roundRect(p.x - size, p.y - size, 2 * size, 2 * size, 2.5);
  else ctx.arc(p.x, p.y, size, 0, 2 * Math.PI);
  ctx.fill();
  if (n.end.folded) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.arc(p.x, p.y, size + 3, 0, 2 * Math.PI);
    ctx.stroke();
  }
  const count = ` ${number(n.count)}`, room = f.narrow ? f.width / (n.column === 1 ? 3.2 : 2.4) : Math.min(200, f.width * 0.24 - 24);
  ctx.font = "12.5px system-ui, sans-serif";
  const name = fitted(ctx, n.end.name + (n.end.processes > 1 ? ` ×${number(n.end.processes)}` : ""), room - widthOf(ctx, count));
  const named = widthOf(ctx, name), whole = named + widthOf(ctx, count);
  const above = f.narrow || n.column === 1, y = above ? p.y - size - 9 : p.y;
  let x = n.column === 1 ? p.x - whole / 2 : n.column === 0 ? (above ? p.x - size : p.x - size - 8 - whole) : above ? p.x + size - whole : p.x + size + 8;
  x = Math.max(2, Math.min(f.width - whole - 2, x));
  ctx.textAlign = "left";
  ctx.lineWidth = 4;
  ctx.lineJoin = "round";
  ctx.strokeStyle = ink.back;
  ctx.strokeText(name + count, x, y);
  ctx.fillStyle = ink.text;
  ctx.fillText(name, x, y);
  ctx.fillStyle = ink.dim;
  ctx.fillText(count, x + named, y);
}

type Ink = Record<"text" | "dim" | "back" | "alive" | "unsure" | "silent" | "program", string>;

function inkOf(canvas: HTMLCanvasElement): Ink {
  const style = getComputedStyle(canvas), of = (name: string) => style.getPropertyValue(name).trim();
  return { text: of("--text"), dim: of("--dim"), back: of("--surface"), alive: of("--flow"), unsure: of("--warn"), silent: of("--bad"), program: of("--ink") };
}

/** draw paints as much of the picture as has room in the height. */
export function draw(canvas: HTMLCanvasElement, g: Graph, f: Frame, height: number, chosen: Node | Edge | null): void {
  const ctx = canvas.getContext("2d"), scale = window.devicePixelRatio || 1;
  if (!ctx) return;
  const w = Math.round(f.width * scale), h = Math.round(height * scale);
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  ctx.setTransform(scale, 0, 0, scale, 0, -f.top * scale);
  ctx.clearRect(0, f.top, f.width, height);
  ctx.textBaseline = "middle";
  const ink = inkOf(canvas), bright = new Set<Node>(), room = 40; // of a label and of a bend
  const from = f.top - room, to = f.top + height + room;
  for (const e of [...g.edges].reverse()) {
    const is = touches(e, chosen);
    if (is) bright.add(e.source).add(e.target);
    if (Math.max(e.source.y, e.target.y) >= from && Math.min(e.source.y, e.target.y) <= to) line(ctx, f, e, ink[e.verdict] ?? ink.dim, is, ink.back);
  }
  for (const n of g.nodes) if (n.y >= from && n.y <= to) label(ctx, f, n, ink, !chosen || bright.has(n));
  ctx.globalAlpha = 1;
}
