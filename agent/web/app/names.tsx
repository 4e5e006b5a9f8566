import { duration, number, plural } from "./format";
import { state } from "./live";
import { Head, Mark, Nothing, unlooked, Wide, When } from "./parts";
import type { Names as Doctor } from "./types";

function Servers({ of }: { of: Doctor }) {
  if (!of.servers?.length) return <Nothing>No nameserver is configured.</Nothing>;
  return <Wide label="Nameservers"><table><thead><tr><th scope="col">nameserver</th><th scope="col">way to it</th><th scope="col">answer</th></tr></thead>
    <tbody>{of.servers.map(n => <tr key={n.address}><td>{n.address}</td><td>{n.way}</td>
      <td><Mark of={n.ok === null ? "unknown" : n.ok ? "kept" : "broken"} /> {n.ok === null ? "not asked" : n.ok ? `answers in ${duration(n.ms === null ? null : n.ms / 1000)}` : n.error || "no answer"}</td></tr>)}</tbody></table></Wide>;
}

function Ways({ of }: { of: Doctor }) {
  if (!of.names?.length) return null;
  return <><h3>Watched names</h3>{of.names.map(n => <Wide key={n.name} label={n.name}><table><caption>{n.name}</caption>
    <thead><tr><th scope="col">way</th><th scope="col">answer</th><th scope="col" class="n">took</th></tr></thead>
    <tbody>{(n.ways ?? []).map(w => <tr key={w.way}><td>{w.way}</td><td><Mark of={w.ok ? "kept" : "broken"} /> {w.ok ? (w.addresses ?? []).join(", ") : w.error}</td><td class="n">{duration(w.ms / 1000)}</td></tr>)}</tbody></table></Wide>)}</>;
}

const resolvers: Record<string, string> = {
  go: "Go's own resolver", system: "the operating system", either: "either of the two", own: "a resolver of their own", none: "no names", unknown: "not known",
};

function Programs({ of }: { of: Doctor }) {
  if (!of.programs?.length) return null;
  return <><h3>Programs by how they resolve names</h3><Wide label="Programs by resolver"><table>
    <thead><tr><th scope="col">resolver</th><th scope="col" class="n">programs</th><th scope="col" class="n">would fail here</th><th scope="col">such as</th></tr></thead>
    <tbody>{of.programs.map(p => <tr key={p.resolver}><td>{resolvers[p.resolver] ?? p.resolver}</td><td class="n">{number(p.count)}</td>
      <td class={p.fail_here ? "bad n" : "n"}>{p.fail_here === null ? "unknown" : number(p.fail_here)}</td><td class="dim">{(p.examples ?? []).join(", ")}</td></tr>)}</tbody></table></Wide></>;
}

export function Names() {
  const names = state.value!.names;
  return <>
    <Head title="Names" json="/api/v1/state">{names ? <>How names are resolved here, looked at <When at={names.time} />.</> : "How names are resolved here."}</Head>
    {!names ? <Nothing>{unlooked}</Nothing> : <>
      <h3>Nameservers</h3><Servers of={names} /><Ways of={names} /><Programs of={names} />
      <h3>{plural(names.config?.length ?? 0, "setting")}</h3>
      <dl class="settings">{(names.config ?? []).map(c => <div key={c.source}><dt>{c.source}</dt><dd>{c.text}</dd></div>)}</dl></>}
  </>;
}
