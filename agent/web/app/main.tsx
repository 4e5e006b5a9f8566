// The page: what the agent serves without JavaScript, made live. It takes the place of what was served when the first state is here.

import { effect, signal } from "@preact/signals";
import { render } from "preact";
import { useEffect } from "preact/hooks";
import { Acts } from "./acts";
import { SelfView } from "./agent";
import { Calls } from "./calls";
import { Drawer } from "./connections";
import { Help, help, keyed } from "./keys";
import { ago } from "./format";
import { Leaks } from "./leaks";
import { clock, follow, lost, restarted, state } from "./live";
import { Names } from "./names";
import { Overview, verdictOf } from "./overview";
import { Mark, said, When } from "./parts";
import { Picture } from "./picture";
import { route, to, type View, views } from "./route";
import { dress, shade, theme, turn } from "./theme";
import { TimeLine } from "./time";
import { WhatIf } from "./whatif";

const shown: Record<View, () => preact.JSX.Element> = {
  overview: Overview, picture: Picture, whatif: WhatIf, calls: Calls, leaks: Leaks, names: Names, time: TimeLine, acts: Acts, agent: SelfView,
};

const calmed = 60_000; // ms that a restart of the agent is told of

function Connection() {
  if (lost.value !== null)
    return <p class="live lost" role="alert"><Mark of="broken" /> <span>No connection to the agent since <When at={lost.value} /> ({ago(lost.value, clock.value)}). What is shown is from then. Trying again…</span></p>;
  const again = restarted.value !== null && clock.value - restarted.value < calmed;
  return <p class="live" role="status"><span class="pulse" aria-hidden="true" /> live{again && <>; the agent was restarted at <When at={restarted.value} /></>}</p>;
}

function Nav() {
  const s = state.value!;
  const bad = s.findings.some(f => !f.resolved && f.severity === "fail");
  const badge: Partial<Record<View, number>> = { overview: s.findings.filter(f => !f.resolved && !f.cause && f.severity !== "info").length, calls: s.calls.length, leaks: s.leaks.filter(l => l.verdict === "leak").length };
  return <nav aria-label="Views"><ul>{Object.entries(views).map(([v, name]) => <li key={v}>
    <a href={to(v as View)} aria-current={route.value.view === v ? "page" : undefined}>{name}{!!badge[v as View] && <span class={v === "leaks" || (v === "overview" && bad) ? "badge" : "badge warn"}>{badge[v as View]}</span>}</a></li>)}</ul></nav>;
}

function Page() {
  const s = state.value!, { view, at } = route.value, View = shown[view];
  useEffect(() => {
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    window.scrollTo(0, 0);
  }, [view]);
  return <>
    <a class="skip" href="#main" onClick={e => { e.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the view</a>
    <header class="top">
      <h1><img src="/icon.svg" alt="" width="26" height="26" /> Lifeline <span class="host">{s.host}</span></h1>
      <Connection />
      <p class="buttons"><button type="button" class="quiet" onClick={turn} aria-label={`Theme: ${theme.value}`} title="Light, dark, or as the system says (d)">{theme.value === "auto" ? "◐ auto" : shade.value === "dark" ? "● dark" : "○ light"}</button>
        <button type="button" class="quiet" onClick={() => (help.value = true)} aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)">?</button></p>
    </header>
    <Nav />
    <div class={at.has("list") ? "body beside" : "body"}>
      <main id="main" tabIndex={-1}><View key={view} /></main>
      {at.has("list") && <Drawer />}
    </div>
    <footer class="dim">As of <When at={s.time} /> · state {s.seq} of run {s.run} · lifeline {s.agent.version} · <a href="/licences.txt">licences</a></footer>
    {help.value && <Help />}
    <p class="sr" aria-live="polite">{said.value}</p>
  </>;
}

const begun = signal(false);

dress();
follow();
document.addEventListener("keydown", keyed);
effect(() => {
  if (!state.value || begun.value) return;
  begun.value = true;
  document.body.replaceChildren();
  document.body.className = "app";
  render(<Page />, document.body);
});
effect(() => {
  const s = state.value;
  if (!s) return;
  const whole = verdictOf(s);
  document.title = `${lost.value !== null ? "no connection" : whole.status} · ${s.host} · Lifeline`;
});
