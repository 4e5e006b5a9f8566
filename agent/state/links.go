package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// The words for ends that have no name.
const (
	noProcess = "(no process)"
	notSeen   = "(unknown)"
)

// LinksOf says who talks to whom, most connections first: connections by the
// program, unit and container that holds them, the peer and the port of the
// service. A connection with both ends on this machine is one, from who opened
// it to who serves it. What waits in TIME_WAIT belongs to nobody and is left out.
func LinksOf(m *fact.Machine) []Link {
	if m == nil {
		return []Link{}
	}
	g := newGrouping(m)
	for i := range m.Sockets {
		g.add(&m.Sockets[i])
	}
	for i := range g.links {
		l := &g.links[i]
		l.From = g.whole(l.From)
		if l.Here {
			l.To = g.whole(l.To)
		}
	}
	slices.SortFunc(g.links, largestFirst)
	return g.links
}

// ends are the addresses of a connection, as one side has them.
type ends struct {
	netns         uint32
	protocol      fact.Protocol
	local, remote netip.AddrPort
}

type served struct {
	netns uint32
	port  uint16
}

type host struct {
	netns uint32
	addr  netip.Addr
}

// linkKey is what connections of one link have in common.
type linkKey struct {
	from, to End
	port     string
	netns    uint32
	protocol fact.Protocol
	here     bool
}

type grouping struct {
	*fact.Machine
	listening map[served]bool
	other     map[ends]int32   // connections by their ends
	inodes    map[uint32]int32 // unix sockets
	worst     map[host]verdict.Liveness
	bounds    map[bound.Conn][2]bound.Bound
	pids      map[End]map[int32]bool
	index     map[linkKey]int
	links     []Link
}

func newGrouping(m *fact.Machine) *grouping {
	g := &grouping{Machine: m, listening: make(map[served]bool), other: make(map[ends]int32), inodes: make(map[uint32]int32),
		worst: make(map[host]verdict.Liveness), bounds: make(map[bound.Conn][2]bound.Bound), pids: make(map[End]map[int32]bool),
		index: make(map[linkKey]int), links: []Link{}}
	for i := range m.Sockets {
		switch s := &m.Sockets[i]; {
		case s.Family == fact.Unix:
			g.inodes[s.Inode] = int32(i)
		case s.State == fact.Listen:
			g.listening[served{s.Netns, s.Local.Port()}] = true
		case connected(s):
			g.other[ends{s.Netns, s.Protocol, s.Local, s.Remote}] = int32(i)
		}
	}
	for _, p := range verdict.Peers(m) {
		at := host{p.Netns, p.Addr}
		g.worst[at] = max(g.worst[at], p.Verdict)
	}
	return g
}

func connected(s *fact.Socket) bool {
	return s.State != fact.Listen && s.State != fact.TimeWait && s.Remote.IsValid() && s.Remote.Port() != 0
}

func (g *grouping) add(s *fact.Socket) {
	key := linkKey{from: g.end(s), netns: s.Netns, protocol: s.Protocol}
	switch {
	case s.Family == fact.Unix:
		if s.State == fact.Listen || s.PeerInode == 0 || !g.unix(s, &key) {
			return
		}
	case !connected(s) || !g.inet(s, &key):
		return
	}
	at, found := g.index[key]
	if !found {
		at = len(g.links)
		g.index[key] = at
		g.links = append(g.links, Link{From: key.from, To: key.to, Port: key.port, Netns: key.netns,
			Protocol: key.protocol.String(), Verdict: verdict.Alive.String(), Here: key.here})
	}
	l := &g.links[at]
	l.Count++
	if s.Conn != nil && s.Conn.Unacked > 0 {
		l.Unacked++
	}
	if !key.here {
		l.Verdict = g.worst[host{s.Netns, s.Remote.Addr()}].String()
		g.bound(l, s)
	}
}

// unix names the other end of a unix connection. It is false for the end that is
// told of by the other one: the accepted one, which has the path.
func (g *grouping) unix(s *fact.Socket, key *linkKey) bool {
	key.here = true
	at, seen := g.inodes[s.PeerInode]
	if !seen {
		key.to = End{Name: notSeen}
		return true
	}
	o := &g.Sockets[at]
	if o.PeerInode == s.Inode && (s.Path != "" && o.Path == "" || (s.Path == "") == (o.Path == "") && s.Inode > o.Inode) {
		return false
	}
	key.to, key.port = g.end(o), o.Path
	return true
}

// inet names the peer of a connection; where it is on this machine, as unix does.
func (g *grouping) inet(s *fact.Socket, key *linkKey) bool {
	serves := g.listening[served{s.Netns, s.Local.Port()}]
	if at, here := g.other[ends{s.Netns, s.Protocol, s.Remote, s.Local}]; here && s.Local != s.Remote {
		theirs := g.listening[served{s.Netns, s.Remote.Port()}]
		if serves && !theirs || serves == theirs && s.Local.Compare(s.Remote) > 0 {
			return false
		}
		key.here, key.to, key.port = true, g.end(&g.Sockets[at]), ":"+strconv.Itoa(int(s.Remote.Port()))
		return true
	}
	key.to = End{Name: s.Remote.Addr().String()}
	key.port = ">" + strconv.Itoa(int(s.Remote.Port()))
	if serves {
		key.port = ":" + strconv.Itoa(int(s.Local.Port()))
	}
	return true
}

// end is the program that holds a socket; whole completes it.
func (g *grouping) end(s *fact.Socket) End {
	if len(s.Owners) == 0 {
		return End{Name: noProcess}
	}
	pid := s.Owners[0].PID
	e := End{Name: notSeen}
	if p := g.Process(pid); p != nil {
		e = End{Name: fact.Printable(p.Name), Unit: fact.Printable(p.Unit), Container: fact.Printable(p.Container)}
	}
	if g.pids[e] == nil {
		g.pids[e] = make(map[int32]bool)
	}
	g.pids[e][pid] = true
	return e
}

// whole adds to an end how many processes it stands for, and the one when it is
// one: the same in every link.
func (g *grouping) whole(e End) End {
	pids := g.pids[e]
	e.Processes = len(pids)
	if len(pids) == 1 {
		for pid := range pids {
			e.PID = pid
		}
	}
	return e
}

func (g *grouping) bound(l *Link, s *fact.Socket) {
	if s.Protocol != fact.TCP || s.State != fact.Established {
		return
	}
	options, ok := g.BoundConn(s)
	if !ok {
		return
	}
	both, found := g.bounds[options]
	if !found {
		both = [2]bound.Bound{options.Idle(), options.Sending()}
		g.bounds[options] = both
	}
	l.Never = l.Never || both[0].By == bound.None
	l.Idle, l.Sending = longer(l.Idle, finite(both[0])), longer(l.Sending, finite(both[1]))
}

// finite is a bound in seconds, nil for one that never ends.
func finite(b bound.Bound) *float64 {
	if b.By == bound.None {
		return nil
	}
	return seconds(b.After)
}

func seconds(d time.Duration) *float64 {
	s := d.Round(time.Millisecond).Seconds()
	return &s
}

func longer(a, b *float64) *float64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// largestFirst is an order in which no two links are equal.
func largestFirst(a, b Link) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), compareEnds(a.From, b.From), compareEnds(a.To, b.To),
		cmp.Compare(a.Port, b.Port), cmp.Compare(a.Netns, b.Netns), cmp.Compare(a.Protocol, b.Protocol))
}

func compareEnds(a, b End) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Container, b.Container), cmp.Compare(a.PID, b.PID))
}
