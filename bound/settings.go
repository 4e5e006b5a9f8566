package bound

import "time"

const (
	rtoMin     = 200 * time.Millisecond // TCP_RTO_MIN
	rtoInitial = time.Second            // TCP_TIMEOUT_INIT, for a SYN or SYN-ACK
	rtoMax     = 120 * time.Second      // TCP_RTO_MAX

	tick = 4 * time.Millisecond // CONFIG_HZ=250

	// forever is more than the kernel can hold in any of its settings, which
	// are 31 bits of ticks, and little enough for 256 of them to be added up.
	forever = 256 * 24 * time.Hour
)

// Defaults returns s with Linux's defaults in place of its zero fields.
func (s Sysctl) Defaults() Sysctl {
	defaultTo(&s.KeepAliveTime, 2*time.Hour)
	defaultTo(&s.KeepAliveInterval, 75*time.Second)
	defaultTo(&s.KeepAliveProbes, 9)
	defaultTo(&s.Retries2, 15)
	defaultTo(&s.SynRetries, 6)
	defaultTo(&s.SynLinearTimeouts, 4)
	defaultTo(&s.SynAckRetries, 5)
	defaultTo(&s.RTOMax, rtoMax)
	return s
}

// In returns the options as the kernel uses them for a socket of a namespace
// with these settings: what the program has not set is taken from s.
func (o Options) In(s Sysctl) Options {
	s = s.Defaults()
	if o.Idle <= 0 {
		o.Idle = s.KeepAliveTime
	}
	if o.Interval <= 0 {
		o.Interval = s.KeepAliveInterval
	}
	if o.Count <= 0 {
		o.Count = s.KeepAliveProbes
	}
	o.Idle = within(o.Idle, 0, forever)
	o.Interval = within(o.Interval, time.Millisecond, forever)
	o.Count = within(o.Count, 0, 255)
	o.UserTimeout = within(o.UserTimeout, 0, forever)
	return o
}

// BaseRTO returns the retransmission timeout before any back-off, as [Conn] wants
// it, from what TCP_INFO shows: tcpi_rto, tcpi_retransmits and tcpi_backoff.
//
// Each retransmission doubles the timeout up to RTOMax; where that was reached,
// how often it was doubled no longer tells where it began, and TCP_RTO_MIN is
// taken. Window probes count as back-off too, but leave the timeout as it is
// (tcp_send_probe0 in net/ipv4/tcp_output.c).
func BaseRTO(rto time.Duration, retransmits, backoff uint8) time.Duration {
	if retransmits == 0 {
		return rto
	}
	return min(rto, max(rto>>backoff, rtoMin))
}

// settled returns c with nothing left to defaults and everything inside the
// limits that the kernel has for it (tcp_ipv4_table in
// net/ipv4/sysctl_net_ipv4.c).
func (c Conn) settled() Conn {
	c.Options = c.Options.In(c.Sysctl)
	c.Sysctl = c.Sysctl.Defaults()
	c.Retries2 = within(c.Retries2, 0, 255)
	c.SynRetries = within(c.SynRetries, 1, 127)
	c.SynLinearTimeouts = within(c.SynLinearTimeouts, 0, 127)
	c.SynAckRetries = within(c.SynAckRetries, 0, 255)
	c.RTOMax = within(c.RTOMax, time.Second, rtoMax)
	defaultTo(&c.Tick, tick)
	c.Tick = within(c.Tick, 100*time.Microsecond, 100*time.Millisecond)
	defaultTo(&c.RTO, rtoMin)
	c.RTO = within(c.RTO, c.Tick, c.RTOMax)
	return c
}

func defaultTo[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func within[T int | time.Duration](v, least, most T) T { return min(max(v, least), most) }
