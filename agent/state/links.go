package state

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
// Peers are what is known of the peers, as [verdict.Peers] returns them.
func LinksOf(m *fact.Machine, peers []verdict.Peer) []Link {
	if m == nil {
		return []Link{}
	}
	g := newGrouping(m, peers)
	for i := range m.Sockets {
		g.add(&m.Sockets[i])
	}
	for i := range g.links {
		g.name(&g.links[i], &g.keys[i])
	}
	return sorted(g.links)
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

// linkKey is what connections of one link have in common. It is made of numbers,
// so that 20,000 of them are told apart in a few milliseconds.
type linkKey struct {
	from     int32      // in grouping.ends
	to       int32      // the same; -1 = the peer
	peer     netip.Addr // where to is -1
	path     int32      // of a unix socket, in grouping.paths; -1 = none
	port     port
	here     bool
	protocol fact.Protocol
	netns    uint32
}

type port struct {
	number uint16
	dials  bool // it is of the other end
}

type grouping struct {
	*fact.Machine
	listening map[served]bool
	local     map[host]bool             // addresses that connections have on this side
	other     map[ends]int32            // connections with such an address, by their ends
	inodes    map[uint32]int32          // unix sockets
	worst     map[host]verdict.Liveness // peers that are not alive
	bounds    map[bound.Conn]limits

	ends   []End
	byEnd  map[End]int32
	byPID  map[int32]int32
	ports  map[port]string
	paths  []string
	byPath map[string]int32
	index  map[linkKey]int32
	keys   []linkKey // of links
	links  []Link
}

func newGrouping(m *fact.Machine, peers []verdict.Peer) *grouping {
	g := &grouping{Machine: m, listening: make(map[served]bool), local: make(map[host]bool), other: make(map[ends]int32), inodes: make(map[uint32]int32),
		worst: make(map[host]verdict.Liveness), bounds: make(map[bound.Conn]limits), byEnd: make(map[End]int32), byPID: make(map[int32]int32),
		byPath: make(map[string]int32), ports: make(map[port]string), index: make(map[linkKey]int32, len(peers)), links: make([]Link, 0, len(peers)), keys: make([]linkKey, 0, len(peers))}
	for i := range m.Sockets {
		switch s := &m.Sockets[i]; {
		case s.Family == fact.Unix:
			g.inodes[s.Inode] = int32(i)
		case s.State == fact.Listen:
			g.listening[served{s.Netns, s.Local.Port()}] = true
		case connected(s):
			g.local[host{s.Netns, s.Local.Addr()}] = true
		}
	}
	for i := range m.Sockets {
		if s := &m.Sockets[i]; connected(s) && g.local[host{s.Netns, s.Remote.Addr()}] {
			g.other[ends{s.Netns, s.Protocol, s.Local, s.Remote}] = int32(i)
		}
	}
	for i := range peers {
		if p := &peers[i]; p.Verdict != verdict.Alive {
			at := host{p.Netns, p.Addr}
			g.worst[at] = max(g.worst[at], p.Verdict)
		}
	}
	return g
}

func connected(s *fact.Socket) bool {
	return s.State != fact.Listen && s.State != fact.TimeWait && s.Remote.IsValid() && s.Remote.Port() != 0
}

func (g *grouping) add(s *fact.Socket) {
	key := linkKey{from: g.end(s), to: -1, path: -1, netns: s.Netns, protocol: s.Protocol}
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
		at = int32(len(g.links))
		g.index[key] = at
		g.links, g.keys = append(g.links, Link{Netns: key.netns, Protocol: key.protocol.String(), Verdict: verdict.Alive.String(), Here: key.here}), append(g.keys, key)
	}
	l := &g.links[at]
	l.Count++
	if s.Conn != nil && s.Conn.Unacked > 0 {
		l.Unacked++
	}
	if !key.here {
		if v := g.worst[host{s.Netns, s.Remote.Addr()}]; v != verdict.Alive {
			l.Verdict = v.String()
		}
		g.bound(l, s)
	}
}

// name puts into a link what its key stands for.
func (g *grouping) name(l *Link, key *linkKey) {
	l.From = g.ends[key.from]
	if key.to >= 0 {
		l.To = g.ends[key.to]
	} else {
		l.To = End{Name: key.peer.String()}
	}
	switch {
	case key.path >= 0:
		l.Port = g.paths[key.path]
	case key.port.number != 0:
		l.Port = g.portName(key.port)
	}
}

// portName writes a port once, however many links have it.
func (g *grouping) portName(p port) string {
	text, known := g.ports[p]
	if !known {
		text = ":" + strconv.Itoa(int(p.number))
		if p.dials {
			text = ">" + text[1:]
		}
		g.ports[p] = text
	}
	return text
}

// unix names the other end of a unix connection. It is false for the end that is
// told of by the other one: the accepted one, which has the path.
func (g *grouping) unix(s *fact.Socket, key *linkKey) bool {
	key.here = true
	at, seen := g.inodes[s.PeerInode]
	if !seen {
		key.to = g.number(End{Name: notSeen})
		return true
	}
	o := &g.Sockets[at]
	if o.PeerInode == s.Inode && (s.Path != "" && o.Path == "" || (s.Path == "") == (o.Path == "") && s.Inode > o.Inode) {
		return false
	}
	key.to = g.end(o)
	if o.Path != "" {
		path, known := g.byPath[o.Path]
		if !known {
			path = int32(len(g.paths))
			g.byPath[o.Path] = path
			g.paths = append(g.paths, o.Path)
		}
		key.path = path
	}
	return true
}

// inet names the peer of a connection; where it is on this machine, as unix does.
func (g *grouping) inet(s *fact.Socket, key *linkKey) bool {
	serves := g.listening[served{s.Netns, s.Local.Port()}]
	if at, here := g.opposite(s); here {
		theirs := g.listening[served{s.Netns, s.Remote.Port()}]
		if serves && !theirs || serves == theirs && s.Local.Compare(s.Remote) > 0 {
			return false
		}
		key.here, key.to, key.port = true, g.end(&g.Sockets[at]), port{number: s.Remote.Port()}
		return true
	}
	key.peer, key.port = s.Remote.Addr(), port{s.Remote.Port(), true}
	if serves {
		key.port = port{number: s.Local.Port()}
	}
	return true
}

// opposite is the other end of a connection where that is here too.
func (g *grouping) opposite(s *fact.Socket) (at int32, here bool) {
	if s.Local == s.Remote || !g.local[host{s.Netns, s.Remote.Addr()}] {
		return 0, false
	}
	at, here = g.other[ends{s.Netns, s.Protocol, s.Remote, s.Local}]
	return at, here
}

// end is the number of the program that holds a socket. An end knows how many
// processes it stands for, and which when it is one: the same in every link.
func (g *grouping) end(s *fact.Socket) int32 {
	if len(s.Owners) == 0 {
		return g.number(End{Name: noProcess})
	}
	pid := s.Owners[0].PID
	if at, known := g.byPID[pid]; known {
		return at
	}
	e := End{Name: notSeen}
	if p := g.Process(pid); p != nil {
		e = End{Name: fact.Printable(p.Name), Unit: fact.Printable(p.Unit), Container: fact.Printable(p.Container)}
	}
	at := g.number(e)
	g.byPID[pid] = at
	g.ends[at].Processes++
	if g.ends[at].PID = pid; g.ends[at].Processes > 1 {
		g.ends[at].PID = 0
	}
	return at
}

// number is where an end is in ends. It is known there by what it was made of.
func (g *grouping) number(e End) int32 {
	at, known := g.byEnd[e]
	if !known {
		at = int32(len(g.ends))
		g.byEnd[e] = at
		g.ends = append(g.ends, e)
	}
	return at
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
		idle := options.Idle()
		both = limits{finite(idle), finite(options.Sending()), idle.By == bound.None}
		g.bounds[options] = both
	}
	l.Never = l.Never || both.never
	l.Idle, l.Sending = longer(l.Idle, both.idle), longer(l.Sending, both.sending)
}

// limits are the bounds of connections with the same settings.
type limits struct {
	idle, sending *float64
	never         bool // while idle
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

// sorted returns links, largest first. It moves each once: they are large.
func sorted(links []Link) []Link {
	order := make([]*Link, len(links))
	for i := range links {
		order[i] = &links[i]
	}
	if slices.IsSortedFunc(order, largestFirst) {
		return links
	}
	slices.SortFunc(order, largestFirst)
	out := make([]Link, len(links))
	for i, l := range order {
		out[i] = *l
	}
	return out
}

// largestFirst is an order in which no two links are equal.
func largestFirst(a, b *Link) int {
	if a.Count != b.Count {
		return cmp.Compare(b.Count, a.Count)
	}
	if c := compareEnds(&a.From, &b.From); c != 0 {
		return c
	}
	if c := compareEnds(&a.To, &b.To); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Netns, b.Netns), cmp.Compare(a.Protocol, b.Protocol))
}

func compareEnds(a, b *End) int {
	if a.Name != b.Name {
		return strings.Compare(a.Name, b.Name)
	}
	return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Container, b.Container), cmp.Compare(a.PID, b.PID))
}
