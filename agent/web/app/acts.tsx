import { signal, useSignal } from "@preact/signals";
import { number, plural } from "./format";
import { clock, fetched, state } from "./live";
import { Command, Head, Mark, Nothing, Problem, useDocument, useMore, Wide, When } from "./parts";
import { to } from "./route";
import type { Act, Plan } from "./types";

const did = signal(0);

/** notAllowed is why an act cannot be asked for at a finding, in words; "" where it can. */
function notAllowed(act: string, code: string): string {
  const may = state.value!.agent.by_hand?.find(h => h.act === act);
  if (may?.why_not) return may.why_not;
  return may?.on.includes(code) ? "" : `the policy does not allow to ${act} on ${code}`;
}

/** Deed is an act in two steps: what would be done, and then, confirmed, doing it. Where it may not be done it says why. */
export function Deed({ act, finding, code }: { act: string; finding: string; code: string }) {
  const plan = useSignal<Plan | null>(null), outcome = useSignal<Act | null>(null), error = useSignal(""), busy = useSignal(false);
  const ask = async <T,>(path: string, body: object, done: (answer: T) => void) => {
    busy.value = true;
    error.value = "";
    try {
      done(await fetched<T>(path, body));
    } catch (e) {
      plan.value = null;
      error.value = (e as Error).message;
    }
    busy.value = false;
  };
  const left = plan.value ? Math.max(0, Math.round((Date.parse(plan.value.expires) - clock.value) / 1000)) : 0;
  const no = notAllowed(act, code);
  return <div class="deed" aria-live="polite">
    {no && <p class="dim">This page does not offer to {act}: {no}.</p>}
    {!plan.value && !no && <button type="button" disabled={busy.value} onClick={() => { outcome.value = null; void ask<Plan>("/api/v1/acts/plan", { act, finding }, p => (plan.value = p)); }}>What would {act} do?</button>}
    {plan.value && <div class="confirm" role="group" aria-label="Confirm">
      <p><b>{plan.value.text}</b></p><p class="dim">{plan.value.target}. Nothing was done yet. This plan is good for {plural(left, "second")}.</p>
      <button type="button" class="danger" disabled={busy.value || left === 0} onClick={() => void ask<Act>("/api/v1/acts/do", { plan: plan.value!.plan }, a => { outcome.value = a; plan.value = null; did.value++; })}>
        Do it: {act} {plural(plan.value.count, "connection")}</button>
      <button type="button" onClick={() => (plan.value = null)}>Leave it</button></div>}
    {outcome.value && <p><Mark of={outcome.value.error ? "broken" : outcome.value.ended ? "kept" : "info"} /> {outcome.value.error || outcome.value.outcome || (outcome.value.ended ? "Done." : "It is under way.")}</p>}
    {error.value && <Problem text={error.value} />}
    {(outcome.value || error.value) && <p class="links"><a href={to("acts")}>All acts</a></p>}
  </div>;
}

const Row = ({ of: a }: { of: Act }) => <tr class={a.error ? "silent" : ""}><td><When at={a.time} /></td><td>{a.act}{a.dry_run && <span class="dim"> (said only)</span>}</td><td>{a.by}</td><td>{a.target}</td>
  <td class="n">{number(a.done)}{a.left > 0 && <span class="dim"> of {number(a.done + a.left)}</span>}</td><td>{a.error || a.outcome || (a.ended ? "" : "under way")}</td><td>{a.undo && <Command text={a.undo} />}</td></tr>;

export function Acts() {
  const s = state.value!, got = useDocument<{ acts: Act[] | null }>("/api/v1/acts", `${did.value} ${s.acts?.map(a => a.id + a.ended).join()}`);
  const acts = got?.value?.acts ?? s.acts ?? [], [shown, more] = useMore(acts), alone = s.agent.policy.acts ?? [];
  return <>
    <Head title="Acts" json={got?.error ? "/api/v1/state" : "/api/v1/acts"}>What was done to connections, newest first, and what may be done.</Head>
    <dl class="figures"><div><dt>does by itself</dt><dd>{alone.length ? alone.join(", ") : "nothing"}</dd></div>
      {(s.agent.by_hand ?? []).map(h => <div key={h.act}><dt>{h.act} by hand</dt><dd>{h.why_not || `at ${h.on.join(", ")}`}</dd></div>)}<div><dt>policy</dt><dd>{s.agent.policy.path || "none"}</dd></div>
      <div><dt>rights</dt><dd>{s.agent.profile || "unknown"}</dd></div></dl>
    {s.agent.by_hand?.some(h => !h.why_not) && <p class="dim">An act is begun at a <a href={to("overview")}>finding</a>: it says what it would do, and does it when that is confirmed.</p>}
    {acts.length === 0 ? <Nothing>Nothing was done.</Nothing> : <Wide label="Acts"><table><thead><tr><th scope="col">when</th><th scope="col">act</th><th scope="col">by</th><th scope="col">target</th><th scope="col" class="n">connections</th><th scope="col">outcome</th><th scope="col">undo</th></tr></thead>
      <tbody>{shown.map(a => <Row key={a.id} of={a} />)}</tbody></table></Wide>}{more}
  </>;
}
