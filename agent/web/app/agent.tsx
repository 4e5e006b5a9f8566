import { bytes, duration, known, percent, plural } from "./format";
import { state } from "./live";
import { Head, Mark, Nothing, unlooked, Wide, When } from "./parts";
import type { Source } from "./types";

function how(s: Source): [string, string] {
  if (s.off) return ["unknown", `off: ${s.off}`];
  if (s.late) return ["warn", `late${s.error && ": " + s.error}`];
  if (s.error) return ["fail", s.error];
  return s.last ? ["kept", "well"] : ["unknown", "not yet"];
}

/** SelfView is what the agent looks at, what it could not see, and what it costs. */
export function SelfView() {
  const s = state.value!, a = s.agent;
  return <>
    <Head title="What is looked at" json="/api/v1/state" />
    <Wide label="Sources"><table><thead><tr><th scope="col">source</th><th scope="col">how it went</th><th scope="col">last</th><th scope="col" class="n">took</th><th scope="col" class="n">every</th></tr></thead>
      <tbody>{s.sources.map(o => { const [mark, text] = how(o); return <tr key={o.name}><td>{o.name}</td><td><Mark of={mark} /> {text}</td><td><When at={o.last} /></td><td class="n">{duration(o.took_seconds)}</td><td class="n">{duration(o.every_seconds)}</td></tr>; })}</tbody></table></Wide>
    <h3>What could not be seen</h3>
    {s.blind.length === 0 ? <Nothing>{known(s.totals.looked) ? "Nothing is hidden from this agent." : unlooked}</Nothing> :
      <ul class="blinds">{s.blind.map(b => <li key={b.source + b.error}><b>{b.source}</b>: {b.error}{b.needs && <span class="dim">; needs {b.needs}</span>}</li>)}</ul>}
    {!!a.missing?.length && <><h3>What its rights do not allow</h3>
      <Wide label="Missing rights"><table><thead><tr><th scope="col">feature</th><th scope="col">needs</th><th scope="col">without it</th><th scope="col">profile that has it</th></tr></thead>
        <tbody>{a.missing.map(m => <tr key={m.feature}><td>{m.feature}</td><td>{m.needs}</td><td>{m.lost}</td><td>{m.profile}</td></tr>)}</tbody></table></Wide></>}
    <h3>The agent</h3>
    <dl class="figures">
      <div><dt>version</dt><dd>{a.version}</dd></div>
      <div><dt>runs since</dt><dd><When at={a.started} /></dd></div>
      <div><dt>processor</dt><dd>{percent(a.cpu_fraction)} of one</dd></div>
      <div><dt>memory</dt><dd>{bytes(a.resident_bytes)}</dd></div>
      <div><dt>profile</dt><dd>{a.profile || "unknown"}</dd></div>
      <div><dt>policy</dt><dd>{a.policy.path || "none: watches all, acts on nothing"}{a.policy.error && <span class="bad"> {a.policy.error}</span>}</dd></div>
      <div><dt>does by itself</dt><dd>{a.policy.acts?.join(", ") || "nothing"}</dd></div>
      <div><dt>history</dt><dd>{a.history ? `in ${a.history}` : "not kept"}{a.history_problem && <span class="bad"> {a.history_problem}</span>}</dd></div>
      <div><dt>census</dt><dd>{plural(s.totals.sockets, "socket")} in {duration(s.totals.census_seconds)}</dd></div>
    </dl>
  </>;
}
