package fact

import (
	"net/netip"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// Life is what tells a live path from a dead one. Times are ages at the moment
// of the look.
type Life struct {
	LastAck         time.Duration // since the peer last acknowledged anything: the best proof of life (tcpi_last_ack_recv)
	RTO             time.Duration // with back-off (tcpi_rto)
	RTT             time.Duration // smoothed
	Backoff         uint8         // doublings of the RTO since the last acknowledgement
	Retransmits     uint8         // RTO retransmissions of the same data, unanswered
	Probes          uint8         // keepalive or zero-window probes, unanswered
	Unacked         uint32        // segments sent and not acknowledged
	NotSent         uint32        // bytes in the send queue that were never sent: the window is closed or congestion holds them
	SendWindow      Known[uint32] // what the peer says it can take, in bytes (tcpi_snd_wnd, Linux 5.4)
	TotalRetransmit uint32        // segments sent again over the life of the connection
}

// BaseRTO is the retransmission timeout without back-off. Data in flight that a
// closed window refuses is sent again without being counted in Retransmits
// (tcp_retransmit_timer in net/ipv4/tcp_timer.c), and the timeout doubles all the
// same; only window probes, with nothing in flight, leave it as it is.
func (l *Life) BaseRTO() time.Duration {
	again := l.Retransmits
	if l.Unacked > 0 && l.Backoff > 0 {
		again = max(again, 1)
	}
	return bound.BaseRTO(l.RTO, again, l.Backoff)
}

// Namespace is a network namespace, and the settings in it that bounds rest on.
type Namespace struct {
	Inode  uint32
	Name   string // of /run/netns; "" when it has none
	PID    int32  // a process in it, 0 when it has none
	Own    bool   // the namespace that Lifeline runs in
	Sysctl Known[bound.Sysctl]
	Local  []netip.Addr // addresses that are this namespace's own; nil when not looked at

	// TCP is what the kernel counted in it, where that was looked at.
	TCP Known[TCPCounts]

	// TimeWait is how many of its TCP connections are in TIME_WAIT, where the look
	// left these out.
	TimeWait int
}

// TCPCounts are counters of a network namespace that only grow, RFC 4022.
type TCPCounts struct {
	Opened   uint64 // connections that were dialled from it: ActiveOpens
	Accepted uint64 // that others dialled: PassiveOpens
	Reset    uint64 // established ones that a reset ended, of either end: EstabResets
	Resent   uint64 // segments sent again: RetransSegs
}

// Conntrack is the connection tracking table of one namespace.
type Conntrack struct {
	Netns   uint32
	Count   Known[int] // entries in use
	Max     Known[int] // nf_conntrack_max: beyond it new connections are dropped
	Transit []Flow     // flows with neither end here; nil when entries were not read
	Entries Known[int] // entries read
}

// Flow is a connection that this machine forwards.
type Flow struct {
	Protocol    Protocol
	State       string         // the table's own word: ESTABLISHED, TIME_WAIT …; "" for UDP
	Source      netip.AddrPort // as the client sent it
	Destination netip.AddrPort // as the client addressed it
	ReplySource netip.AddrPort // who really answers: differs from Destination under DNAT
	ReplyTo     netip.AddrPort // as the server sees the client: differs from Source under masquerade
	Timeout     time.Duration  // until the entry is forgotten
}

// BoundConn puts together what the bound of s is computed from. It is not ok
// when the options of the socket, or the settings of its namespace where the
// socket leaves a choice to them, are unknown.
func (m *Machine) BoundConn(s *Socket) (c bound.Conn, ok bool) {
	if c.Options, ok = s.Options.Get(); !ok {
		return bound.Conn{}, false
	}
	ns := m.Namespace(s.Netns)
	if ns == nil {
		return bound.Conn{}, false
	}
	if c.Sysctl, ok = ns.Sysctl.Get(); !ok {
		return bound.Conn{}, false
	}
	if s.Conn != nil {
		c.RTO = s.Conn.BaseRTO()
	}
	return c, true
}
