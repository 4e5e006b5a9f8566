package bound

import "time"

// A run is the time that a chain of kernel timers takes, each set when the one
// before it fires.
//
// The kernel keeps its timers in a wheel of levels (kernel/time/timer.c). One
// of up to 63 ticks fires to the tick; each level above holds timers eight times
// as long and is eight times as coarse, and rounds up. So a timer of 120 s fires
// up to 2 s late where CONFIG_HZ is 250, and up to 4 s where it is 1000. How late
// depends on the moment it is set, which is arbitrary for the first timer of a
// level; from then on each is set when another of the same level fires, at a
// multiple of what the level can tell apart, so its lateness is known.
type run struct {
	tick    time.Duration
	rule    time.Duration // as long as the timers were set for
	least   time.Duration // as long as it takes at least
	most    time.Duration // as long as it takes at most
	aligned time.Duration // the last timer fired at a multiple of this
}

// then adds a timer of d.
func (r *run) then(d time.Duration) { r.thenTimes(d, 1) }

// thenTimes adds n timers of d, n > 0.
func (r *run) thenTimes(d time.Duration, n int) {
	grain := granularity(d, r.tick)
	whole := (d + r.tick - 1) / r.tick * r.tick
	next := (whole + grain) / grain * grain
	r.rule += time.Duration(n) * d
	if grain > r.aligned {
		r.least += d
		r.most += whole + grain
		n--
	}
	r.least += time.Duration(n) * next
	r.most += time.Duration(n) * next
	r.aligned = grain
}

// granularity returns what the level of the wheel that holds a timer of d can
// tell apart (LVL_START and LVL_GRAN of kernel/time/timer.c).
func granularity(d, tick time.Duration) time.Duration {
	const levels = 9
	grain, start := tick, 63*tick
	for level := 1; level < levels && d >= start; level++ {
		grain, start = grain*8, start*8
	}
	return grain
}

// modelTimeout is tcp_model_timeout of net/ipv4/tcp_timer.c: how long so many
// retransmissions would take after a first timeout of base. The kernel compares
// the time that really went by with it, but only when a timer fires.
func modelTimeout(retries int, base, longest time.Duration) time.Duration {
	doublings := 0
	for ratio := longest / base; ratio > 1; ratio /= 2 {
		doublings++
	}
	if retries <= doublings {
		return (2<<retries - 1) * base
	}
	return (2<<doublings-1)*base + time.Duration(retries-doublings)*longest
}
