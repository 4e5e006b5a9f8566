import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { bound, duration, known, number, plural } from "./format";
import { state, within } from "./live";
import { Filter, Head, Nothing, Problem, unlooked, useDocument, useMore, Verdict, Wide } from "./parts";
import { go, listing, route, to } from "./route";
import type { Loss, Notice, Peer } from "./types";

const typed = signal(""), filter = signal("");

/** learned says when programs learn of a death. */
function learned(n: Notice, count: number): string {
  if (n.never >= count && count > 0) return "never";
  if (n.first_seconds === null) return "unknown";
  const when = n.first_seconds === n.last_seconds ? `after ${duration(n.last_seconds)}` : `after ${duration(n.first_seconds)} to ${duration(n.last_seconds)}`;
  return n.never ? `${when}; ${number(n.never)} never` : when;
}

function Lost({ of: l }: { of: Loss }) {
  const most = Math.max(1, ...(l.processes ?? []).map(p => p.count));
  return <section class="lost" aria-live="polite">
    <p class="large">{l.count === 0 ? <>Nobody here has a connection with {l.peer}.</> : <>If <b>{l.peer}</b> dies, <b>{plural(l.count, "connection")}</b> {l.count === 1 ? "falls" : "fall"} silent{l.netns > 0 && ` in network namespace ${l.netns}`}.</>}</p>
    {l.count > 0 && <dl class="figures">
      <div><dt>programs that wait learn of it</dt><dd>{learned(l.idle, l.count)}</dd></div>
      <div><dt>programs that send learn of it</dt><dd>{learned(l.sending, l.count)}</dd></div>
      {l.bound_unknown > 0 && <div><dt>bound not known</dt><dd>{plural(l.bound_unknown, "connection")}</dd></div>}
      <div><dt>flows this machine forwards</dt><dd>{l.transit === null ? "not read" : number(l.transit)}</dd></div>
    </dl>}
    {!!l.processes?.length && <Wide label="What each program would lose"><table>
      <thead><tr><th scope="col">program</th><th scope="col" class="n">loses</th><th scope="col" class="grow"><span class="sr">share</span></th><th scope="col">while idle</th><th scope="col" class="n">while sending</th></tr></thead>
      <tbody>{l.processes.map(p => <tr key={p.pid + p.process}><td>{p.process || "no process"} <span class="dim">{p.pid || ""}</span></td><td class="n">{number(p.count)}</td>
        <td class="grow"><span class="bar" style={{ width: `${(100 * p.count) / most}%` }} /></td><td>{learned(p.idle, p.count)}</td><td>{learned(p.sending, p.count)}</td></tr>)}</tbody>
    </table></Wide>}
    {l.count > 0 && <p class="links"><a href={listing(l.peer, "", l.netns)}>These connections</a></p>}
  </section>;
}

function Row({ of: p }: { of: Peer }) {
  return <tr class={p.verdict}><td>{p.peer}</td><td class="n">{number(p.count)}</td><td><Verdict of={p.verdict} /></td>
    <td>{(p.processes ?? []).slice(0, 3).map(h => h.process).join(", ")}</td><td class={p.bound_never ? "bad n" : "n"}>{bound(p.bound_idle_seconds, p.bound_never)}</td><td class="n">{duration(p.bound_sending_seconds)}</td>
    <td class="links"><a href={to("whatif", { dead: p.peer })} aria-label={`if it dies: ${p.peer}`}>if it dies</a><a href={listing(p.peer, "", within(p.netns))} aria-label={`connections: ${p.peer}`}>connections</a></td></tr>;
}

/** Spaces leads from all namespaces to one, and back, where several have the same peer. */
function Spaces({ of: dead, now }: { of: string; now: string }) {
  const all = state.value!.peers.filter(p => p.peer === dead);
  if (all.length < 2 && !now) return null;
  return <p class="links">In network namespace <a href={to("whatif", { dead })} aria-current={now ? undefined : "true"}>all</a>
    {all.map(p => <a key={p.netns} href={to("whatif", { dead, netns: String(p.netns) })} aria-current={now === String(p.netns) ? "true" : undefined}>{p.netns}</a>)}</p>;
}

export function WhatIf() {
  const s = state.value!, dead = route.value.at.get("dead") ?? "", netns = route.value.at.get("netns") ?? "";
  useEffect(() => void (typed.value = dead), [dead]);
  const path = dead ? `/api/v1/whatif?peer=${encodeURIComponent(dead)}${netns && `&netns=${encodeURIComponent(netns)}`}` : null, got = useDocument<Loss>(path, s.totals.looked);
  const fits = s.peers.filter(p => `${p.peer} ${(p.processes ?? []).map(h => h.process).join(" ")}`.toLowerCase().includes(filter.value.toLowerCase()));
  const [shown, more] = useMore(fits);
  return <>
    <Head title="What if this peer dies?" json={path ?? "/api/v1/state"}>What would fall silent, who would lose it, and when programs would learn of it.</Head>
    <form class="ask" onSubmit={e => { e.preventDefault(); go(to("whatif", { dead: typed.value.trim() })); }}>
      <label for="dead">Address or network</label>
      <input id="dead" list="peers" value={typed.value} onInput={e => (typed.value = e.currentTarget.value)} placeholder="10.77.1.2 or 10.48.0.0/14" autocomplete="off" spellcheck={false} />
      <datalist id="peers">{s.peers.slice(0, 100).map(p => <option key={p.netns + p.peer} value={p.peer} />)}</datalist>
      <button type="submit" class="primary">Ask</button>
    </form>
    {got?.error && <Problem text={got.error} />}
    {got?.value && <Lost of={got.value} />}
    {dead && <Spaces of={dead} now={netns} />}
    <header class="head"><h3>Peers</h3><Filter of={filter} label="Filter peers" /></header>
    {fits.length === 0 ? <Nothing>{s.peers.length ? "No peer fits." : known(s.totals.looked) ? "No connection with another machine was seen." : unlooked}</Nothing> :
      <Wide label="Peers"><table><thead><tr><th scope="col">peer</th><th scope="col" class="n">connections</th><th scope="col">verdict</th><th scope="col">programs</th>
        <th scope="col" class="n">noticed when idle</th><th scope="col" class="n">when sending</th><th scope="col"><span class="sr">see</span></th></tr></thead>
        <tbody>{shown.map(p => <Row key={p.netns + p.peer} of={p} />)}</tbody></table></Wide>}
    {more}
  </>;
}
