// Package census counts sockets: pure arithmetic over facts, which shows and
// verdicts may use.
package census

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// Group is the sockets that have all keys in common.
type Group struct {
	Labels     []string // one for each key
	Count      int
	Holders    []Holder                  // the processes that own them, most sockets first
	LastAck    fact.Known[time.Duration] // the least age of an acknowledgement on any of them; unknown without TCP
	Unacked    int                       // sockets with bytes that are sent and not acknowledged, or waiting to be sent
	QueueBytes uint64                    // those bytes
	Idle       Longest                   // bound of the connections while nothing is sent
	Sending    Longest                   // bound while data is unacknowledged
}

// Holder is a process and how many sockets of a group it owns.
type Holder struct {
	PID   int32 // 0 for the sockets that no process owns
	Name  string
	Count int
}

// Longest is the longest bound of a group.
type Longest struct {
	bound.Bound
	Known   int // connections whose bound is known
	Unknown int // connections whose bound is not
}

func (l *Longest) add(b bound.Bound) {
	if l.Known == 0 || bound.Compare(b, l.Bound) > 0 {
		l.Bound = b
	}
	l.Known++
}

// Census is all groups, largest first.
type Census struct {
	By     []Key
	Groups []Group
	Total  int
	Counts [3]int // by family: IPv4, IPv6, unix
}

// Options say what to count and how.
type Options struct {
	By      []Key // no key at all counts by peer
	NetBits int   // length of an IPv4 peer network; 0 means 24. IPv6 networks are /64
	Filter  Filter
}

// Filter chooses sockets. The zero Filter takes all.
type Filter struct {
	Protocols []fact.Protocol
	States    []fact.State
	Peer      netip.Prefix // invalid = any
	Process   string       // name; "" = any
	PID       int32        // 0 = any
}

// Count counts the sockets of m.
func Count(m *fact.Machine, o Options) Census {
	if len(o.By) == 0 {
		o.By = []Key{Peer}
	}
	if o.NetBits == 0 {
		o.NetBits = 24
	}
	var (
		keyed  = newKeyed(m, o.By, o.NetBits)
		groups = make(map[string]*tally)
		buf    []byte
		c      = Census{By: o.By}
	)
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if !o.Filter.Match(m, s) {
			continue
		}
		buf = buf[:0]
		for _, key := range o.By {
			buf = keyed.identity(buf, s, key)
		}
		t := groups[string(buf)]
		if t == nil {
			t = &tally{pids: make(map[int32]int), conn: bound.Conn{RTO: -1}}
			for _, key := range o.By {
				t.Labels = append(t.Labels, keyed.label(s, key))
			}
			groups[string(buf)] = t
		}
		t.add(m, s)
		c.Total++
		c.Counts[max(s.Family, fact.IPv4)-fact.IPv4]++
	}
	for _, t := range groups {
		c.Groups = append(c.Groups, t.group(m))
	}
	slices.SortFunc(c.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Labels, b.Labels))
	})
	return c
}

// Match reports whether the filter takes s, a socket of m.
func (f *Filter) Match(m *fact.Machine, s *fact.Socket) bool {
	if len(f.Protocols) > 0 && !slices.Contains(f.Protocols, s.Protocol) ||
		len(f.States) > 0 && !slices.Contains(f.States, s.State) ||
		f.Peer.IsValid() && (!connected(s) || !f.Peer.Contains(s.Remote.Addr())) {
		return false
	}
	if f.PID == 0 && f.Process == "" {
		return true
	}
	return slices.ContainsFunc(s.Owners, func(o fact.Owner) bool {
		if f.PID != 0 && o.PID != f.PID {
			return false
		}
		p := m.Process(o.PID)
		return f.Process == "" || p != nil && p.Name == f.Process
	})
}

// tally is a group while it is being counted.
type tally struct {
	Group
	pids map[int32]int

	conn          bound.Conn // the last one, as most connections of a group are alike
	idle, sending bound.Bound
}

func (t *tally) add(m *fact.Machine, s *fact.Socket) {
	t.Count++
	t.pids[firstOwner(s)]++
	if s.SendQueue > 0 && s.State != fact.Listen {
		t.Unacked++
		t.QueueBytes += uint64(s.SendQueue)
	}
	if s.Conn == nil {
		return
	}
	if ack, ok := t.LastAck.Get(); !ok || s.Conn.LastAck < ack {
		t.LastAck = fact.Seen(s.Conn.LastAck)
	}
	if s.State != fact.Established && s.State != fact.CloseWait {
		return
	}
	c, ok := m.BoundConn(s)
	if !ok {
		t.Idle.Unknown++
		t.Sending.Unknown++
		return
	}
	if c != t.conn {
		t.conn, t.idle, t.sending = c, c.Idle(), c.Sending()
	}
	t.Idle.add(t.idle)
	t.Sending.add(t.sending)
}

func (t *tally) group(m *fact.Machine) Group {
	for pid, count := range t.pids {
		h := Holder{PID: pid, Name: noOwner, Count: count}
		if pid != 0 {
			h.Name = notKnown
			if p := m.Process(pid); p != nil {
				h.Name = p.Name
			}
		}
		t.Holders = append(t.Holders, h)
	}
	slices.SortFunc(t.Holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.PID, b.PID))
	})
	return t.Group
}
