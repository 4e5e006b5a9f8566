package bound

import "time"

const (
	// mostProbes is as many as Linux sends by default, so that loss on the way is
	// outlived as well as ever.
	mostProbes = 9

	// longestKeepAlive keeps every option inside what the kernel takes: 32,767
	// seconds (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of net/tcp.h).
	longestKeepAlive = 9 * time.Hour
)

// Within returns the options by which keepalive notices a silent peer of an
// idle connection within a time, counted from its last segment: the bound
// [Conn.Idle] of a connection that has them is no longer, Latest included,
// whatever the tick of the kernel's clock.
//
// A third of the time is quiet, for the rest the peer is asked, in whole seconds
// as the kernel counts them, by up to nine probes. It is never asked only once:
// a single lost probe would then end a connection that is well. That takes 3.2 s
// at least; for less it returns false, and the options that take so long. More
// than nine hours is taken as nine hours.
//
// It sets no user timeout, which would override the count and end connections
// to a peer that is alive but does not read.
func Within(within time.Duration) (o Options, ok bool) {
	const fewest = 2
	within = min(within, longestKeepAlive)
	interval := max(time.Second, (within * 2 / 3 / mostProbes).Truncate(time.Second))
	o = Options{KeepAlive: true, Idle: time.Second, Interval: interval, Count: mostProbes}
	o.Idle = max(interval, (within / 3).Truncate(time.Second))
	for o.Count > fewest && latestIdle(o) > within {
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
