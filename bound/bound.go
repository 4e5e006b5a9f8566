// Package bound computes how long the failure of a TCP connection can go
// unnoticed: the longest silence, from the moment the path or the peer dies
// without a word until the kernel reports an error to the program.
//
// It is pure arithmetic over socket options and sysctls by the rules of the
// Linux kernel (net/ipv4/tcp_timer.c); it opens, reads and waits for nothing.
//
//	c := bound.Conn{Options: bound.Options{
//		KeepAlive: true,
//		Idle:      15 * time.Second,
//		Interval:  15 * time.Second,
//		Count:     9,
//	}}
//	c.Idle().After    // 2m30s: Go's default, counted from the last segment
//	c.Sending().After // 15m24.6s: keepalive does not run while data is unacknowledged
package bound

import "time"

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
	UserTimeout time.Duration // TCP_USER_TIMEOUT: longest time that data or a probe stays unanswered
}

// Sysctl are the settings of a network namespace, net.ipv4.tcp_*, that hold
// where a socket has none of its own. The zero value of every field means
// Linux's default.
type Sysctl struct {
	KeepAliveTime     time.Duration // tcp_keepalive_time, 2 h
	KeepAliveInterval time.Duration // tcp_keepalive_intvl, 75 s
	KeepAliveProbes   int           // tcp_keepalive_probes, 9
	Retries2          int           // tcp_retries2, 15
	SynRetries        int           // tcp_syn_retries, 6
	SynLinearTimeouts int           // tcp_syn_linear_timeouts, 4; -1 for kernels before 6.5, which have none
	SynAckRetries     int           // tcp_synack_retries, 5
}

// Conn is what the bound of one connection is computed from.
type Conn struct {
	Options
	Sysctl
	RTO time.Duration // retransmission timeout before any back-off; zero means TCP_RTO_MIN, 200 ms
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

// Bound is the longest time from a failure to its notice.
type Bound struct {
	After   time.Duration // zero when By is None
	By      Mechanism
	OneLoss bool // a single lost probe ends the connection, even when its peer is alive
}

// Never reports that no mechanism will ever notice.
func (b Bound) Never() bool { return b.By == None }
