// Package bound computes how long the failure of a TCP connection can go
// unnoticed: the longest silence, from the moment the path or the peer dies
// without a word until the kernel reports an error to the program.
//
// It is pure arithmetic over socket options and sysctls by the rules of the
// Linux kernel (net/ipv4/tcp_timer.c, kernel/time/timer.c); it opens, reads and
// waits for nothing.
//
//	c := bound.Conn{Options: bound.Options{
//		KeepAlive: true,
//		Idle:      15 * time.Second,
//		Interval:  15 * time.Second,
//		Count:     9,
//	}}
//	c.Idle().After    // 2m30s: Go's default, counted from the last segment
//	c.Sending().After // 15m24.8s: keepalive does not run while data is unacknowledged
//
// What a connection does decides which bound holds:
//
//	doing                      bound             what notices
//	nothing                    [Conn.Idle]       keepalive, where it is on
//	waiting for data's ACK     [Conn.Sending]    tcp_retries2 or TCP_USER_TIMEOUT
//	waiting for a zero window  [Conn.Stalled]    the same
//	connecting                 [Conn.Connecting] tcp_syn_retries
//	being accepted             [Conn.Accepting]  tcp_synack_retries
//
// They follow one another: a program that writes just before keepalive would
// have noticed starts the longer bound of Sending, so a connection that may do
// either can be silent for the sum of the two.
//
// A failure that does say a word (an ICMP error, a reset, a neighbour that does
// not answer ARP) can be noticed sooner. Programs with timeouts of their own, as
// they all should have, notice by those.
package bound

import (
	"cmp"
	"time"
)

// Options are the settings of one TCP socket that decide its bound.
//
// A zero Idle, Interval, Count or UserTimeout means that the program has not
// set it, so the namespace's [Sysctl] holds; the kernel keeps the same zero in
// tcp_sock.keepalive_time, keepalive_intvl and keepalive_probes, and in
// inet_connection_sock.icsk_user_timeout.
type Options struct {
	KeepAlive   bool          // SO_KEEPALIVE
	Idle        time.Duration // TCP_KEEPIDLE: silence before the first probe
	Interval    time.Duration // TCP_KEEPINTVL: between probes
	Count       int           // TCP_KEEPCNT: unanswered probes that end the connection
	UserTimeout time.Duration // TCP_USER_TIMEOUT: longest time that data or a probe stays unanswered; no sysctl stands in for it
}

// Sysctl are the settings of a network namespace, net.ipv4.tcp_*, that hold
// where a socket has none of its own. The zero value of every field means
// Linux's default; who read a real 0 from the kernel says -1.
type Sysctl struct {
	KeepAliveTime     time.Duration // tcp_keepalive_time, 2 h
	KeepAliveInterval time.Duration // tcp_keepalive_intvl, 75 s
	KeepAliveProbes   int           // tcp_keepalive_probes, 9
	Retries2          int           // tcp_retries2, 15
	SynRetries        int           // tcp_syn_retries, 6; TCP_SYNCNT overrides it for a socket
	SynLinearTimeouts int           // tcp_syn_linear_timeouts, 4; -1 also for kernels before 6.5, which have none
	SynAckRetries     int           // tcp_synack_retries, 5
	RTOMax            time.Duration // tcp_rto_max_ms, 120 s; fixed before Linux 6.15
}

// Conn is what the bound of one connection is computed from.
type Conn struct {
	Options
	Sysctl
	RTO  time.Duration // retransmission timeout before any back-off, see [BaseRTO]; zero means TCP_RTO_MIN, 200 ms
	Tick time.Duration // of the kernel's clock, 1 s / CONFIG_HZ, as clock_getres(CLOCK_MONOTONIC_COARSE) shows it; zero means 4 ms
}

// Mechanism is the part of the kernel that notices.
type Mechanism uint8

// The mechanisms, from the one that never notices.
const (
	None           Mechanism = iota // nothing does: the silence lasts for ever
	KeepAlive                       // keepalive probes, counted
	UserTimeout                     // TCP_USER_TIMEOUT
	Retransmission                  // tcp_retries2
	SynRetries                      // tcp_syn_retries or tcp_synack_retries
)

// String returns the name of the setting that rules.
func (m Mechanism) String() string {
	switch m {
	case None:
		return "nothing"
	case KeepAlive:
		return "keepalive"
	case UserTimeout:
		return "TCP_USER_TIMEOUT"
	case Retransmission:
		return "tcp_retries2"
	case SynRetries:
		return "SYN retries"
	default:
		return "unknown mechanism"
	}
}

// Bound is the longest time from a failure to its notice.
type Bound struct {
	// After is the time by the rules, were the kernel's timers punctual: the
	// figure to show to people. It is zero when By is None.
	After time.Duration

	// Latest counts in that the kernel lets a timer fire late, by up to an
	// eighth of its length: the figure to hold the kernel to. Nothing but an
	// overloaded machine is later. It is zero when By is None.
	Latest time.Duration

	// By is what notices.
	By Mechanism

	// OneLoss says that a single lost probe ends the connection, even when its
	// peer is alive.
	OneLoss bool

	// SlowDies says that a peer need not be dead: one that answers but does not
	// read is cut off as well.
	SlowDies bool
}

// Never reports that no mechanism will ever notice.
func (b Bound) Never() bool { return b.By == None }

// Compare orders bounds by how long they are; never is the longest.
func Compare(a, b Bound) int {
	switch {
	case a.Never() && b.Never():
		return 0
	case a.Never():
		return 1
	case b.Never():
		return -1
	}
	return cmp.Or(cmp.Compare(a.After, b.After), cmp.Compare(a.Latest, b.Latest))
}

// String returns After in the two largest units that matter, for tables and
// sentences: "never", "204 ms", "6.5 s", "150 s", "15 min 29 s", "2 h 11 min".
// Seconds go up to three minutes, since that is how timeouts are configured.
func (b Bound) String() string {
	if b.Never() {
		return "never"
	}
	return Format(b.After)
}
