package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// view is a machine with the groupings that several rules read, made once, so
// that no rule walks all sockets for itself.
type view struct {
	*fact.Machine
	elapsed time.Duration // from the earlier look to this one; 0 when there was none

	conns []conn         // TCP connections of which the kernel tells something, to anywhere
	peers []peer         // who they are with
	dials []*fact.Socket // unix sockets that connected to somebody
	sites []LeakSite     // what was seen over time; nil in a look

	listening map[port]bool
	bounds    map[bound.Conn]*limits  // thousands of sockets share few settings
	earlier   map[uint64]*fact.Socket // by cookie; made when first asked for
	probed    map[uint64][]age        // by cookie: the probes that a Detector saw; nil without one
}

// conn is a TCP connection with what rules ask of it again and again.
type conn struct {
	*fact.Socket
	accepted bool  // its local port is listened on: the other end opened it
	remote   bool  // it leaves this machine
	peer     int32 // index in the view

	bounded bool // the limits are known, and there
	*limits
}

// limits are the bounds of connections with the same settings.
type limits struct{ idle, sending bound.Bound }

// peer is an address, in one network namespace, and the connections with it that
// leave this machine: none for its own addresses.
type peer struct {
	peerKey
	here  bool
	conns []*conn
}

type peerKey struct {
	netns uint32
	iface uint32 // of a link-local address, which means nothing without; 0 otherwise
	addr  netip.Addr
}

func keyOf(s *fact.Socket) peerKey {
	key := peerKey{netns: s.Netns, addr: s.Remote.Addr()}
	if key.addr.IsLinkLocalUnicast() {
		key.iface = s.Interface
	}
	return key
}

// host is an address as one network namespace sees it.
type host struct {
	netns uint32
	addr  netip.Addr
}

// port is a TCP port of one network namespace.
type port struct {
	netns  uint32
	number uint16
}

func newView(m *fact.Machine) *view {
	v := emptyView(m)
	v.conns = make([]conn, 0, len(m.Sockets)) // each is small
	for i := range m.Sockets {
		switch s := &m.Sockets[i]; {
		case s.Protocol == fact.TCP && s.State == fact.Listen:
			v.listening[port{s.Netns, s.Local.Port()}] = true
		case s.Protocol == fact.TCP && s.Conn != nil:
			v.conns = append(v.conns, conn{Socket: s})
		case isDial(s):
			v.dials = append(v.dials, s)
		}
	}
	for i := range v.conns {
		c := &v.conns[i]
		c.accepted = v.listening[port{c.Netns, c.Local.Port()}]
	}
	v.groupByPeer()
	return v
}

// viewOf has only some of the TCP connections, and nothing else. It does not say
// who opened them.
func viewOf(m *fact.Machine, some func(*fact.Socket) bool) *view {
	v := emptyView(m)
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Conn != nil && s.Protocol == fact.TCP && some(s) {
			v.conns = append(v.conns, conn{Socket: s})
		}
	}
	v.groupByPeer()
	return v
}

func emptyView(m *fact.Machine) *view {
	v := &view{Machine: m, listening: make(map[port]bool), bounds: make(map[bound.Conn]*limits)}
	if m.Earlier != nil {
		v.elapsed = max(m.Time.Sub(m.Earlier.Time), 0)
	}
	return v
}

// isDial reports a unix socket that connected to a listener: a socket that was
// accepted carries the listener's name, the one that connected has none.
func isDial(s *fact.Socket) bool {
	return (s.Protocol == fact.UnixStream || s.Protocol == fact.UnixSeqpacket) &&
		s.State == fact.Established && s.Path == "" && s.PeerInode != 0
}

func (v *view) groupByPeer() {
	own := v.ownAddresses()
	index := make(map[peerKey]int32, len(v.conns)/4)
	sizes := make([]int, 0, len(v.conns)/4)
	remote := 0
	for i := range v.conns {
		c := &v.conns[i]
		key := keyOf(c.Socket)
		at, found := index[key]
		if !found {
			at = int32(len(v.peers))
			index[key] = at
			v.peers = append(v.peers, peer{peerKey: key, here: !key.addr.IsValid() || key.addr.IsUnspecified() ||
				key.addr.IsLoopback() || own[host{key.netns, key.addr}]})
			sizes = append(sizes, 0)
		}
		c.peer = at
		if v.peers[at].here || key.addr == c.Local.Addr() {
			continue
		}
		c.remote = true
		if c.State == fact.Established {
			v.computeBound(c)
		}
		sizes[at]++
		remote++
	}
	all := make([]*conn, remote) // one array for all peers
	for i, size := range sizes {
		v.peers[i].conns, all = all[:0:size], all[size:]
	}
	for i := range v.conns {
		if c := &v.conns[i]; c.remote {
			p := &v.peers[c.peer]
			p.conns = append(p.conns, c)
		}
	}
}

// ownAddresses are those that a namespace can reach without leaving the
// machine. Where they were not looked at, the local ends of its connections
// stand in for them.
func (v *view) ownAddresses() map[host]bool {
	own := make(map[host]bool)
	unseen := make(map[uint32]bool)
	for i := range v.Namespaces {
		ns := &v.Namespaces[i]
		unseen[ns.Inode] = ns.Local == nil
		for _, addr := range ns.Local {
			own[host{ns.Inode, addr}] = true
		}
	}
	for i := range v.conns {
		c := &v.conns[i]
		if hidden, listed := unseen[c.Netns]; hidden || !listed {
			own[host{c.Netns, c.Local.Addr()}] = true
		}
	}
	return own
}

func (v *view) computeBound(c *conn) {
	options, ok := v.BoundConn(c.Socket)
	if !ok {
		return
	}
	both := v.bounds[options]
	if both == nil {
		both = &limits{options.Idle(), options.Sending()}
		v.bounds[options] = both
	}
	c.bounded, c.limits = true, both
}

// before returns the same socket in the earlier look, nil when it was not there
// or there was no earlier look.
func (v *view) before(s *fact.Socket) *fact.Socket {
	if v.Earlier == nil || s.Cookie == 0 {
		return nil
	}
	if v.earlier == nil {
		v.earlier = make(map[uint64]*fact.Socket, len(v.Earlier.Sockets))
		for i := range v.Earlier.Sockets {
			v.earlier[v.Earlier.Sockets[i].Cookie] = &v.Earlier.Sockets[i]
		}
	}
	return v.earlier[s.Cookie]
}

// owner is the process to name for a socket, 0 when none was seen: of several
// that share it after a fork, the first.
func owner(s *fact.Socket) int32 {
	if len(s.Owners) == 0 {
		return 0
	}
	return s.Owners[0].PID
}

// called names a process in a sentence.
func (v *view) called(pid int32) string {
	if pid == 0 {
		return "a process that was not seen"
	}
	if p := v.Process(pid); p != nil && p.Name != "" {
		return fmt.Sprintf("%s (pid %d)", p.Name, pid)
	}
	return fmt.Sprintf("pid %d", pid)
}

// about begins the subject of a finding with its process; unknown is null.
func (v *view) about(pid int32) Values {
	if pid == 0 {
		return Values{{"pid", nil}, {"process", nil}}
	}
	p := v.Process(pid)
	if p == nil {
		return Values{{"pid", pid}, {"process", nil}}
	}
	subject := Values{{"pid", pid}, {"process", p.Name}}
	if p.Container != "" {
		subject = subject.add("container", p.Container)
	}
	if p.Unit != "" {
		subject = subject.add("unit", p.Unit)
	}
	return subject
}

// listed is how many processes, peers or programs a finding names; the rest
// only count.
const listed = 5

// processes names the owners of some connections, those with the most first.
func (v *view) processes(conns []*conn) []string {
	names, _ := tally(conns, func(c *conn) int32 { return owner(c.Socket) }, v.called)
	return names
}

// tally counts items by key and returns the names of the most frequent keys,
// and how many keys there are.
func tally[T any, K comparable](items []T, key func(T) K, name func(K) string) (names []string, all int) {
	type entry struct {
		key K
		n   int
	}
	index := make(map[K]int)
	var entries []entry
	for _, item := range items {
		k := key(item)
		at, found := index[k]
		if !found {
			at = len(entries)
			index[k] = at
			entries = append(entries, entry{key: k})
		}
		entries[at].n++
	}
	byWeight(entries, func(e entry) int { return e.n })
	for _, e := range entries[:min(len(entries), listed)] {
		names = append(names, name(e.key))
	}
	return names, len(entries)
}

// idleFor is how long no data went either way.
func idleFor(s *fact.Socket) time.Duration { return min(s.Conn.LastSent, s.Conn.LastReceived) }

func filter(conns []*conn, keep func(*conn) bool) []*conn {
	var kept []*conn
	for _, c := range conns {
		if keep(c) {
			kept = append(kept, c)
		}
	}
	return kept
}

// crowd is the connections of one process that a rule found alike, or those of
// several processes that share a finding.
type crowd struct {
	pid    int32
	others int // processes that share; 0 when it is one
	conns  []*conn
}

// crowdsApart is how many processes get a finding of their own.
const crowdsApart = 10

// eachCrowd makes a finding for each process that has many of the connections,
// and one for the rest together.
func eachCrowd(conns []*conn, finding func(crowd) Finding) []Finding {
	each, folded := apart(crowds(conns), crowdsApart)
	var findings []Finding
	for _, c := range each {
		findings = append(findings, finding(c))
	}
	if len(folded) > 0 {
		rest := crowd{others: len(folded)}
		for _, c := range folded {
			rest.conns = append(rest.conns, c.conns...)
		}
		f := finding(rest)
		f.weight = -1
		findings = append(findings, f)
	}
	return findings
}

// crowds gathers connections by process, the largest first.
func crowds(conns []*conn) []crowd {
	index := make(map[int32]int)
	var all []crowd
	for _, c := range conns {
		pid := owner(c.Socket)
		at, found := index[pid]
		if !found {
			at = len(all)
			index[pid] = at
			all = append(all, crowd{pid: pid})
		}
		all[at].conns = append(all[at].conns, c)
	}
	slices.SortStableFunc(all, func(a, b crowd) int {
		return cmp.Or(cmp.Compare(len(b.conns), len(a.conns)), cmp.Compare(a.pid, b.pid))
	})
	return all
}

// calledAll names the owners of a crowd in a sentence.
func (v *view) calledAll(c crowd) string {
	if c.others > 0 {
		return Number(c.others) + " other processes"
	}
	return v.called(c.pid)
}

// aboutAll begins the subject of a finding with the owners of a crowd.
func (v *view) aboutAll(c crowd) Values {
	if c.others > 0 {
		return Values{{"processes", v.processes(c.conns)}}
	}
	return v.about(c.pid)
}

// longestIdle is how long one of them carried no data.
func (c crowd) longestIdle() time.Duration {
	var idle time.Duration
	for _, s := range c.conns {
		idle = max(idle, idleFor(s.Socket))
	}
	return idle
}

// facing says with whom: an address, or how many of them.
func (v *view) facing(conns []*conn) (text string, subject Values) {
	largest, all := tally(conns, func(c *conn) int32 { return c.peer }, func(at int32) string { return v.peers[at].addr.String() })
	if all == 1 {
		return largest[0], Values{{"peer", largest[0]}}
	}
	return count(all, "peer"), Values{{"peers", all}, {"largest_peers", largest}}
}
