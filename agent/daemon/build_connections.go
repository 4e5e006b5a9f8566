package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	usualConnections = 100
	mostConnections  = 1000
)

// sorts are the orders of connections, by name.
var sorts = map[string]func(a, b *state.Connection) int{
	"bound": func(a, b *state.Connection) int {
		return cmp.Or(truth(b.Never)-truth(a.Never), compareKnown(b.Idle, a.Idle))
	},
	"idle":    func(a, b *state.Connection) int { return compareKnown(b.HeardMS, a.HeardMS) },
	"queue":   func(a, b *state.Connection) int { return cmp.Compare(b.Send+b.Receive, a.Send+a.Receive) },
	"peer":    func(a, b *state.Connection) int { return strings.Compare(a.Remote, b.Remote) },
	"process": func(a, b *state.Connection) int { return strings.Compare(a.Process.Name, b.Process.Name) },
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compareKnown puts what is unknown below all that is known.
func compareKnown[T cmp.Ordered](a, b *T) int {
	if a == nil || b == nil {
		return truth(a != nil) - truth(b != nil)
	}
	return cmp.Compare(*a, *b)
}

// connections answers a query by a census.
func connections(m *fact.Machine, q state.Query) (state.Connections, error) {
	out := state.Connections{Time: m.Time, List: []state.Connection{}}
	order := sorts[cmp.Or(q.Sort, "bound")]
	switch {
	case q.Sort == "age":
		return out, errors.New("connections are not sorted by age: the kernel does not say when a connection began. Take bound, idle, queue, peer or process")
	case order == nil:
		return out, fmt.Errorf("connections are not sorted by %q: take bound, idle, queue, peer or process", q.Sort)
	}
	filter := census.Filter{Process: q.Process, PID: q.PID}
	if q.Peer != "" {
		var err error
		if filter.Peer, err = prefix(q.Peer); err != nil {
			return out, err
		}
	}
	var found []*state.Connection
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if !s.Remote.IsValid() || s.Remote.Port() == 0 || !filter.Match(m, s) || q.Netns != 0 && s.Netns != q.Netns || q.State != "" && !strings.EqualFold(s.StateName(), q.State) {
			continue
		}
		c := connectionOf(m, s)
		found = append(found, &c)
	}
	out.Total = len(found)
	slices.SortStableFunc(found, func(a, b *state.Connection) int { // pointers: there may be 100,000, and each is large
		if q.Reverse {
			a, b = b, a
		}
		return cmp.Or(order(a, b), cmp.Compare(a.Cookie, b.Cookie))
	})
	after := min(max(q.After, 0), len(found))
	most := q.Most
	if most <= 0 {
		most = usualConnections
	}
	for _, c := range found[after : after+min(most, mostConnections, len(found)-after)] {
		out.List = append(out.List, *c)
	}
	return out, nil
}

// whatIf says what the death of a network would do by a census and the flows that
// pass through, nil where they were not read; to those of one namespace alone
// where netns is not 0.
func whatIf(census, flows *fact.Machine, dead netip.Prefix, netns uint32) state.Loss {
	m := *census
	if flows != nil {
		m.Conntrack = flows.Conntrack
	}
	if netns != 0 {
		m.Sockets = slices.DeleteFunc(slices.Clone(m.Sockets), func(s fact.Socket) bool { return s.Netns != netns })
		m.Conntrack = slices.DeleteFunc(slices.Clone(m.Conntrack), func(c fact.Conntrack) bool { return c.Netns != netns })
	}
	peer := dead.String()
	if dead.IsSingleIP() {
		peer = dead.Addr().String()
	}
	loss := state.LossOf(peer, verdict.WhatIf(&m, dead))
	loss.Netns = netns
	return loss
}

// prefix reads an address or a network.
func prefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.WithZone("").Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is no address and no network: take one such as 10.77.1.2 or 10.48.0.0/14", text)
	}
	return p.Masked(), nil
}

func connectionOf(m *fact.Machine, s *fact.Socket) state.Connection {
	c := state.Connection{Cookie: s.Cookie, Protocol: s.Protocol.String(), State: s.StateName(), Local: s.Local.String(), Remote: s.Remote.String(),
		Netns: s.Netns, Send: s.SendQueue, Receive: s.RecvQueue}
	if len(s.Owners) > 0 {
		c.Process = state.Holder{PID: s.Owners[0].PID, Count: len(s.Owners)}
		if p := m.Process(s.Owners[0].PID); p != nil {
			c.Process.Name = p.Name
		}
	}
	if s.Conn != nil {
		heard, rtt := s.Conn.Heard().Milliseconds(), s.Conn.RTT.Seconds()*1000
		c.HeardMS, c.RTTMS, c.Resent = &heard, &rtt, s.Conn.TotalRetransmit
	}
	if b, ok := m.BoundConn(s); ok && s.State == fact.Established {
		idle := b.Idle()
		c.ByIdle = idle.By.String()
		c.Idle, c.Never = boundOf(fact.Seen(idle))
		c.Sending, _ = boundOf(fact.Known[bound.Bound]{Value: b.Sending(), OK: true})
	}
	return c
}
