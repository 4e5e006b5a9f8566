// Small pieces that every view is made of.

import { type Signal, signal, useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect } from "preact/hooks";
import { ago, moment, number } from "./format";
import { clock, fetched } from "./live";

const glyphs: Record<string, string> = {
  kept: "✓", alive: "✓", healthy: "✓", warned: "!", warn: "!", unsure: "?", suspect: "!", broken: "✕", fail: "✕", silent: "✕", leak: "✕",
  unknown: "?", info: "i", over: "✓",
};

/** Mark is a status by form and colour; the word beside it says the same. */
export const Mark = ({ of }: { of: string }) => <span class={`mark ${of}`} aria-hidden="true">{glyphs[of] ?? "?"}</span>;

export const Verdict = ({ of }: { of: string }) => <span class={`verdict ${of}`}><Mark of={of} /> {of}</span>;

export const Json = ({ path }: { path: string }) => <a class="json" href={path} target="_blank" rel="noopener" aria-label="this view as JSON">JSON</a>;

/** Head is the head of a view. */
export function Head({ title, json, children }: { title: string; json: string; children?: ComponentChildren }) {
  return <header class="head"><h2 tabIndex={-1}>{title}</h2><Json path={json} />{children && <p class="dim">{children}</p>}</header>;
}

export const When = ({ at }: { at: string | number | null }) =>
  at === null ? <span>not yet</span> : <time dateTime={new Date(at).toISOString()} title={new Date(at).toISOString()}>{moment(at)}</time>;

export const Ago = ({ at }: { at: string }) => <time dateTime={at} title={moment(at)}>{ago(at, clock.value)}</time>;

/** said is what a screen reader is told next. */
export const said = signal("");

/** copy puts text on the clipboard; browsers keep navigator.clipboard from plain HTTP off loopback. */
async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

export function Command({ text }: { text: string }) {
  const done = useSignal("");
  const take = async () => {
    done.value = (await copy(text)) ? "Copied" : "Select it";
    said.value = `${done.value}: ${text}`;
    window.setTimeout(() => (done.value = ""), 1500);
  };
  return <span class="command"><code>{text}</code><button type="button" class="quiet" onClick={take} aria-label={`Copy: ${text}`}>{done.value || "Copy"}</button></span>;
}

/** Wide is a table that may be wider than the page, and then scrolls by itself. */
export const Wide = ({ label, children }: { label: string; children: ComponentChildren }) =>
  <div class="wide" role="region" aria-label={label} tabIndex={0}>{children}</div>;

const few = 25, further = 50; // as many as are laid out without anybody waiting for it

/** useMore shows the first entries of a list, and more when asked. */
export function useMore<T>(all: T[]): [T[], JSX.Element | null] {
  const most = useSignal(few);
  const left = all.length - most.value;
  return [all.slice(0, most.value), left > 0 ? <p><button type="button" onClick={() => (most.value += further)}>Show {number(Math.min(left, further))} more of {number(left)}</button></p> : null];
}

export function Filter({ of, label }: { of: Signal<string>; label: string }) {
  return <input class="filter" type="search" placeholder={label} aria-label={label} value={of.value} onInput={e => (of.value = e.currentTarget.value)} />;
}

export function Choice({ of, label, all }: { of: Signal<string>; label: string; all: Record<string, string> }) {
  return <div class="choice" role="group" aria-label={label}>{Object.entries(all).map(([key, text]) =>
    <button key={key} type="button" aria-pressed={of.value === key} onClick={() => (of.value = key)}>{text}</button>)}</div>;
}

export type Got<T> = { path: string; value?: T; error?: string };

/** useDocument fetches a document of the API, again when its path or again changes; what is there stays until the new one is. */
export function useDocument<T>(path: string | null, again: unknown = 0): Got<T> | null {
  const got = useSignal<Got<T> | null>(null);
  useEffect(() => {
    if (path === null) {
      got.value = null;
      return;
    }
    let gone = false;
    fetched<T>(path).then(
      value => gone || (got.value = { path, value }),
      (e: Error) => gone || (got.value = { path, error: e.message }),
    );
    return () => void (gone = true);
  }, [path, again]);
  return got.value;
}

export const Problem = ({ text }: { text: string }) => <p class="problem" role="alert"><Mark of="warn" /> {text}</p>;

/** unlooked is what is said where nothing is there to be shown because nobody looked yet. */
export const unlooked = "Not looked at yet.";

export const Nothing = ({ children }: { children: ComponentChildren }) => <p class="nothing">{children}</p>;
