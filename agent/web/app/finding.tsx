import { signal } from "@preact/signals";
import { Deed } from "./acts";
import { bound, commandIn, number, plural, value, words } from "./format";
import { Ago, Command, Mark, When } from "./parts";
import { here, listing, to } from "./route";
import type { Finding } from "./types";

/** opened are the findings that somebody opened or closed by hand. */
export const opened = signal<ReadonlyMap<string, boolean>>(new Map());

export function toggle(id: string, is: boolean): void {
  opened.value = new Map(opened.peek()).set(id, is);
}

/** peerOf is the address that a finding is about. */
export const peerOf = (f: Finding): string => (typeof f.subject?.peer === "string" ? f.subject.peer : "");

/** Advice is a line of advice, with its commands to copy. */
function Advice({ text, process }: { text: string; process: unknown }) {
  const found = commandIn(text);
  if (!found) return <>{text}</>;
  const command = typeof process === "string" ? found.command.replace("NAME", process) : found.command;
  return <>{found.before}<Command text={command} /><Advice text={found.after} process={process} /></>;
}

function Evidence({ of }: { of: Finding }) {
  const all = Object.entries(of.evidence ?? {});
  if (all.length === 0) return null;
  return <dl class="evidence">{all.map(([key, v]) => <div key={key}><dt>{words(key)}</dt><dd>{value(key, v)}</dd></div>)}</dl>;
}

function Story({ of: f, hidden }: { of: Finding; hidden: Finding[] }) {
  const peer = peerOf(f), process = typeof f.subject?.process === "string" ? f.subject.process : "";
  return <div class="story">
    <p>{f.why}</p>
    <Evidence of={f} />
    {!!f.fix?.length && <><h4>What to do</h4><ul class="fix">{f.fix.map(text => <li key={text}><Advice text={text} process={f.subject?.process} /></li>)}</ul></>}
    <p class="dim">
      First seen <When at={f.first_seen} />, last <When at={f.last_seen} />
      {f.times > 1 && <>, came {number(f.times)} times</>}{f.flapping && <>, comes and goes</>}
      {f.resolved && <>, over since <When at={f.resolved} /></>}
      {f.bound_seconds !== null && <>; unnoticed for up to {bound(f.bound_seconds, false)}</>}.
    </p>
    <p class="links">
      {(peer || process) && <a href={listing(peer, process)}>Connections</a>}
      {peer && <a href={to("whatif", { dead: peer })}>If {peer} dies</a>}
      {peer && <a href={to("time", { of: peer })}>Its time line</a>}
    </p>
    {f.resolved === null && f.code === "S001" && <Deed act="cut" finding={f.id} code={f.code} />}
    {hidden.length > 0 && <details class="hides"><summary>Explains {plural(hidden.length, "other finding")}</summary>
      <ul>{hidden.map(h => <li key={h.id}><a href={here({ finding: h.id })}>{h.code}</a> {h.title}</li>)}</ul></details>}
  </div>;
}

export function Card({ of: f, all, first }: { of: Finding; all: Finding[]; first: boolean }) {
  const over = f.resolved !== null, is = opened.value.get(f.id) ?? (first && !over);
  const cause = f.cause && all.find(c => c.id === f.cause);
  return <article class={`finding ${over ? "over" : f.severity}`} data-finding={f.id}>
    <h3><button type="button" class="open" aria-expanded={is} onClick={() => toggle(f.id, !is)}>
      <Mark of={over ? "over" : f.severity} />
      <span class="title"><span class="sr">{over ? "over" : f.severity}: </span>{f.title}</span>
      <span class="meta"><span class="code">{f.code}</span> {over ? <>over <Ago at={f.resolved!} /></> : <Ago at={f.first_seen} />}</span>
    </button></h3>
    {is && <Story of={f} hidden={all.filter(h => h.cause === f.id && h.resolved === null)} />}
    {is && cause && <p class="dim cause">Explained by <a href={here({ finding: cause.id })}>{cause.code}: {cause.title}</a></p>}
  </article>;
}
