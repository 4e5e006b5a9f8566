package bound

// Connecting is the bound of a connection attempt that nobody answers, counted
// from the first SYN.
//
// SYNs are a second apart for tcp_syn_linear_timeouts of them, and then twice as
// far apart each time. The kernel gives up when a timer fires and either
// tcp_syn_retries and tcp_syn_linear_timeouts have been used up, or the time that
// tcp_syn_retries alone would have taken is over: with the defaults, after 131 s.
// A user timeout ends the attempt sooner, but not before the first second.
//
// The rules are those of tcp_write_timeout and tcp_retransmit_timer in
// net/ipv4/tcp_timer.c.
func (c Conn) Connecting() Bound {
	c = c.settled()
	timeout := modelTimeout(c.SynRetries, rtoInitial, c.RTOMax)
	total := run{tick: c.Tick}
	total.then(rtoInitial)
	rto := rtoInitial
	for sent := 0; sent == 0 || sent < c.SynRetries+c.SynLinearTimeouts && total.least < timeout; {
		if sent > 0 {
			total.most = min(total.most, timeout) // an attempt that has got there is at its end
		}
		if sent++; sent > c.SynLinearTimeouts {
			rto = min(2*rto, c.RTOMax)
		}
		total.then(rto)
	}
	if after := max(c.UserTimeout, rtoInitial); c.UserTimeout > 0 && after < total.rule {
		return Bound{After: after, Latest: min(c.clamped(after)+2*c.Tick, total.most), By: UserTimeout}
	}
	return Bound{After: total.rule, Latest: total.most, By: SynRetries}
}

// Accepting is how long the kernel keeps a connection that a peer asked for and
// never confirmed (SYN_RECV), counted from the peer's last SYN. No program
// learns of its end: it was not accepted yet.
//
// The rules are those of reqsk_timer_handler in
// net/ipv4/inet_connection_sock.c. A listener under pressure gives up sooner;
// one with TCP_DEFER_ACCEPT may wait longer.
func (c Conn) Accepting() Bound {
	c = c.settled()
	total := run{tick: c.Tick}
	rto := rtoInitial
	total.then(rto)
	for range c.SynAckRetries {
		rto = min(2*rto, c.RTOMax)
		total.then(rto)
	}
	return Bound{After: total.rule, Latest: total.most, By: SynRetries}
}
