// Numbers, times and commands as people read them, in the words of the command line.

// Written by hand: what the browser has for it takes as long as all else that a table is made of.
export const number = (n: number): string => String(Math.round(n)).replace(/\B(?=(?:\d{3})+$)/g, ",");

export const plural = (n: number, one: string, many = one + "s"): string => `${number(n)} ${n === 1 ? one : many}`;

/** duration is a time in seconds, in the form of package bound. */
export function duration(s: number | null): string {
  if (s === null) return "unknown";
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${parseFloat(s.toFixed(1))} s`;
  const pair = (large: number, name: string, small: number, smallName: string): string => {
    const n = Math.round(s / small), rest = n % (large / small);
    return `${Math.floor(n / (large / small))} ${name}${rest ? ` ${rest} ${smallName}` : ""}`;
  };
  if (Math.round(s) < 180) return `${Math.round(s)} s`;
  if (Math.round(s) < 7200) return pair(60, "min", 1, "s");
  if (s < 2 * 86400 - 30) return pair(3600, "h", 60, "min");
  return pair(86400, "d", 3600, "h");
}

/** bound is how long a failure can go unnoticed. */
export const bound = (s: number | null, never: boolean): string => (never ? "never" : duration(s));

const zero = "0001-01-01T00:00:00Z";

/** known reports a time that is one. */
export const known = (t: string | null | undefined): boolean => !!t && t !== zero;

const two = (n: number): string => (n < 10 ? `0${n}` : `${n}`);

/** clockText is the time of day, here. */
export const clockText = (at: Date, seconds = true): string => `${two(at.getHours())}:${two(at.getMinutes())}${seconds ? `:${two(at.getSeconds())}` : ""}`;

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** moment is a time of today as a clock shows it, another day's with its date. */
export function moment(t: string | number | null): string {
  if (t === null || t === zero) return "not yet";
  const at = new Date(t), clock = clockText(at);
  return at.toDateString() === new Date().toDateString() ? clock : `${at.getDate()} ${months[at.getMonth()]}, ${clock}`;
}

/** ago is how long t is past, in one unit. */
export function ago(t: string | number, now: number): string {
  const s = Math.max(0, Math.floor((now - new Date(t).getTime()) / 1000));
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 2 * 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

export const percent = (f: number | null): string => (f === null ? "unknown" : `${parseFloat((f * 100).toPrecision(2))} %`);

export function bytes(n: number | null): string {
  if (n === null) return "unknown";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return `${n < 10 && unit !== "B" ? parseFloat(n.toFixed(1)) : number(n)} ${unit}`;
    n /= 1024;
  }
  return "";
}

/** value is a value of evidence: its key may name its unit. */
export function value(key: string, v: unknown): string {
  if (v === null || v === undefined) return "unknown";
  if (typeof v === "number") {
    if (key.endsWith("_seconds")) return duration(v);
    if (key.endsWith("_bytes")) return bytes(v);
    if (key === "pid" || key === "netns" || key === "port") return String(v);
    return Number.isInteger(v) ? number(v) : String(v);
  }
  if (Array.isArray(v)) return v.map(e => value("", e)).join(", ");
  if (typeof v === "object") return JSON.stringify(v);
  return v === true ? "yes" : v === false ? "no" : String(v);
}

export const words = (key: string): string => key.replace(/_seconds$|_bytes$/, "").replaceAll("_", " ");

const alone = new Set(["--yes", "--undo", "--silent", "--watch", "--json", "--binaries", "--passive"]);

/** commandIn is the command in a line of advice, and what is before and after it; null where there is none. */
export function commandIn(fix: string): { before: string; command: string; after: string } | null {
  const whole = /\b(sysctl -w(?: [\w.]+=\d+)+|ss -\w+|resolvectl \w+|lifeline [a-z]+(?= |$))/.exec(fix);
  if (!whole) return null;
  let end = whole.index + whole[0].length;
  if (whole[0].startsWith("lifeline")) {
    // Advice goes on after a command: what belongs to it are its flags, their values, and what is written as an address or a placeholder.
    for (let takes = false; ;) {
      const word = /^ (\S+)/.exec(fix.slice(end))?.[1];
      if (!word || !(takes || /^-/.test(word) || /^[A-Z]{2,}$|^[\w-]*[.:\d][\w.:/-]*$/.test(word))) break;
      const bare = word.replace(/[,;:.]$/, "");
      end += 1 + bare.length;
      takes = bare.startsWith("--") && !alone.has(bare) && !bare.includes("=");
      if (bare !== word) break;
    }
  }
  return { before: fix.slice(0, whole.index), command: fix.slice(whole.index, end), after: fix.slice(end) };
}
