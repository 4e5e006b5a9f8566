import { signal } from "@preact/signals";
import { Chart, Spark } from "./chart";
import { duration, number, plural } from "./format";
import { state } from "./live";
import { Choice, Filter, Head, Nothing, useMore, Verdict, When } from "./parts";
import { listing } from "./route";
import type { Call, Site } from "./types";

const filter = signal(""), which = signal("all"), opened = signal("");

const line = (c: Call): string => (c.function ? `${c.function}${c.file ? ` ${c.file.replace(/^.*\/(?=[^/]+\/)/, "")}:${c.line}` : ""}` : "");

function over(site: Site): [number[], number[]] {
  const values = site.open_over_time ?? [], now = Math.floor(Date.parse(state.value!.time) / 60_000) * 60;
  return [values.map((_, i) => now - 60 * (values.length - 1 - i)), values];
}

function Stack({ of: s }: { of: Site }) {
  return <>
    {!!s.stack?.length && <ol class="stack">{s.stack.map((c, i) => <li key={i} class={c.function === s.asked_by.function && c.line === s.asked_by.line ? "own" : ""}>
      <code>{c.function || "?"}</code>{c.file && <span class="dim"> {c.file}:{c.line}</span>}</li>)}</ol>}
    {s.stack_unknown && <p class="dim">{s.stack_unknown}</p>}
  </>;
}

function Row({ of: s }: { of: Site }) {
  const is = opened.value === s.id, [time, values] = is ? over(s) : [[], []];
  return <article class={`finding site ${s.verdict}`}>
    <h3><button type="button" class="open" aria-expanded={is} onClick={() => (opened.value = is ? "" : s.id)}>
      <Verdict of={s.verdict} />
      <span class="title">{line(s.asked_by) || line(s.opened_at) || "a line that is not known"}<span class="dim"> in {s.process} {s.pid}</span></span>
      <Spark values={s.open_over_time ?? []} label={`open over the last ${s.open_over_time?.length ?? 0} minutes`} />
      <span class="meta">{number(s.open)} of {number(s.opened)} open</span>
    </button></h3>
    {is && <div class="story">
      {s.diagnosis && <p>{s.diagnosis}</p>}
      {values.length > 1 && <Chart label={`Sockets of this line that were open, each minute; now ${number(s.open)}`} time={time} line={{ label: s.id, values }} height={160} />}
      <dl class="figures"><div><dt>{s.accepted ? "accepted from" : "opened to"}</dt><dd>{s.peer || "unknown"}</dd></div>
        <div><dt>idle for up to</dt><dd>{duration(s.idle_seconds)}</dd></div>
        {s.file_limit_in_seconds !== null && <div><dt>out of files in</dt><dd>{duration(s.file_limit_in_seconds)}</dd></div>}
        <div><dt>first seen</dt><dd><When at={s.first_seen} /></dd></div></dl>
      <h4>Opened by</h4><Stack of={s} />
      <p class="links"><a href={listing("", s.process)}>Connections of {s.process}</a></p>
    </div>}
  </article>;
}

export function Leaks() {
  const s = state.value!, text = filter.value.toLowerCase();
  const fits = s.leaks.filter(l => (which.value === "all" || l.verdict === which.value) && `${l.process} ${l.pid} ${line(l.asked_by)} ${line(l.opened_at)} ${l.peer}`.toLowerCase().includes(text));
  const [shown, more] = useMore(fits), off = s.sources.find(o => o.name === "leaks");
  return <>
    <Head title="Who opens sockets, and does not close them" json="/api/v1/state">Lines of code by what they opened and left open, {plural(s.totals.sites, "line")} in all.</Head>
    <div class="tools"><Filter of={filter} label="Filter lines and programs" /><Choice of={which} label="Which lines" all={{ all: "All", leak: "✕ Leaks", suspect: "! Suspects", healthy: "✓ Healthy" }} /></div>
    {fits.length === 0 && <Nothing>{s.leaks.length ? "No line fits." : off?.off || off?.error || "None was seen yet."}</Nothing>}
    {shown.map(l => <Row key={l.id} of={l} />)}{more}
  </>;
}
