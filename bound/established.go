package bound

import "time"

// Idle is the bound of a connection on which nothing is sent, counted from the
// last segment that came from the peer. It is keepalive's:
//
//	Idle + Interval × Count                               without a user timeout
//	Idle + Interval × ceil((UserTimeout-Idle) / Interval) with one; at least one interval
//
// A user timeout takes the place of the count: TCP_KEEPCNT is ignored, and one
// lost probe ends the connection where the user timeout is over by the end of
// the first interval (see [Bound.OneLoss]). Without keepalive nothing ever
// notices, user timeout or not.
//
// Where Interval is longer than Idle, the first probe may come an Interval after
// the last segment instead of Idle, because the answer to a probe does not set
// the timer anew. The sum then starts with Interval, and under a user timeout
// the bound is an Interval more than the longer of UserTimeout and Interval.
//
// Where SO_KEEPALIVE was switched on after the last segment, count from then.
// The rules are those of tcp_keepalive_timer in net/ipv4/tcp_timer.c.
func (c Conn) Idle() Bound {
	if !c.KeepAlive {
		return Bound{}
	}
	c = c.settled()
	total := run{tick: c.Tick}
	total.then(max(c.Options.Idle, c.Interval))
	total.aligned = 0 // what is left of a wait that a segment interrupted is a shorter timer
	if c.UserTimeout > 0 {
		return c.idleUserTimeout(total)
	}
	if c.Count > 0 {
		total.thenTimes(c.Interval, c.Count)
	}
	return Bound{After: total.rule, Latest: total.most, By: KeepAlive, OneLoss: c.Count <= 1}
}

// idleUserTimeout is Idle under a user timeout; first is the wait for the first
// probe.
func (c Conn) idleUserTimeout(first run) Bound {
	last := first
	last.then(c.Interval)
	b := Bound{By: UserTimeout, OneLoss: c.UserTimeout <= last.most}
	if c.Interval <= c.Options.Idle {
		if over := c.UserTimeout - c.Options.Idle; over > c.Interval {
			last.thenTimes(c.Interval, int((over-1)/c.Interval))
		}
		b.After, b.Latest = last.rule, last.most
		return b
	}
	// The first probe comes anywhere between Idle and Interval, so all that is
	// known of the timer before the last is that the user timeout was not over,
	// or that it sent the first probe.
	interval := run{tick: c.Tick}
	interval.then(c.Interval)
	b.After = max(c.UserTimeout, first.rule) + interval.rule
	b.Latest = max(c.UserTimeout, first.most) + interval.most
	return b
}

// Sending is the bound of a connection with data that the peer has not
// acknowledged, counted from when the first of it was sent. Keepalive does not
// run meanwhile.
//
// The kernel sends the data again after at most two RTO, one for the tail loss
// probe and one for the timeout. From that moment on it counts. It gives up when
// a retransmission timer fires, the waits between which double up to RTOMax, and
// the time since then has reached what tcp_retries2 retransmissions would have
// taken had RTO been 200 ms: 924.6 s for the default of 15. So the bound is that
// time rounded up to a sum of waits; for an RTO of 204 ms, the usual one on a
// local network, 928.9 s by the rule and 940 s with the lateness of timers.
//
// A user timeout takes the place of the 924.6 s, whether shorter or longer, and
// the last wait is cut short to end with it. It too is counted from the first
// retransmission, not from the data.
//
// The rules are those of tcp_retransmit_timer, retransmits_timed_out and
// tcp_clamp_rto_to_user_timeout in net/ipv4/tcp_timer.c, tcp_schedule_loss_probe
// and tcp_send_loss_probe in net/ipv4/tcp_output.c. Linear timeouts for thin
// streams (TCP_THIN_LINEAR_TIMEOUTS) are taken to be off, as they are by default.
func (c Conn) Sending() Bound {
	c = c.settled()
	lost := run{tick: c.Tick}
	lost.then(c.RTO)
	lost.aligned = 0 // the wait for the loss probe may be the shorter timer
	lost.then(c.RTO)
	if c.UserTimeout > 0 {
		return Bound{
			After:  lost.rule + c.UserTimeout,
			Latest: lost.most + c.clamped(c.UserTimeout),
			By:     UserTimeout,
		}
	}
	timeout := modelTimeout(c.Retries2, rtoMin, c.RTOMax)
	tries := run{tick: c.Tick, aligned: lost.aligned}
	for rto := c.RTO; tries.least < timeout; {
		tries.most = min(tries.most, timeout) // a connection that has got there is at its end
		rto = min(2*rto, c.RTOMax)
		tries.then(rto)
	}
	return Bound{After: lost.rule + tries.rule, Latest: lost.most + tries.most, By: Retransmission}
}

// Stalled is the bound of a connection whose peer has closed its window and so
// keeps data waiting, counted from the peer's last segment. Keepalive does not
// run meanwhile.
//
// Without a user timeout a peer may keep the window closed for ever as long as
// it answers the window probes; once it falls silent, as many probes as
// tcp_retries2 says are sent, as far apart as they have come to be by then: at
// worst RTOMax each, so that the default makes 32 minutes.
//
// The trap is the user timeout: it ends the connection although its probes are
// answered (see [Bound.SlowDies]), so it turns a slow reader into a dead one. It
// is counted from the first probe, an RTO after the window closed.
//
// The rules are those of tcp_probe_timer in net/ipv4/tcp_timer.c and
// tcp_send_probe0 in net/ipv4/tcp_output.c. A peer that takes back a window while
// data is under way into it is another case (tcp_rtx_probe0_timed_out): without a
// user timeout it is given up after twice to three times RTOMax.
func (c Conn) Stalled() Bound {
	c = c.settled()
	wait := min(max(c.RTO, rtoMin), c.RTOMax)
	total := run{tick: c.Tick}
	if c.UserTimeout > 0 {
		total.then(wait)
		return Bound{
			After:    total.rule + c.UserTimeout,
			Latest:   total.most + c.clamped(c.UserTimeout),
			By:       UserTimeout,
			SlowDies: true,
		}
	}
	for doublings := 0; doublings < c.Retries2 && wait < c.RTOMax; doublings++ {
		wait = min(2*wait, c.RTOMax)
	}
	total.thenTimes(wait, c.Retries2+1)
	return Bound{After: total.rule, Latest: total.most, By: Retransmission}
}

// clamped is how long a chain of waits of at most RTOMax takes at most whose
// last is cut short to end after d.
func (c Conn) clamped(d time.Duration) time.Duration {
	return d + granularity(min(d, c.RTOMax), c.Tick) + c.Tick
}
