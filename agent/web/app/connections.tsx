import { computed, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { bound, bytes, duration, number, plural } from "./format";
import { state } from "./live";
import { Json, Problem, useDocument, Wide, When } from "./parts";
import { go, route, to, unlisted } from "./route";
import type { Connection, Connections } from "./types";

const page = 25;
const sorts: Record<string, string> = { bound: "bound", idle: "silent for", queue: "queues", peer: "peer", process: "process" };
const words = new Set(["peer", "process"]); // from A; the others from the most
const sort = signal("bound"), reverse = signal(false), after = signal(0);

/** Sort sorts by a column, and when it is asked again the other way round. */
function Sort({ by, n }: { by: string; n?: boolean }) {
  const is = sort.value === by, up = words.has(by) !== reverse.value;
  return <th scope="col" class={n ? "n" : ""} aria-sort={is ? (up ? "ascending" : "descending") : "none"}><button type="button" class={`sort${is ? " is" : ""}`}
    onClick={() => { reverse.value = is && !reverse.value; sort.value = by; after.value = 0; }}>
    {sorts[by]}<span aria-hidden="true">{is ? (up ? " ↑" : " ↓") : ""}</span></button></th>;
}

const Row = ({ of: c }: { of: Connection }) => <tr>
  <td>{c.remote}</td><td>{c.process.process || (c.process.pid > 0 ? "" : "no process")}{c.process.pid > 0 && <span class="dim"> {c.process.pid}</span>}</td>
  <td class={c.bound_never ? "bad n" : "n"}>{bound(c.bound_idle_seconds, c.bound_never)}</td><td class="n">{duration(c.bound_sending_seconds)}</td>
  <td>{c.bound_idle_by || "unknown"}</td><td class="n">{duration(c.heard_ms === null ? null : c.heard_ms / 1000)}</td>
  <td class="n">{bytes(c.send_queue_bytes)} / {bytes(c.receive_queue_bytes)}</td><td class="n">{number(c.resent_segments)}</td><td>{c.state.toLowerCase()}</td><td>{c.local}</td></tr>;

function Table({ of }: { of: Connections }) {
  const last = Math.min(after.value + of.connections.length, of.total);
  return <>
    <Wide label="Connections">
      <table><thead><tr><Sort by="peer" /><Sort by="process" /><Sort by="bound" n /><th scope="col" class="n">while sending</th>
        <th scope="col">noticed by</th><Sort by="idle" n /><Sort by="queue" n /><th scope="col" class="n">resent</th><th scope="col">state</th><th scope="col">local</th></tr></thead>
        <tbody>{of.connections.map(c => <Row key={c.cookie + c.local + c.remote} of={c} />)}</tbody></table>
    </Wide>
    <p class="pager"><button type="button" disabled={after.value === 0} onClick={() => (after.value = Math.max(0, after.value - page))}>Earlier</button>
      <span>{of.total === 0 ? "none" : `${number(after.value + 1)} to ${number(last)} of ${number(of.total)}`}</span>
      <button type="button" disabled={last >= of.total} onClick={() => (after.value += page)}>Later</button></p>
  </>;
}

const looked = computed(() => state.value?.totals.looked); // of all that a State says nothing else is another list

/** Drawer lists connections beside a view, while the address says so. */
export function Drawer() {
  const { at } = route.value, peer = at.get("peer") ?? "", process = at.get("process") ?? "", netns = at.get("netns") ?? "";
  const frame = useRef<HTMLElement>(null), before = useRef<Element | null>(null);
  useEffect(() => {
    after.value = 0;
    before.current ??= document.activeElement;
    frame.current?.focus({ preventScroll: true });
    return () => (before.current as HTMLElement | null)?.isConnected && (before.current as HTMLElement).focus({ preventScroll: true });
  }, [peer, process, netns]);
  const query = new URLSearchParams({ sort: sort.value, after: String(after.value), most: String(page) });
  if (reverse.value) query.set("reverse", "true");
  if (netns) query.set("netns", netns);
  if (peer) query.set("peer", peer);
  if (process) query.set("process", process);
  const path = `/api/v1/connections?${query}`, got = useDocument<Connections>(path, looked.value);
  return <aside class="drawer" ref={frame} tabIndex={-1} aria-label="Connections" aria-busy={got?.path !== path}>
    <header class="head"><h2>{[process, peer].filter(Boolean).join(" ↔ ") || "All connections"}</h2><Json path={path} />
      <button type="button" class="close" onClick={() => go(unlisted())} aria-label="Close">✕</button></header>
    {got?.value && <p class="dim">{plural(got.value.total, "connection")}{netns && ` of network namespace ${netns}`}, as of <When at={got.value.time} />. The bound is how long a failure can go unnoticed while idle.</p>}
    {peer && <p class="links"><a href={to("whatif", { dead: peer })}>If {peer} dies</a><a href={to("time", { of: peer })}>Its time line</a></p>}
    {got?.error && <Problem text={got.error} />}
    {got?.value && <Table of={got.value} />}
    {!got && <p class="dim">asking…</p>}
  </aside>;
}
