// What the agent says, as it says it: one stream of events, four a second at most.

import { signal } from "@preact/signals";
import type { State } from "./types";

export const state = signal<State | null>(null);

/** within is a network namespace where there are several; 0 where it would say nothing. */
export const within = (netns: number): number => ((state.value?.totals.namespaces ?? 0) > 1 ? netns : 0);

/** lost is when the agent was heard last, while the connection to it is lost; else null. */
export const lost = signal<number | null>(null);

/** restarted is when another run of the agent answered; null while it is the first. */
export const restarted = signal<number | null>(null);

/** clock is the time, each second, for whoever shows how long ago something was. */
export const clock = signal(Date.now());

/** series is what this page saw itself, for as long as it is open. */
export const series = { time: [] as number[], sockets: [] as number[] };

const calm = 250; // ms between two updates of the page, at the least
const quiet = 12_000; // ms without an event before the agent is asked whether it lives
const patience = 5_000; // ms it may take for that answer
const mostSeen = 7_200;
const lists = ["promises", "findings", "links", "peers", "leaks", "calls", "sources", "blind", "acts"] as const;

let source: EventSource | null = null;
let heard = Date.now();
let pending: string | null = null;
let shownAt = 0;
let timer = 0;

function hear(): void {
  heard = Date.now();
  lost.value = null;
}

function lose(): void {
  lost.value ??= heard;
}

function show(): void {
  timer = 0;
  if (pending === null) return;
  const next = JSON.parse(pending) as State;
  for (const list of lists) next[list] ??= [] as never; // an agent that has not looked yet has none
  pending = null;
  shownAt = Date.now();
  const before = state.peek();
  if (before && before.run !== next.run) restarted.value = shownAt;
  series.time.push(Date.parse(next.time) / 1000);
  series.sockets.push(next.totals.sockets);
  if (series.time.length > mostSeen) {
    series.time.shift();
    series.sockets.shift();
  }
  state.value = next;
}

function open(): void {
  source?.close();
  const s = (source = new EventSource("/api/v1/stream"));
  s.addEventListener("open", hear);
  s.addEventListener("state", e => {
    hear();
    pending = (e as MessageEvent<string>).data;
    if (!timer) timer = window.setTimeout(show, Math.max(0, shownAt + calm - Date.now()));
  });
  s.addEventListener("error", () => {
    lose();
    // A browser comes back by itself with Last-Event-ID, except from an answer that is an error.
    if (s.readyState === EventSource.CLOSED) window.setTimeout(() => s === source && open(), 2_000);
  });
}

/** ask notices what no stream can tell by itself: that it has fallen silent. */
async function ask(): Promise<void> {
  if (Date.now() - heard < quiet || lost.peek() !== null) return;
  try {
    const answer = await fetch("/healthz", { signal: AbortSignal.timeout(patience) });
    if (answer.ok) hear();
  } catch {
    lose();
    open();
  }
}

export function follow(): void {
  open();
  window.setInterval(() => (clock.value = Date.now()), 1_000);
  window.setInterval(() => void ask(), 3_000);
}

/** fetched is a document of the API; an error has the API's own words. */
export async function fetched<T>(path: string, body?: object): Promise<T> {
  const told: RequestInit = { signal: AbortSignal.timeout(30_000) };
  if (body) Object.assign(told, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  let answer: Response;
  try {
    answer = await fetch(path, told);
  } catch {
    throw new Error("the agent does not answer");
  }
  const text = await answer.text();
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Error(`the agent answered ${answer.status}, and not as JSON`);
  }
  if (!answer.ok) throw new Error((document as { error?: string }).error ?? `the agent answered ${answer.status}`);
  return document as T;
}
