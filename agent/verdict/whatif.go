package verdict

import (
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// Loss is what the death of a peer, without a word, would do to this machine.
type Loss struct {
	Count     int     // established connections that would fall silent
	Addresses int     // of peers, where the question was about a network
	Processes []Stake // whose they are, those with the most first
	Idle      Notice  // were nothing sent on them after the death
	Sending   Notice  // were something sent on each at that moment
	Unknown   int     // of Count: connections whose bound is not known

	// Transit is the flows that this machine forwards and that would fall silent
	// for both of their ends, nil where they were not read. When the peer asked
	// about is this machine itself, these are all that the namespace forwards:
	// its own connections die with it, and nobody is left to be told.
	Transit []Transit
}

// Stake is what one process would lose.
type Stake struct {
	Holder
	Idle, Sending Notice
}

// Notice is when programs learn of the death, counted from it: the first and
// the last of those that the kernel tells, and how many connections it never
// tells.
type Notice struct {
	First, Last fact.Known[time.Duration]
	Never       int
}

func (n *Notice) at(after time.Duration, by bound.Mechanism) {
	switch {
	case by == bound.None:
		n.Never++
		return
	case !n.First.OK || after < n.First.Value:
		n.First = fact.Seen(after)
	}
	if !n.Last.OK || after > n.Last.Value {
		n.Last = fact.Seen(after)
	}
}

// WhatIf says what would happen if every peer in a network, or the one peer
// that it is, died now without a word.
//
// A connection that stays idle is told by keepalive, and has a part of that
// behind it already: the time since it last heard from the peer. One that
// sends is told by retransmission, counted from what it sends. A connection
// that is idle first and then sends, just before keepalive would have told,
// takes the sum of both.
func WhatIf(m *fact.Machine, dead netip.Prefix) Loss {
	if m == nil || !dead.IsValid() {
		return Loss{}
	}
	v := newView(m)
	l := Loss{Transit: transitOf(m, dead)}
	var lost []*conn
	for i := range v.peers {
		p := &v.peers[i]
		if !dead.Contains(p.addr) {
			continue
		}
		conns := filter(p.conns, func(c *conn) bool { return c.State == fact.Established })
		if len(conns) > 0 {
			l.Addresses++
			lost = append(lost, conns...)
		}
	}
	l.Count = len(lost)
	for _, c := range crowds(lost) {
		s := Stake{Holder: v.holder(c)}
		s.Idle, s.Sending, _ = notices(c.conns)
		l.Processes = append(l.Processes, s)
	}
	l.Idle, l.Sending, l.Unknown = notices(lost)
	return l
}

func notices(conns []*conn) (idle, sending Notice, unknown int) {
	for _, c := range conns {
		if !c.bounded {
			unknown++
			continue
		}
		heard := c.Conn.Heard()
		idle.at(max(c.idle.After-heard, 0), c.idle.By)
		sending.at(c.sending.After, c.sending.By)
	}
	return idle, sending, unknown
}

// Transit is a flow that this machine forwards, and in which namespace.
type Transit struct {
	Netns uint32
	fact.Flow
}

// Forwarded returns the flows that this machine forwards and that involve an
// address of a network, all where the network is not valid; nil where no table
// was read.
func Forwarded(m *fact.Machine, with netip.Prefix) []Transit {
	return transit(m, func(_ uint32, f *fact.Flow) bool { return !with.IsValid() || involves(f, with) })
}

// transitOf is the flows that end with dead: those that involve it, and all
// where it is the machine that forwards them.
func transitOf(m *fact.Machine, dead netip.Prefix) []Transit {
	return transit(m, func(netns uint32, f *fact.Flow) bool {
		ns := m.Namespace(netns)
		return involves(f, dead) || ns != nil && slices.ContainsFunc(ns.Local, dead.Contains)
	})
}

func transit(m *fact.Machine, keep func(netns uint32, f *fact.Flow) bool) []Transit {
	var flows []Transit
	for i := range m.Conntrack {
		t := &m.Conntrack[i]
		if t.Transit != nil && flows == nil {
			flows = []Transit{}
		}
		for j := range t.Transit {
			if f := &t.Transit[j]; keep(t.Netns, f) {
				flows = append(flows, Transit{t.Netns, *f})
			}
		}
	}
	return flows
}

func involves(f *fact.Flow, with netip.Prefix) bool {
	for _, end := range [...]netip.AddrPort{f.Source, f.Destination, f.ReplySource, f.ReplyTo} {
		if with.Contains(end.Addr()) {
			return true
		}
	}
	return false
}
