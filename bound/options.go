package bound

import "time"

const (
	// fewestProbes is what a bound must have room for: were it one, its loss
	// would end a connection that is well.
	fewestProbes = 2

	// mostProbes is where another one hardly helps: on a path that loses a fifth
	// of its packets each way, twelve in a row stay unanswered once in 200,000
	// times. Linux's default of nine does once in 10,000.
	mostProbes = 12

	// longestKeepAlive keeps every option inside what the kernel takes: 32,767
	// seconds (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of net/tcp.h).
	longestKeepAlive = 9 * time.Hour
)

// Within returns the options by which keepalive notices a silent peer of an
// idle connection within a time, counted from its last segment: the bound
// [Conn.Idle] of a connection that has them is no longer, Latest included,
// whatever the tick of the kernel's clock.
//
// A fifth of the time is quiet, or what is left of it. For the rest the peer is
// asked by as many probes as there is room for, up to twelve, in whole seconds as
// the kernel counts them. It is never asked only once: a single lost probe would
// then end a connection that is well. That takes 3.2 s at least; for less it
// returns false, and the options that take so long. More than nine hours is taken
// as nine hours.
//
// It sets no user timeout, which would override the count and end connections
// to a peer that is alive but does not read.
func Within(within time.Duration) (o Options, ok bool) {
	within = min(within, longestKeepAlive)
	interval := max(time.Second, (within * 2 / 3 / mostProbes).Truncate(time.Second))
	o = Options{KeepAlive: true, Idle: max(interval, (within / 5).Truncate(time.Second)), Interval: interval, Count: mostProbes}
	for o.Count > fewestProbes && latestIdle(o) > within {
		o.Count--
	}
	if latestIdle(o) > within {
		return o, false
	}
	for next := o; latestIdle(next) <= within; next.Idle += time.Second {
		o = next
	}
	return o, true
}

// latestIdle returns how long keepalive may take whatever the kernel's clock.
func latestIdle(o Options) time.Duration {
	var most time.Duration
	for _, hz := range []time.Duration{100, 250, 300, 1000} {
		most = max(most, Conn{Options: o, Tick: time.Second / hz}.Idle().Latest)
	}
	return most
}
