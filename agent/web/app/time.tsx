import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Chart } from "./chart";
import { bytes, duration, moment, number, plural } from "./format";
import { series, state } from "./live";
import { Choice, Head, Mark, Nothing, Problem, useDocument, useMore, When, Wide } from "./parts";
import { here, go, route, to } from "./route";
import type { Change, Difference, Happening, Past, PastFinding, Range, Span } from "./types";

const window_ = signal("3600"), of = signal(""), program = signal("");
const points = 400; // of the line, at the most

const iso = (s: number): string => new Date(s * 1000).toISOString();

/** local is a time as an input of a browser has it. */
const local = (s: number): string => new Date(s * 1000 - new Date(s * 1000).getTimezoneOffset() * 60_000).toISOString().slice(0, 19);

function Changes({ title, of: all, more }: { title: string; of: Change[] | null; more?: string }) {
  if (!all?.length) return null;
  return <Wide label={title}><table><caption>{title}{more}</caption><thead><tr><th scope="col">peer</th><th scope="col" class="n">before</th><th scope="col" class="n">after</th><th scope="col">programs</th></tr></thead>
    <tbody>{all.slice(0, 50).map(c => <tr key={c.peer}><td>{c.peer}</td><td class="n">{number(c.from)}</td><td class="n">{number(c.to)}</td><td class="dim">{(c.programs ?? []).join(", ")}</td></tr>)}</tbody></table>
    {all.length > 50 && <p class="dim">and {plural(all.length - 50, "peer")} more</p>}</Wide>;
}

const Finding = ({ of: f }: { of: PastFinding }) => <li><Mark of={f.resolved ? "over" : f.severity} /> <b>{f.code}</b> {f.title} <span class="dim"><When at={f.first_seen} /> {f.resolved ? <>to <When at={f.resolved} /></> : "and still open"}</span></li>;

function Diff({ from, to: until }: { from: number; to: number }) {
  const path = `/api/v1/history/diff?from=${iso(from)}&to=${iso(until)}`, got = useDocument<Difference>(path), d = got?.value;
  return <section class="diff" aria-live="polite" aria-label="What changed">
    <header class="head"><h3>What changed from {moment(from * 1000)} to {moment(until * 1000)}</h3><a class="json" href={path} target="_blank" rel="noopener" aria-label="this difference as JSON">JSON</a></header>
    {got?.error && <Problem text={got.error} />}
    {d && <>
      <p class="links"><a href={here({ moment: String(from) })}>As it was at {moment(from * 1000)}</a><a href={here({ moment: String(until) })}>and at {moment(until * 1000)}</a></p>
      <p class="large">{number(d.count_before)} → {number(d.count_after)} connections; {plural(d.came?.length ?? 0, "peer")} came, {number(d.went?.length ?? 0)} went, {number(d.same)} stayed as they were.</p>
      {[d.from, d.to].filter(m => m.gap).map(m => <Problem key={m.asked} text={`${moment(m.asked)}: nothing was written then${m.note && ": " + m.note}`} />)}
      <Changes title="Went" of={d.went} /><Changes title="Came" of={d.came} /><Changes title="Has fewer" of={d.shrank} /><Changes title="Has more" of={d.grew} />
      {!!d.findings?.length && <><h4>Findings then</h4><ul class="past">{d.findings.map(f => <Finding key={f.id + f.first_seen} of={f} />)}</ul></>}
    </>}
  </section>;
}

/** Then is the census of a moment. */
function Then({ at }: { at: number }) {
  const path = `/api/v1/history/at?time=${iso(at)}`, got = useDocument<Past>(path), p = got?.value, [rows, more] = useMore(p?.groups ?? []);
  return <section aria-live="polite" aria-label="As it was">
    <header class="head"><h3>As it was at {moment(at * 1000)}</h3><a class="json" href={path} target="_blank" rel="noopener" aria-label="this moment as JSON">JSON</a></header>
    {got?.error && <Problem text={got.error} />}
    {p?.gap && <Problem text={`nothing was written then${p.note && ": " + p.note}; what follows is of ${moment(p.time)}`} />}
    {p && <><p class="large">{plural(p.count, "connection")} in {plural(p.groups_total, "group")}</p>
      <Wide label="Connections then"><table><thead><tr><th scope="col">program</th><th scope="col">peer</th><th scope="col">service</th><th scope="col" class="n">connections</th></tr></thead>
        <tbody>{rows.map((g, i) => <tr key={i}><td>{g.program}{g.unit && <span class="dim"> {g.unit}</span>}</td><td>{g.peer}</td><td class="dim">{g.port}</td><td class="n">{number(g.count)}</td></tr>)}</tbody></table></Wide>{more}</>}
  </section>;
}

/** Happened is when most changed, each with a way to all that changed then. */
function Happened({ query }: { query: string }) {
  const path = `/api/v1/history/story?${query}&most=5`, got = useDocument<{ events: Happening[] | null }>(path), events = got?.value?.events;
  if (!events?.length) return got?.error ? <Problem text={got.error} /> : null;
  const second = (t: string) => String(Math.floor(Date.parse(t) / 1000));
  return <section aria-label="When most changed"><header class="head"><h3>When most changed</h3><a class="json" href={path} target="_blank" rel="noopener" aria-label="what changed as JSON">JSON</a></header>
    <ol class="past">{events.map(e => <li key={e.begin}>
      <a href={here({ from: second(e.begin), to: String(Number(second(e.end)) + 1), moment: null })}><When at={e.end} /></a>{" "}
      {(e.shifts ?? []).slice(0, 3).map((c, i) => <span key={c.peer}>{i > 0 && "; "}<b>{c.peer}</b> {number(c.from)} → {number(c.to)}{c.gap && " while nothing was written"} <span class="dim">{(c.programs ?? []).join(", ")}</span></span>)}
      {(e.shifts?.length ?? 0) > 3 && <span class="dim"> and {plural(e.shifts!.length - 3, "peer")} more</span>}
      {(e.findings ?? []).slice(0, 3).map(f => <span key={f.id}> <Mark of={f.severity} /> {f.code}</span>)}</li>)}</ol></section>;
}

/** Between is the brush for the keyboard. */
function Between({ from, to: until }: { from: number; to: number }) {
  const set = (a: string, b: string) => {
    const x = Date.parse(a) / 1000, y = Date.parse(b) / 1000;
    if (x < y) go(here({ from: String(Math.round(x)), to: String(Math.round(y)) }));
  };
  return <form class="ask" onSubmit={e => { e.preventDefault(); const d = new FormData(e.currentTarget); set(String(d.get("from")), String(d.get("to"))); }}>
    <label for="from">Compare</label><input id="from" name="from" type="datetime-local" step="1" defaultValue={local(from)} key={`from ${from}`} />
    <label for="to">with</label><input id="to" name="to" type="datetime-local" step="1" defaultValue={local(until)} key={`to ${until}`} />
    <button type="submit" class="primary">Compare</button></form>;
}

function History({ of: span }: { of: Span }) {
  const { at } = route.value, first = Date.parse(span.first!) / 1000, end = Math.max(Date.parse(span.last!) / 1000 + 1, first + 10);
  const begin = window_.value === "all" ? first : Math.max(first, end - Number(window_.value)), step = Math.max(10, Math.ceil((end - begin) / points));
  const query = new URLSearchParams({ from: iso(begin), to: iso(end) });
  if (of.value) query.set("peer", of.value);
  if (program.value) query.set("process", program.value);
  const path = `/api/v1/history/range?${query}&step=${step}`, got = useDocument<Range>(path);
  const past = useDocument<{ findings: PastFinding[] | null }>(`/api/v1/history/findings?from=${iso(begin)}&to=${iso(end)}`);
  const line = got?.value?.points ?? [], time = line.map(p => Date.parse(p.time) / 1000), values = line.map(p => p.count);
  const found = (past?.value?.findings ?? []).filter(f => !f.cause);
  const from = Number(at.get("from")) || 0, until = Number(at.get("to")) || 0;
  const known = values.filter(v => v !== null);
  return <>
    <p class="dim">{plural(span.records, "record")} since <When at={span.first} />, {bytes(span.bytes)}. Click on the line for one moment; drag over it to compare two. <a class="json" href={path} target="_blank" rel="noopener" aria-label="this line as JSON">JSON</a></p>
    {got?.error && <Problem text={got.error} />}
    {got?.value && <Chart label={known.length ? `Connections over time, from ${number(Math.min(...known))} to ${number(Math.max(...known))}` : "Nothing was written then"}
      time={time} line={{ label: path, values }} height={260} brushed={(a, b) => go(here({ from: String(Math.round(a)), to: String(Math.round(b)), moment: null }))} chosen={t => go(here({ moment: String(Math.round(t)), from: null, to: null }))}
      marks={found.map(f => ({ time: Date.parse(f.first_seen) / 1000, until: f.resolved ? Date.parse(f.resolved) / 1000 : null, severity: f.severity }))} />}
    <Between from={from || begin} to={until || end} />
    {from > 0 && until > from && <Diff from={from} to={until} />}
    {Number(at.get("moment")) > 0 && <Then at={Number(at.get("moment"))} />}
    <Happened query={query.toString()} />
    <h3>Findings in this time</h3>
    {found.length === 0 ? <Nothing>None.</Nothing> : <ul class="past">{found.slice(0, 100).map(f => <Finding key={f.id + f.first_seen} of={f} />)}</ul>}
  </>;
}

/** OwnLine is what this page saw by itself, where no history is kept. */
function OwnLine() {
  state.value; // it grows with each
  return <><h3>Sockets since this page is open</h3>{series.time.length < 2 ? <Nothing>{number(series.sockets.at(-1) ?? 0)} now. A line begins with the next look.</Nothing> :
    <Chart label={`Sockets since this page is open; now ${number(series.sockets.at(-1)!)}`} time={[...series.time]} line={{ label: "sockets", values: [...series.sockets] }} />}</>;
}

export function TimeLine() {
  const wanted = route.value.at.get("of") ?? "";
  const minute = Math.floor(Date.parse(state.value!.time) / 20_000), span = useDocument<Span>("/api/v1/history/span", minute);
  useEffect(() => void (of.value = wanted), [wanted]);
  const some = span?.value?.last && span.value.records > 0;
  return <>
    <Head title="Time line" json="/api/v1/history/span" />
    {some && <div class="tools"><Choice of={window_} label="How far back" all={{ 900: "15 min", 3600: "1 h", 21600: "6 h", 86400: "1 day", all: "All" }} />
      <form class="inline" onSubmit={e => { e.preventDefault(); const d = new FormData(e.currentTarget); program.value = String(d.get("process")).trim(); go(to("time", { of: String(d.get("peer")).trim() })); }}>
        <input name="peer" class="filter" placeholder="peer" aria-label="Only this peer" defaultValue={of.value} key={of.value} /><input name="process" class="filter" placeholder="program" aria-label="Only this program" defaultValue={program.value} />
        <button type="submit">Show</button></form></div>}
    {some ? <History of={span.value!} /> : <>{span?.error && <Problem text={span.error} />}{span?.value && <Nothing>Nothing was written yet; the first record comes within {duration(10)} or so.</Nothing>}<OwnLine /></>}
  </>;
}
