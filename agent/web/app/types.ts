// What the API says: package state, as JSON. Unknown is null.

export interface State {
  host: string; time: string; run: string; seq: number;
  agent: Agent; promises: Promised[]; findings: Finding[]; totals: Totals;
  links: Link[]; peers: Peer[]; leaks: Site[]; names: Names | null; calls: Waiting[];
  sources: Source[]; blind: Blind[]; acts: Act[] | null;
}

export interface Agent {
  version: string; pid: number; started: string; profile: string; by_hand: ByHand[] | null;
  policy: { path: string; loaded: string; error: string; acts: string[] | null };
  cpu_fraction: number | null; resident_bytes: number | null; history: string; history_problem: string;
  missing: { feature: string; profile: string; needs: string; lost: string }[] | null;
}

export type Status = "kept" | "warned" | "broken" | "unknown";
export interface Promised { promise: string; status: Status; findings: number; summary: string; looked: string | null }

export type Severity = "fail" | "warn" | "info";
export interface Finding {
  code: string; promise: string; severity: Severity; title: string;
  subject: Record<string, unknown> | null; evidence: Record<string, unknown> | null;
  why: string; fix: string[] | null; bound_seconds: number | null;
  id: string; first_seen: string; last_seen: string; resolved: string | null;
  times: number; flapping: boolean; count: number; cause: string; hides: number;
}

export interface Totals {
  sockets: number; families: Record<string, number> | null; tcp: Record<string, number> | null;
  processes: number; namespaces: number; peers: number; links: number; sites: number;
  opened_per_second: number | null; resets_per_second: number | null; resent_per_second: number | null;
  conntrack_fraction: number | null; file_limit_fraction: number | null; looked: string; census_seconds: number;
}

export interface End { name: string; pid?: number; processes: number; unit?: string; container?: string; folded: number }
export type Verdict = "alive" | "unsure" | "silent";
interface Bounds { bound_idle_seconds: number | null; bound_sending_seconds: number | null; bound_never: boolean }
export interface Link extends Bounds {
  from: End; to: End; port: string; netns: number; protocol: string; count: number; verdict: Verdict; unacked: number; here: boolean;
}

export interface Holder { pid: number; process: string; count: number }
export interface Peer extends Bounds {
  peer: string; netns: number; count: number; verdict: Verdict; since: string | null; quiet_ms: number | null;
  processes: Holder[] | null; bound_unknown: number;
}

export interface Connection extends Bounds {
  cookie: string; protocol: string; state: string; local: string; remote: string; netns: number; process: Holder;
  heard_ms: number | null; rtt_ms: number | null; send_queue_bytes: number; receive_queue_bytes: number; resent_segments: number; bound_idle_by: string;
}
export interface Connections { time: string; total: number; connections: Connection[] }

export interface Notice { first_seconds: number | null; last_seconds: number | null; never: number }
export interface Loss {
  peer: string; netns: number; count: number; addresses: number; processes: (Holder & { idle: Notice; sending: Notice })[] | null;
  idle: Notice; sending: Notice; bound_unknown: number; transit: number | null;
}

export interface Call { function: string; file: string; line: number }
export interface Site {
  id: string; pid: number; process: string; container?: string; asked_by: Call; opened_at: Call; stack: Call[] | null; stack_unknown: string;
  peer: string; accepted: boolean; opened: number; open: number; idle_seconds: number | null; file_limit_in_seconds: number | null;
  verdict: "leak" | "suspect" | "healthy"; diagnosis: string; first_seen: string; open_over_time: number[] | null;
}

export interface Waiting { pid: number; process: string; peer: string; count: number; since_seconds: number; acknowledged: boolean; goroutines: string[] | null }

export interface Names {
  time: string; config: { source: string; text: string }[] | null;
  servers: { address: string; way: string; ok: boolean | null; ms: number | null; error: string }[] | null;
  names: { name: string; ways: { way: string; ok: boolean; addresses: string[] | null; ms: number; error: string }[] | null }[] | null;
  programs: { resolver: string; count: number; fail_here: number | null; examples: string[] | null }[] | null;
}

export interface Source { name: string; every_seconds: number; last: string | null; took_seconds: number | null; late: boolean; error: string; off: string }
export interface Blind { source: string; error: string; needs: string | null }
/** ByHand is an act that may be asked for at findings of these codes; why_not is why at none, "" where it may. */
export interface ByHand { act: string; on: string[]; why_not: string }
export interface Act {
  id: string; time: string; ended: string | null; act: string; by: string; why: string; target: string; done: number; left: number;
  dry_run: boolean; outcome: string; error: string; undo: string;
}
export interface Plan { plan: string; act: string; target: string; count: number; text: string; expires: string }

export interface Span { first: string | null; last: string | null; records: number; bytes: number }
export interface Range { from: string; to: string; step_seconds: number; points: { time: string; count: number | null }[] }
export interface Moment { asked: string; time: string; next: string | null; gap: boolean; note: string }
export interface Past extends Moment { count: number; groups_total: number; groups: { program: string; unit: string; peer: string; port: string; count: number }[] | null }
export interface Change { peer: string; from: number; to: number; programs: string[] | null }
export interface PastFinding { id: string; code: string; severity: Severity; title: string; first_seen: string; last_seen: string; resolved: string | null; count: number; cause: string }
export interface Difference {
  from: Moment; to: Moment; came: Change[] | null; went: Change[] | null; grew: Change[] | null; shrank: Change[] | null;
  same: number; count_before: number; count_after: number; findings: PastFinding[] | null;
}
export interface Happening { begin: string; end: string; shifts: (Change & { begin: string; end: string; gap: boolean })[] | null; findings: PastFinding[] | null }
