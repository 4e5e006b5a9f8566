package daemon

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// someSockets are TCP sockets of namespace 1 with a peer, all alike, and a listener
// and a connection over loopback.
func someSockets(peer string, n int, in fact.State) []fact.Socket {
	here := netip.MustParseAddrPort("10.0.0.1:80")
	all := []fact.Socket{{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Listen, Local: here, Netns: 1},
		{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Conn: &fact.Conn{}, Local: netip.MustParseAddrPort("127.0.0.1:9"), Remote: netip.MustParseAddrPort("127.0.0.1:8"), Netns: 1}}
	for i := range n {
		all = append(all, fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: in, Conn: &fact.Conn{}, Local: here, Remote: netip.AddrPortFrom(netip.MustParseAddr(peer), uint16(1000+i)), Netns: 1})
	}
	return all
}

func censusOf(sockets []fact.Socket) *fact.Machine {
	m := &fact.Machine{Sockets: sockets, Namespaces: []fact.Namespace{{Inode: 1, Local: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}}
	unix := fact.Socket{Protocol: fact.UnixStream, Family: fact.Unix, State: fact.Established, Netns: 1}
	m.Sockets = append(m.Sockets, unix)
	return m
}

// A recount says what a census of the same sockets would: sums, states, peers.
func TestRecountIsACensus(t *testing.T) {
	before := censusOf(someSockets("10.0.0.2", 5, fact.Established))
	c := counted(before, verdict.Read(before))
	for _, now := range [][]fact.Socket{
		someSockets("10.0.0.2", 9, fact.Established),
		someSockets("10.0.0.2", 2, fact.FinWait2),
		append(someSockets("10.0.0.2", 1, fact.Established), someSockets("10.0.0.3", 4, fact.SynSent)[2:]...),
		append(someSockets("10.0.0.3", 7, fact.Established), someSockets("10.0.0.1", 4, fact.Established)[2:]...), // one's own address is no peer
		someSockets("10.0.0.2", 0, fact.Established),
	} {
		fresh := map[uint32]*tally{1: newTally(c.tallies[1])}
		for i := range now {
			fresh[1].add(&now[i])
		}
		got := c.recounted(fresh, map[uint32]int{1: len(now)})
		m := censusOf(now)
		want := counted(m, verdict.Read(m))
		if got.totals.Sockets != want.totals.Sockets || got.totals.Peers != want.totals.Peers || !maps.Equal(got.totals.TCP, want.totals.TCP) || !maps.Equal(got.totals.Families, want.totals.Families) {
			t.Errorf("%+v, a census says %+v", got.totals, want.totals)
		}
		same := func(a, b state.Peer) bool { return a.Peer == b.Peer && a.Count == b.Count && a.Verdict == b.Verdict }
		if !slices.EqualFunc(got.peers, want.peers, same) || !slices.Equal(got.keys, want.keys) {
			t.Errorf("%+v, a census says %+v", got.peers, want.peers)
		}
		if got.shown[1] != len(now) || got.population != c.population {
			t.Errorf("shown %v", got.shown)
		}
		c = got // the next one is of what this one shows
	}
	if c.tallies[1] == nil || len(before.Sockets) != 8 {
		t.Error("the first census was changed")
	}
}

// Namespaces that are not counted again, and peers where a namespace does not tell
// its own addresses, stay as they were.
func TestRecountLeavesTheRest(t *testing.T) {
	m := censusOf(someSockets("10.0.0.2", 5, fact.Established))
	other := someSockets("10.9.0.2", 3, fact.Established)
	for i := range other {
		other[i].Netns = 2
	}
	m.Sockets, m.Namespaces = append(m.Sockets, other...), append(m.Namespaces, fact.Namespace{Inode: 2})
	c := counted(m, verdict.Read(m))
	fresh := map[uint32]*tally{2: newTally(c.tallies[2])}
	got := c.recounted(fresh, map[uint32]int{2: 0})
	if got.totals.Sockets != c.totals.Sockets-5 || got.totals.TCP["LISTEN"] != 1 || len(got.peers) != len(c.peers) {
		t.Errorf("%+v, %+v", got.totals, got.peers)
	}
	if c.totals.TCP["LISTEN"] != 2 || c.shown[2] == 0 {
		t.Error("the census was changed")
	}
}
