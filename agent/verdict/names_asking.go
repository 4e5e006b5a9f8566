package verdict

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Question is a socket by which a process asks for names: to port 53 or 853 of
// anybody, or to a daemon that answers for the operating system.
type Question struct {
	FD         int32
	Protocol   fact.Protocol
	Server     netip.AddrPort // not valid where a daemon is asked
	Daemon     string         // systemd-resolved, nscd, sssd or the system bus; "" = a nameserver
	Configured bool           // resolv.conf of the process names the server
	Waits      bool           // nothing has come that it has not read
	Since      time.Duration  // for at least so long
	Looked     bool           // Since is only the time between the looks: the kernel does not say when a socket was made
	Bytes      uint32         // of an answer that the process has not read yet
	Connecting bool           // TCP that is not connected yet
}

// Asking is what one process asks for names.
type Asking struct {
	PID         int32
	Process     string
	Container   string
	Go          bool       // its goroutines were looked at
	Questions   []Question // open at the end of the look, the longest first
	Ended       int        // that were open when the look began and are not any more
	Unconnected int        // UDP sockets without a peer: the kernel does not say whom they ask, if anybody
	Goroutines  []Waiter   // that wait for a name to be resolved, the longest first
}

// resolving is what a goroutine waits for that is within a lookup; answers has
// it.
const resolving = "a name to be resolved"

// AskingOf returns what a process asks, from two looks, the earlier of which the
// later one knows. It is empty when the process was not seen.
func AskingOf(m *fact.Machine, pid int32) Asking {
	a := Asking{PID: pid}
	if p := m.Process(pid); p != nil {
		a.Process, a.Container = p.Name, p.Container
	}
	daemons := daemonSockets(m)
	before := make(map[uint64]*fact.Socket)
	if m.Earlier != nil {
		for i := range m.Earlier.Sockets {
			if s := &m.Earlier.Sockets[i]; ownedBy(s, pid) >= 0 {
				before[s.Cookie] = s
			}
		}
	}
	for i := range m.Sockets {
		s := &m.Sockets[i]
		fd := ownedBy(s, pid)
		if fd < 0 {
			continue
		}
		earlier := before[s.Cookie]
		if earlier != nil {
			delete(before, s.Cookie)
		}
		if s.Protocol == fact.UDP && s.State != fact.Established && s.Local.Port() >= ephemeral {
			a.Unconnected++
			continue
		}
		if q, is := questionOf(m, s, earlier, daemons); is {
			q.FD = fd
			a.Questions = append(a.Questions, q)
		}
	}
	for _, s := range before {
		if _, is := questionOf(m, s, nil, daemons); is {
			a.Ended++
		}
	}
	slices.SortStableFunc(a.Questions, func(x, y Question) int { return cmp.Compare(y.Since, x.Since) })
	for i := range m.Goroutines {
		if m.Goroutines[i].PID != pid {
			continue
		}
		a.Go = true
		for _, w := range Waiters(&m.Goroutines[i]) {
			if w.For == resolving {
				a.Goroutines = append(a.Goroutines, w)
			}
		}
	}
	return a
}

// ephemeral is where the ports begin that the kernel gives to who asks for none,
// net.ipv4.ip_local_port_range.
const ephemeral = 32768

// ownedBy is the descriptor of a process that refers to a socket, -1 when none
// does.
func ownedBy(s *fact.Socket, pid int32) int32 {
	i := slices.IndexFunc(s.Owners, func(o fact.Owner) bool { return o.PID == pid })
	if i < 0 {
		return -1
	}
	return s.Owners[i].FD
}

// daemonSockets are the inodes of unix sockets that were accepted by who answers
// for the operating system: a socket that was accepted has its listener's path.
func daemonSockets(m *fact.Machine) map[uint32]string {
	found := make(map[uint32]string)
	for i := range m.Sockets {
		s := &m.Sockets[i]
		for path, daemon := range map[string]string{"/systemd/resolve/": "systemd-resolved", "/nscd/": "nscd", "/sss/pipes/": "sssd"} {
			if s.State == fact.Established && s.Inode != 0 && strings.Contains(s.Path, path) {
				found[s.Inode] = daemon
			}
		}
	}
	return found
}

func questionOf(m *fact.Machine, s, earlier *fact.Socket, daemons map[uint32]string) (q Question, is bool) {
	q = Question{Protocol: s.Protocol, Bytes: s.RecvQueue, Waits: s.RecvQueue == 0}
	if earlier != nil {
		q.Since, q.Looked = max(m.Time.Sub(m.Earlier.Time), 0), true
	}
	if s.Protocol == fact.UnixStream || s.Protocol == fact.UnixSeqpacket {
		q.Daemon = daemons[s.PeerInode]
		return q, q.Daemon != "" && s.State == fact.Established
	}
	q.Server, q.Configured = s.Remote, configured(m, s.Remote.Addr())
	if port := s.Remote.Port(); port != 53 && port != 853 {
		return q, false
	}
	switch {
	case s.Protocol == fact.UDP:
		return q, s.State == fact.Established
	case s.State == fact.SynSent: // the ages of a connection count from its handshake
		q.Connecting = true
		return q, true
	case s.State != fact.Established || s.Conn == nil:
		return q, false
	}
	if sent := s.Conn.Acked; sent.OK && sent.Value <= 1 && s.SendQueue == 0 { // the SYN counts as a byte
		q.Waits = false // it has asked nothing yet
		return q, true
	}
	q.Waits = q.Waits && s.Conn.LastReceived >= s.Conn.LastSent
	q.Since, q.Looked = s.Conn.LastSent, false
	return q, true
}

// configured reports a nameserver of resolv.conf.
func configured(m *fact.Machine, addr netip.Addr) bool {
	return m.Names != nil && slices.ContainsFunc(m.Names.Nameservers, func(n fact.Nameserver) bool { return n.Addr.WithZone("") == addr.WithZone("") })
}
