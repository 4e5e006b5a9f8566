import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { go, route, to, unlisted, type View } from "./route";
import { turn } from "./theme";

export const help = signal(false);

const seeing: Record<string, View> = { 1: "overview", 2: "picture", 3: "whatif", 4: "calls", 5: "leaks", 6: "names", 7: "time", 8: "acts", 9: "agent" };

const keys: [string, string][] = [
  ["1 … 9", "the views, in the order of the bar"], ["/", "filter, or ask"], ["j k", "next, previous entry"], ["Enter", "open what has the focus"],
  ["↑ ↓", "in the picture: next, previous link"], ["d", "light, dark, as the system says"], ["Escape", "close"], ["?", "this list"],
];

/** step moves the focus among the entries of a view. */
function step(by: number): void {
  const all = [...document.querySelectorAll<HTMLElement>("main article button.open, main tbody td.links a:first-child")];
  const next = all[Math.max(0, Math.min(all.length - 1, all.indexOf(document.activeElement as HTMLElement) + by))];
  next?.focus();
}

function close(): void {
  if (help.value) help.value = false;
  else if (route.value.at.has("list")) go(unlisted());
  else (document.activeElement as HTMLElement | null)?.blur();
}

export function keyed(e: KeyboardEvent): void {
  const typing = (e.target as HTMLElement).matches("input, textarea, select");
  if (e.ctrlKey || e.metaKey || e.altKey || (typing && e.key !== "Escape")) return;
  const view = seeing[e.key];
  if (e.key === "Escape") return close();
  if (view) go(to(view));
  else if (e.key === "?") help.value = !help.value;
  else if (e.key === "d") turn();
  else if (e.key === "j") step(1);
  else if (e.key === "k") step(-1);
  else if (e.key === "/") document.querySelector<HTMLElement>("main input")?.focus();
  else return;
  e.preventDefault();
}

export function Help() {
  const frame = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = frame.current!;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  return <dialog ref={frame} class="help" aria-label="Keyboard shortcuts" onClose={() => (help.value = false)} onClick={e => e.target === frame.current && (help.value = false)}>
    <div><header class="head"><h2>Keyboard</h2><button type="button" class="close" onClick={() => (help.value = false)} aria-label="Close">✕</button></header>
      <dl class="keys">{keys.map(([key, text]) => <div key={key}><dt>{key.split(" ").map(k => <kbd key={k}>{k}</kbd>)}</dt><dd>{text}</dd></div>)}</dl></div>
  </dialog>;
}
