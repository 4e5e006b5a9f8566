import { computed, signal, useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { draw, type Frame, frameOf, hit, isNode } from "./draw";
import { bound, known, number, plural } from "./format";
import { arrange, few, type Edge, type Graph, graphOf, type Node, worstFirst } from "./layout";
import { state, within } from "./live";
import { Choice, Filter, Head, Nothing, said, unlooked, useMore, Verdict, Wide } from "./parts";
import { go, listing, to } from "./route";
import { shade } from "./theme";
import type { End, Link } from "./types";

const filter = signal(""), which = signal("all"), most = signal(window.innerWidth < 640 ? "20" : "40");

const shown = computed<Link[]>(() => {
  const text = filter.value.toLowerCase();
  return (state.value?.links ?? []).filter(l => (which.value === "all" || l.verdict === which.value || (which.value === "far" && !l.here))
    && `${l.from.name} ${l.from.unit ?? ""} ${l.from.container ?? ""} ${l.to.name} ${l.port}`.toLowerCase().includes(text));
});

const address = (e: End): string => (/^[\d.:a-f/]+$/i.test(e.name) && /[.:]/.test(e.name) ? e.name : "");
const program = (e: End): string => (e.folded || e.name.startsWith("(") ? "" : e.name);

/** seen is the address that shows the connections of a node or an edge. */
function seen(of: Node | Edge): string {
  if (isNode(of)) return of.program ? listing("", program(of.end)) : listing(address(of.end), "");
  return listing(of.target.program ? "" : address(of.target.end), program(of.source.end));
}

const named = (e: End): string => e.name + (e.unit ? ` (${e.unit})` : "") + (e.processes > 1 ? `, ${plural(e.processes, "process", "processes")}` : "");

function told(of: Node | Edge): string {
  if (isNode(of)) return `${named(of.end)}: ${plural(of.count, "connection")}, ${of.verdict}`;
  return `${named(of.source.end)} ↔ ${named(of.target.end)}: ${plural(of.count, "connection")}, ${of.verdict}${of.ports.length ? `, ${of.ports.slice(0, 4).join(" ")}` : ""}`
    + `, death noticed when idle: ${bound(of.idle, of.never)}${of.unacked ? `, ${number(of.unacked)} with bytes not acknowledged` : ""}`;
}

const bar = 46; // pixels that the bar of views has, below which the canvas stays

/** useWidth is the width that the frame of the picture has. */
function useWidth() {
  const frame = useRef<HTMLDivElement>(null), width = useSignal(0);
  useEffect(() => {
    const watch = new ResizeObserver(([e]) => e && (width.value = Math.floor(e.contentRect.width)));
    watch.observe(frame.current!);
    return () => watch.disconnect();
  }, []);
  return [frame, width] as const;
}

/** Canvas draws again when something changed, and lays out again only when other ends are there than before: counts move nothing. It
    is no higher than the window, stays in sight, and shows the part of the picture that is there: a picture of all could have a hundred megabytes. */
function Canvas() {
  const [frame, wide] = useWidth(), canvas = useRef<HTMLCanvasElement>(null), tip = useRef<HTMLDivElement>(null);
  const now = useRef<{ graph: Graph; frame: Frame; key: string } | null>(null), chosen = useRef<Node | Edge | null>(null);
  const frames = useRef(0); // one painting for each frame of the screen, however often something changed
  const paint = () => {
    cancelAnimationFrame(frames.current);
    frames.current = requestAnimationFrame(() => {
      if (!now.current || !canvas.current || !frame.current) return;
      const { graph, frame: f } = now.current, height = Math.min(graph.height, window.innerHeight - bar);
      frame.current.style.height = `${graph.height}px`;
      Object.assign(canvas.current.style, { width: `${f.width}px`, height: `${height}px` });
      f.top = canvas.current.offsetTop;
      draw(canvas.current, graph, f, height, chosen.current);
    });
  };
  useEffect(() => {
    window.addEventListener("scroll", paint, { passive: true });
    window.addEventListener("resize", paint);
    return () => {
      cancelAnimationFrame(frames.current);
      window.removeEventListener("scroll", paint);
      window.removeEventListener("resize", paint);
    };
  }, []);
  useSignalEffect(() => {
    const width = wide.value;
    if (!width) return;
    shade.value; // other colours are another picture
    const graph = graphOf(few(shown.value, Number(most.value))), gap = width < 640 ? 38 : graph.nodes.length > 60 ? 23 : 30;
    const key = [width, ...graph.nodes.map(n => n.id), ...graph.edges.map(e => e.source.id + e.target.id)].sort().join(), was = now.current;
    if (was && was.key === key) {
      const places = new Map(was.graph.nodes.map(n => [n.id, n]));
      graph.nodes.forEach(n => Object.assign(n, { x: places.get(n.id)!.x, y: places.get(n.id)!.y }));
      graph.height = was.graph.height;
    } else arrange(graph, gap, new Map(was?.graph.nodes.map(n => [n.id, n.y])));
    const kept = chosen.current;
    chosen.current = kept && (isNode(kept) ? graph.nodes.find(n => n.id === kept.id) : graph.edges.find(e => e.source.id === kept.source.id && e.target.id === kept.target.id)) || null;
    now.current = { graph, frame: frameOf(graph, width), key };
    paint();
  });
  const choose = (of: Node | Edge | null, x = 0, y = 0) => {
    if (of !== chosen.current) {
      chosen.current = of;
      paint();
    }
    if (!tip.current || !canvas.current) return;
    tip.current.textContent = of ? told(of) : "";
    tip.current.hidden = !of;
    canvas.current.style.cursor = of ? "pointer" : "";
    Object.assign(tip.current.style, { left: `${Math.max(0, Math.min(x + 14, wide.value - 290))}px`, top: `${y + 16}px` });
  };
  const at = (e: MouseEvent) => now.current && hit(now.current.graph, now.current.frame, e.offsetX, e.offsetY + now.current.frame.top);
  const step = (by: number) => {
    const edges = now.current?.graph.edges ?? [], next = edges[(edges.indexOf(chosen.current as Edge) + by + edges.length) % edges.length];
    if (!next) return;
    const f = now.current!.frame, a = f.at(next.source), b = f.at(next.target);
    choose(next, (a.x + b.x) / 2, (a.y + b.y) / 2);
    tip.current?.scrollIntoView({ block: "nearest" });
    said.value = told(next);
  };
  const keyed = (e: KeyboardEvent) => {
    if (e.key === "ArrowDown" || e.key === "ArrowRight") step(1);
    else if (e.key === "ArrowUp" || e.key === "ArrowLeft") step(-1);
    else if (e.key === "Enter" && chosen.current) go(seen(chosen.current));
    else return;
    e.preventDefault();
  };
  return <div class="canvas" ref={frame}>
    <canvas ref={canvas} tabIndex={0} role="img" aria-label="Programs on the left, their peers on the right, a line for the connections between them. The table below says the same."
      onMouseMove={e => choose(at(e), e.offsetX, e.offsetY + (now.current?.frame.top ?? 0))} onMouseLeave={() => choose(null)} onBlur={() => choose(null)} onKeyDown={keyed}
      onClick={e => { const of = at(e); if (of) go(seen(of)); }} />
    <div class="tip" ref={tip} hidden aria-hidden="true" />
  </div>;
}

function Row({ of: l }: { of: Link }) {
  const peer = l.here ? "" : address(l.to);
  return <tr><td>{named(l.from)}</td><td class={l.verdict}>{named(l.to)}</td><td class="dim">{l.port}</td><td class="n">{number(l.count)}</td><td><Verdict of={l.verdict} /></td>
    <td class={l.bound_never ? "bad n" : "n"}>{bound(l.bound_idle_seconds, l.bound_never)}</td>
    <td class="links"><a href={listing(peer, program(l.from), within(l.netns))} aria-label={`connections: ${l.from.name} with ${l.to.name}`}>connections</a>
      {peer && <a href={to("whatif", { dead: peer })} aria-label={`if it dies: ${peer}`}>if it dies</a>}</td></tr>;
}

export function Picture() {
  const s = state.value!, links = shown.value, sum = links.reduce((n, l) => n + l.count, 0), [rows, more] = useMore([...links].sort(worstFirst));
  return <>
    <Head title="Who talks to whom" json="/api/v1/state">{plural(sum, "connection")} in {plural(links.length, "link")}{s.totals.links > s.links.length && <>; {number(s.totals.links)} before small ones were joined</>}. Choose a line to see its connections.</Head>
    <div class="tools"><Filter of={filter} label="Filter programs and peers" />
      <Choice of={which} label="Which links" all={{ all: "All", far: "Other machines", unsure: "? Unsure", silent: "✕ Silent" }} />
      <Choice of={most} label="How many links are drawn" all={{ 20: "20", 40: "40", 80: "80" }} /></div>
    {links.length === 0 ? <Nothing>{s.links.length ? "No link fits." : known(s.totals.looked) ? "Nobody talks to anybody." : unlooked}</Nothing> : <>
      <Canvas />
      <p class="legend dim"><span class="key program" /> program <span class="key peer" /> peer <span class="key alive" /> alive <span class="key unsure" /> unsure, ? <span class="key silent" /> silent, ✕</p>
      <Wide label="Links"><table><thead><tr><th scope="col">program</th><th scope="col">talks to</th><th scope="col">service</th><th scope="col" class="n">connections</th><th scope="col">verdict</th>
        <th scope="col" class="n">noticed when idle</th><th scope="col"><span class="sr">see</span></th></tr></thead>
        <tbody>{rows.map((l, i) => <Row key={i} of={l} />)}</tbody></table></Wide>{more}</>}
  </>;
}
