// Where the page is: #/VIEW?KEY=VALUE. What can be seen has an address, and Back works.

import { signal } from "@preact/signals";

export const views = {
  overview: "Overview", picture: "Who talks to whom", whatif: "What if", calls: "Calls", leaks: "Leaks", names: "Names",
  time: "Time line", acts: "Acts", agent: "Agent",
} as const;
export type View = keyof typeof views;

function read(): { view: View; at: URLSearchParams } {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: path in views ? (path as View) : "overview", at: new URLSearchParams(query) };
}

export const route = signal(read());
window.addEventListener("hashchange", () => (route.value = read()));

type Words = Record<string, string | null | undefined>;

/** to is the address of a view; null leaves a key out. */
export function to(view: View, at: Words = {}): string {
  const query = new URLSearchParams();
  for (const [key, v] of Object.entries(at)) if (v) query.set(key, v);
  const text = query.toString();
  return `#/${view}${text && "?" + text}`;
}

/** here is the address of this view with some keys changed. */
export const here = (at: Words): string => to(route.value.view, { ...Object.fromEntries(route.value.at), ...at });

export const go = (address: string): void => void (location.hash = address);

/** listing is the address that shows connections beside this view. */
export const listing = (peer: string, process: string, netns = 0): string => here({ peer, process, netns: netns ? String(netns) : null, list: "connections" });
export const unlisted = (): string => here({ peer: null, process: null, netns: null, list: null });
