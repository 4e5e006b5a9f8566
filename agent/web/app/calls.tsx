import { duration, number, plural } from "./format";
import { state } from "./live";
import { Head, Nothing, unlooked, useMore, Wide } from "./parts";
import { listing } from "./route";

export function Calls() {
  const s = state.value!, [shown, more] = useMore(s.calls);
  return <>
    <Head title="Calls without an answer" json="/api/v1/state">Requests that were sent and have no answer yet, oldest first.</Head>
    {s.calls.length === 0 ? <Nothing>{s.promises.find(p => p.promise === "calls")?.summary ?? unlooked}</Nothing> :
      <Wide label="Calls"><table><thead><tr><th scope="col">program</th><th scope="col">peer</th><th scope="col" class="n">calls</th><th scope="col" class="n">longest</th><th scope="col">request arrived</th><th scope="col">where it waits</th></tr></thead>
        <tbody>{shown.map(c => <tr key={c.pid + c.peer}><td>{c.process} <span class="dim">{c.pid}</span></td><td><a href={listing("", c.process)}>{c.peer}</a></td><td class="n">{number(c.count)}</td>
          <td class="n">{duration(c.since_seconds)}</td><td>{c.acknowledged ? "yes" : "no, or unknown"}</td>
          <td>{c.goroutines?.length ? <details><summary>{plural(c.goroutines.length, "goroutine")}</summary>{c.goroutines.map(g => <pre key={g}>{g}</pre>)}</details> : "not looked at"}</td></tr>)}</tbody></table></Wide>}
    {more}
  </>;
}
