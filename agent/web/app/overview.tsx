import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Card, toggle } from "./finding";
import { number, percent, plural } from "./format";
import { state } from "./live";
import { Ago, Choice, Filter, Head, Mark, Nothing } from "./parts";
import { route, to, type View } from "./route";
import type { Promised, State } from "./types";

const seeing: Record<string, View> = { names: "names", calls: "calls", silence: "picture", leaks: "leaks" };
const promises: Record<string, string> = {
  names: "Its name resolves", calls: "Its calls return", silence: "Its silence is noticed", leaks: "Its socket is closed",
};
const said: Record<string, string> = { kept: "kept", warned: "warning", broken: "broken", unknown: "unknown" };

/** verdictOf is the state of the machine in one sentence. */
export function verdictOf(s: State): { status: string; text: string } {
  if (s.promises.length === 0) return { status: "unknown", text: "Nothing was looked at yet" };
  const count = (status: string) => s.promises.filter(p => p.status === status).length;
  const broken = count("broken"), warned = count("warned"), unknown = count("unknown");
  if (broken) return { status: "broken", text: `${plural(broken, "promise is", "promises are")} broken` };
  if (warned) return { status: "warned", text: `No promise is broken, ${plural(warned, "has a warning", "have warnings")}` };
  if (unknown) return { status: "unknown", text: unknown === 4 ? "Nothing was looked at yet" : `${4 - unknown} promises kept, ${unknown} not known` };
  return { status: "kept", text: "All four promises are kept" };
}

function Promise({ of: p }: { of: Promised }) {
  return <a class={`promise ${p.status}`} href={to(seeing[p.promise] ?? "overview")}>
    <h3>{p.promise}</h3>
    <p class="status"><Mark of={p.status} /> {said[p.status]}{p.findings > 0 && <span class="dim"> · {number(p.findings)} open</span>}</p>
    <p class="vow">{promises[p.promise]}</p>
    <p class="summary">{p.summary}</p>
    <p class="dim">{p.looked ? <>looked <Ago at={p.looked} /></> : "not looked at yet"}</p>
  </a>;
}

const text = signal(""), which = signal("open");

function Findings({ of: s }: { of: State }) {
  const open = s.findings.filter(f => f.resolved === null);
  const list = (which.value === "open" ? open.filter(f => !f.cause || f.id === route.value.at.get("finding")) : s.findings.filter(f => which.value === "all" || f.resolved !== null))
    .filter(f => `${f.code} ${f.title} ${f.promise}`.toLowerCase().includes(text.value.toLowerCase()));
  return <section aria-labelledby="findings">
    <header class="head"><h2 id="findings">Findings</h2>
      <Choice of={which} label="Which findings" all={{ open: `Open (${number(open.filter(f => !f.cause).length)})`, over: "Over", all: "All" }} />
      <Filter of={text} label="Filter findings" />
      <a class="json" href="/api/v1/findings" target="_blank" rel="noopener" aria-label="findings as JSON">JSON</a></header>
    {list.length === 0 && <Nothing>{text.value ? "No finding fits." : which.value === "open" ? "None is open." : "None within the last hour."}</Nothing>}
    {list.map((f, i) => <Card key={f.id} of={f} all={s.findings} first={i === 0} />)}
  </section>;
}

export function Overview() {
  const s = state.value!, wanted = route.value.at.get("finding"), whole = verdictOf(s), t = s.totals;
  useEffect(() => {
    if (!wanted) return;
    toggle(wanted, true);
    document.querySelector(`[data-finding="${CSS.escape(wanted)}"]`)?.scrollIntoView({ block: "center" });
  }, [wanted]);
  return <>
    <Head title="The four promises" json="/api/v1/state" />
    <section class={`whole ${whole.status}`}>
      <p class="verdict-line"><Mark of={whole.status} /> {whole.text}</p>
      <p class="dim">{plural(t.sockets, "socket")} of {plural(t.processes, "process", "processes")} with {plural(t.peers, "peer")} in {plural(t.namespaces, "namespace")}
        {t.opened_per_second !== null && <> · {t.opened_per_second.toFixed(1)} opened/s</>}
        {t.resets_per_second !== null && <> · {t.resets_per_second.toFixed(1)} resets/s</>}
        {!!t.conntrack_fraction && <> · conntrack {percent(t.conntrack_fraction)} full</>}</p>
    </section>
    <section class="promises" aria-label="The four promises">{s.promises.map(p => <Promise key={p.promise} of={p} />)}</section>
    {s.blind.length > 0 && <p class="blind"><Mark of="unknown" /> <span>{plural(s.blind.length, "thing", "things")} could not be seen: <a href={to("agent")}>what, and what would show it</a></span></p>}
    <Findings of={s} />
  </>;
}
