// Light, dark, or as the system says.

import { computed, effect, signal } from "@preact/signals";

export const themes = ["auto", "light", "dark"] as const;
export type Theme = (typeof themes)[number];

const key = "lifeline-theme", dark = matchMedia("(prefers-color-scheme: dark)"), system = signal(dark.matches);
dark.addEventListener("change", e => (system.value = e.matches));

function kept(): Theme {
  try {
    return themes.find(t => t === localStorage.getItem(key)) ?? "auto";
  } catch {
    return "auto"; // a browser may keep nothing
  }
}

export const theme = signal<Theme>(kept());

/** shade is what the page looks like now. */
export const shade = computed(() => (theme.value === "auto" ? (system.value ? "dark" : "light") : theme.value));

export const turn = (): void => void (theme.value = themes[(themes.indexOf(theme.value) + 1) % themes.length]!);

export function dress(): void {
  effect(() => {
    document.documentElement.dataset.theme = shade.value;
    try {
      localStorage.setItem(key, theme.value);
    } catch {
      return;
    }
  });
}
