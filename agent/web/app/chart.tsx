import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clockText, number } from "./format";
import { shade } from "./theme";

export interface Line { label: string; values: (number | null)[] }
export interface Mark { time: number; until: number | null; severity: string }

interface Told {
  label: string; time: number[]; line: Line; height?: number; marks?: Mark[];
  brushed?: (from: number, to: number) => void; // seconds since 1970, of what was marked with the pointer
  chosen?: (at: number) => void; // the same, of where it was pressed alone
}

function options(of: Told, width: number, style: CSSStyleDeclaration): uPlot.Options {
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "11px system-ui, sans-serif" };
  return {
    width, height: of.height ?? 220, legend: { show: false }, scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.08)] } },
    cursor: { drag: { x: !!of.brushed, y: false, setScale: false }, points: { size: 6 } },
    axes: [{ ...axis, size: 32, values: clockValues }, { ...axis, size: 56, values: (_, v) => v.map(n => (Number.isInteger(n) ? number(n) : "")) }],
    series: [{}, { label: of.line.label, stroke: colour("--flow"), width: 1.75, fill: colour("--flow-soft"), spanGaps: false, points: { show: of.time.length < 3 } }],
    hooks: {
      ready: [u => {
        let pressed = 0;
        u.over.addEventListener("mousedown", e => (pressed = e.clientX));
        u.over.addEventListener("click", e => {
          if (Math.abs(e.clientX - pressed) <= 2) of.chosen?.(u.posToVal(e.clientX - u.over.getBoundingClientRect().x, "x"));
        });
      }],
      draw: [u => marks(u, of.marks ?? [], colour)],
      setSelect: [u => {
        if (u.select.width > 2) of.brushed?.(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
      }],
    },
  };
}

function clockValues(_: uPlot, at: number[]): string[] {
  const long = at.length > 1 && at[at.length - 1]! - at[0]! > 86400, close = at.length > 1 && at[1]! - at[0]! < 60;
  return at.map(t => {
    const d = new Date(t * 1000), clock = clockText(d, close);
    return long ? `${d.getDate()}.${d.getMonth() + 1}. ${clock}` : clock;
  });
}

/** marks are findings: a band for as long as each was open, with a line where it began. */
function marks(u: uPlot, all: Mark[], colour: (name: string) => string): void {
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  for (const m of all) {
    const from = Math.max(left, u.valToPos(m.time, "x", true)), until = m.until === null ? left + width : Math.min(left + width, u.valToPos(m.until, "x", true));
    if (from > left + width || until < left) continue;
    u.ctx.fillStyle = colour(m.severity === "fail" ? "--bad" : m.severity === "warn" ? "--warn" : "--dim");
    u.ctx.globalAlpha = m.severity === "fail" ? 0.1 : 0.04;
    u.ctx.fillRect(from, top, Math.max(2, until - from), height);
    u.ctx.globalAlpha = 0.9;
    u.ctx.fillRect(from, top, 2, height);
  }
  u.ctx.restore();
}

/** Chart is one line over time. */
export function Chart(of: Told) {
  const frame = useRef<HTMLDivElement>(null), plot = useRef<uPlot | null>(null), look = shade.value;
  const told = useRef(of);
  told.current = of;
  useEffect(() => {
    const at = frame.current!;
    const make = () => {
      plot.current?.destroy();
      const calls: Told = { ...told.current };
      if (of.chosen) calls.chosen = at => told.current.chosen?.(at);
      if (of.brushed) calls.brushed = (from, to) => told.current.brushed?.(from, to);
      plot.current = new uPlot(options(calls, at.clientWidth, getComputedStyle(at)), [told.current.time, told.current.line.values], at);
    };
    make();
    const watch = new ResizeObserver(() => plot.current && at.clientWidth !== plot.current.width && plot.current.setSize({ width: at.clientWidth, height: of.height ?? 220 }));
    watch.observe(at);
    return () => {
      watch.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [look, of.line.label, JSON.stringify(of.marks ?? [])]);
  useEffect(() => plot.current?.setData([of.time, of.line.values]), [of.time, of.line.values]);
  return <div class="chart" ref={frame} role="img" aria-label={of.label} />;
}

/** Spark is a small line without axes. */
export function Spark({ values, label }: { values: number[]; label: string }) {
  if (values.length < 2) return null;
  const most = Math.max(1, ...values), step = 96 / (values.length - 1);
  const path = values.map((v, i) => `${i ? "L" : "M"}${(2 + i * step).toFixed(1)} ${(22 - (20 * v) / most).toFixed(1)}`).join("");
  return <svg class="spark" viewBox="0 0 100 24" width="100" height="24" role="img" aria-label={label}><path d={path} /></svg>;
}
