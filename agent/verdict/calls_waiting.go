package verdict

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Waiting is what one process has asked of one address and not been answered.
// For Go programs it also has the goroutines that wait; where they cannot be
// told to be of one address, they are in a Waiting of their own, without one.
type Waiting struct {
	PID       int32 // 0 = no process was seen
	Process   string
	Container string
	Netns     uint32
	Peer      netip.AddrPort // not valid: not known
	Count     int            // connections
	Since     time.Duration  // the longest of them waits

	// Acknowledged says whether the other kernel has acknowledged all that it was
	// sent: the path lives, and the program there does not answer. If not, the
	// path is dead or dying. Unknown where no connection is known.
	Acknowledged fact.Known[bool]
	Full         bool // the peer's program does not even read: its window is closed
	Sure         bool // the connections are of the kind that is answered; else this may be a long poll, or a one-way protocol

	Sent       fact.Known[uint64] // bytes the peer acknowledged since the connections began
	Received   fact.Known[uint64] // bytes that came since then
	Queued     uint64             // bytes not acknowledged yet
	Goroutines []Waiter           // the longest first
}

// Unanswered returns what waits for an answer for at least so long, the longest
// first.
func Unanswered(m *fact.Machine, least time.Duration) []Waiting {
	return Read(m).Unanswered(least)
}

func (v *view) waitingFor(least time.Duration) []Waiting {
	type key struct {
		pid          int32
		netns        uint32
		remote       netip.AddrPort
		acknowledged bool
	}
	index := make(map[key]int)
	var all []Waiting
	for i := range v.conns {
		c := &v.conns[i]
		since, acknowledged, ok := waitsSince(c, least)
		if !ok {
			continue
		}
		k := key{owner(c.Socket), c.Netns, c.Remote, acknowledged}
		at, found := index[k]
		if !found {
			at = len(all)
			index[k] = at
			all = append(all, v.waiting(k.pid))
			all[at].Peer, all[at].Netns, all[at].Acknowledged = k.remote, k.netns, fact.Seen(acknowledged)
			all[at].Sent, all[at].Received = fact.Seen(uint64(0)), fact.Seen(uint64(0))
		}
		all[at].take(c, since)
	}
	all = v.withGoroutines(all)
	slices.SortStableFunc(all, func(a, b Waiting) int { return cmp.Compare(b.Since, a.Since) })
	return all
}

// waitsSince reports a connection that was opened here, on which something was
// sent at least so long ago and not answered.
func waitsSince(c *conn, least time.Duration) (since time.Duration, acknowledged, ok bool) {
	switch {
	case c.accepted || c.State != fact.Established || c.RecvQueue > 0:
		return 0, false, false
	case c.Conn.Unacked > 0 && c.Conn.Retransmits > 0:
		since = resending(c)
		return since, false, since >= least
	case closed(c):
		return c.Conn.LastSent, true, c.Conn.LastSent >= least
	}
	return c.Conn.LastSent, true, waitsForAnswer(c, least)
}

// closed reports a peer whose kernel lives and has no room for more.
func closed(c *conn) bool {
	window, known := c.Conn.SendWindow.Get()
	return c.Conn.Unacked == 0 && c.Conn.NotSent > 0 && known && window == 0
}

// resending is for how long the kernel has sent the same again and again, at
// least. Each wait is twice the one before (tcp_retransmit_timer,
// net/ipv4/tcp_timer.c), so together those that are over are as long as the
// present one without the first; part of the present one is over too. Where
// there is no way to send any more the kernel leaves alone when it last sent.
// Nothing can have been asked for longer than nothing was heard.
func resending(c *conn) time.Duration {
	since := c.Conn.LastSent
	if c.Timer == fact.TimerResend {
		rto := c.Conn.RTO
		since = max(since, rto-rto>>min(c.Conn.Backoff, 31)+rto-min(c.TimerLeft, rto))
	}
	return min(since, c.Conn.Heard())
}

func (v *view) waiting(pid int32) Waiting {
	w := Waiting{PID: pid}
	if p := v.Process(pid); p != nil {
		w.Process, w.Container = fact.Printable(p.Name), p.Container
	}
	return w
}

func (w *Waiting) take(c *conn, since time.Duration) {
	w.Count++
	w.Since = max(w.Since, since)
	w.Queued += uint64(c.SendQueue)
	w.Full = w.Full || closed(c)
	sent := c.Conn.Acked
	sent.Value -= min(sent.Value, 1) // the SYN counts as a byte (tcp_snd_una_update, net/ipv4/tcp_input.c)
	w.Sent, w.Received = plus(w.Sent, sent), plus(w.Received, c.Conn.Received)
	in, out := uint64(c.Conn.SegmentsIn.Value), uint64(c.Conn.SegmentsOut.Value)
	w.Sure = w.Sure || !w.Acknowledged.Value || in >= severalAnswers && in*fairShare >= out
}

// plus is unknown when one of both is.
func plus(a, b fact.Known[uint64]) fact.Known[uint64] {
	return fact.Known[uint64]{Value: a.Value + b.Value, OK: a.OK && b.OK}
}

// withGoroutines gives each process its goroutines that wait for an answer: to
// the address of their connection; where that is not known, to the one that the
// process waits for, if it is one; else in an entry of their own.
func (v *view) withGoroutines(all []Waiting) []Waiting {
	if len(v.Goroutines) == 0 {
		return all
	}
	peers := v.remotesOf(v.Goroutines)
	for i := range v.Goroutines {
		pid := v.Goroutines[i].PID
		own := len(all) // entries of connections come before
		for _, w := range Waiters(&v.Goroutines[i]) {
			if inode, ok := w.Socket.Get(); ok {
				w.Peer = peers[inode]
			}
			at := entryOf(all[:own], pid, w.Peer)
			if at < 0 {
				if at = own; at == len(all) {
					all = append(all, v.waiting(pid))
					all[at].Since = w.Since
				}
			}
			all[at].Goroutines, all[at].Sure = append(all[at].Goroutines, w), true // code that waits for an answer has asked a question
		}
	}
	return all
}

// remotesOf are the other ends of the sockets that goroutines wait for, by inode.
func (v *view) remotesOf(list []fact.Goroutines) map[uint32]netip.AddrPort {
	peers := make(map[uint32]netip.AddrPort)
	for i := range list {
		for _, w := range Waiters(&list[i]) {
			if inode, ok := w.Socket.Get(); ok {
				peers[inode] = netip.AddrPort{}
			}
		}
	}
	for i := range v.Sockets {
		if s := &v.Sockets[i]; s.Protocol == fact.TCP && s.Inode != 0 {
			if _, asked := peers[s.Inode]; asked {
				peers[s.Inode] = s.Remote
			}
		}
	}
	return peers
}

// entryOf returns where what a process waits for is, by an address; of an
// address that is not known, only where there is no other.
func entryOf(all []Waiting, pid int32, peer netip.AddrPort) int {
	of := func(w Waiting) bool { return w.PID == pid && (!peer.IsValid() || w.Peer == peer) }
	at := slices.IndexFunc(all, of)
	if at >= 0 && !peer.IsValid() && slices.ContainsFunc(all[at+1:], of) {
		return -1
	}
	return at
}
