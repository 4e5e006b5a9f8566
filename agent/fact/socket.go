package fact

import (
	"net/netip"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// Socket is one socket of any process, or of none: a socket in TIME_WAIT, one
// that waits in an accept queue, and one that was closed with data still to
// send have no owner.
type Socket struct {
	Protocol  Protocol
	Family    Family
	State     State
	Mapped    bool           // an IPv6 socket that speaks IPv4; its addresses are folded to IPv4 and Family is IPv4
	Local     netip.AddrPort // without a zone; Interface has the scope
	Remote    netip.AddrPort // port 0 and the unspecified address when there is no peer
	Interface uint32         // SO_BINDTODEVICE or scope of a link-local address; 0 = none
	Netns     uint32         // inode of the network namespace
	Inode     uint32         // 0 = no file refers to it
	Cookie    uint64         // the kernel's name for this socket, unique until reboot
	UID       uint32         // of who made it
	Mark      Known[uint32]  // SO_MARK; needs CAP_NET_ADMIN
	Cgroup    uint64         // id of its cgroup v2; 0 = unknown
	RecvQueue uint32         // bytes not yet read; of a listener: connections not yet accepted
	SendQueue uint32         // bytes not yet acknowledged; of a listener: the most that may wait
	Timer     Timer
	TimerLeft time.Duration // until Timer fires
	Path      string        // unix: the file, or @name for the abstract namespace; "" = unnamed
	PeerInode uint32        // unix: the other end; 0 = none or unknown
	Conn      *Conn         // nil for what is not TCP and where the kernel keeps no TCP_INFO (TIME_WAIT, SYN_RECV, LISTEN)
	Options   Known[bound.Options]
	Owners    []Owner // file descriptors that refer to it, by PID; several after fork or over SCM_RIGHTS
}

// Conn is what the kernel's TCP_INFO tells of one connection, by promise.
type Conn struct {
	Life     // silence.go
	Exchange // calls.go
}

// Heard is the time since anything came from the peer: the proof of life of
// tcp_keepalive_timer too. LastAck alone ages while data arrives in order that
// acknowledges nothing new (tcp_rcv_established, net/ipv4/tcp_input.c).
func (c *Conn) Heard() time.Duration { return min(c.LastAck, c.LastReceived) }

// Owner is a file descriptor of a process.
type Owner struct {
	PID int32
	FD  int32
}

// Protocol is what a socket speaks.
type Protocol uint8

// The protocols that sources report.
const (
	ProtocolUnknown Protocol = iota
	TCP
	UDP
	UnixStream
	UnixDatagram
	UnixSeqpacket
)

// Family is the address family after folding.
type Family uint8

// The families.
const (
	FamilyUnknown Family = iota
	IPv4
	IPv6
	Unix
)

// State is the kernel's socket state, include/net/tcp_states.h. Unix and UDP
// sockets use Established (connected), Close (not) and, for unix, Listen.
type State uint8

// The states, with the kernel's numbers.
const (
	Established State = iota + 1
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv
)

// Timer is the TCP timer that runs, idiag_timer of linux/inet_diag.h.
type Timer uint8

// The timers, with the kernel's numbers.
const (
	TimerNone      Timer = iota
	TimerResend          // retransmission, loss probe or reordering
	TimerKeepAlive       // keepalive; for SYN_SENT and LISTEN its handshake twin
	TimerTimeWait
	TimerProbe // zero window
)

// Owned is one file descriptor that refers to a socket, as the owners source
// saw it, before it is joined to the socket by inode.
type Owned struct {
	Owner
	Inode   uint32
	Netns   uint32               // 0 = the source does not know
	Options Known[bound.Options] // of a TCP socket, where the source reads them in the same pass
}

var familyNames = [...]string{"unknown", "ipv4", "ipv6", "unix"}

func (f Family) String() string { return nameOf(familyNames[:], int(f)) }

var protocolNames = [...]string{"unknown", "tcp", "udp", "unix", "unix-dgram", "unix-seqpacket"}

func (p Protocol) String() string { return nameOf(protocolNames[:], int(p)) }

var stateNames = [...]string{"UNKNOWN", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
	"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "SYN_RECV"}

func (s State) String() string { return nameOf(stateNames[:], int(s)) }

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return names[0]
}

// StateName is the state in words: the names of TCP's states do not fit a
// socket without connections.
func (s *Socket) StateName() string {
	if s.Protocol == TCP || s.State == Listen {
		return s.State.String()
	}
	if s.State == Established {
		return "CONNECTED"
	}
	return "UNCONNECTED"
}
