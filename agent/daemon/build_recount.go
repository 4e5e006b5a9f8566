package daemon

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// tally is the TCP sockets of one network namespace, counted; those in TIME_WAIT
// are not.
type tally struct {
	all      int
	states   map[string]int
	families map[string]int

	// own are the addresses of the namespace, so that they are nobody's peers. Where
	// they are not known, nil, peers are not counted.
	own   map[netip.Addr]bool
	peers map[peerKey]reached
}

// reached is the connections with a peer.
type reached struct {
	count int
	open  int // of them established
}

// newTally is one of the same namespace in which nothing is counted yet; like may
// be nil.
func newTally(like *tally) *tally {
	t := &tally{states: make(map[string]int), families: make(map[string]int), peers: make(map[peerKey]reached)}
	if like != nil {
		t.own = like.own
	}
	return t
}

// talliesOf are those of a census, by namespace.
func talliesOf(m *fact.Machine) map[uint32]*tally {
	all := make(map[uint32]*tally, len(m.Namespaces))
	for i := range m.Namespaces {
		all[m.Namespaces[i].Inode] = newTally(nil)
	}
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Protocol == fact.TCP && s.State != fact.TimeWait && all[s.Netns] != nil {
			all[s.Netns].add(s) // without its peer, of which the census knows more
		}
	}
	for i := range m.Namespaces {
		if ns := &m.Namespaces[i]; ns.Local != nil {
			t := all[ns.Inode]
			t.own = make(map[netip.Addr]bool, len(ns.Local))
			for _, addr := range ns.Local {
				t.own[addr] = true
			}
		}
	}
	return all
}

// add counts a socket, and its peer as the census does: not of listeners and of
// handshakes that are not over, and none of this machine.
func (t *tally) add(s *fact.Socket) {
	t.all++
	t.states[s.State.String()]++
	t.families[s.Family.String()]++
	addr := s.Remote.Addr()
	switch {
	case s.State == fact.Listen || s.State == fact.SynRecv || s.State == fact.NewSynRecv || t.own == nil:
		return
	case !addr.IsValid() || addr.IsUnspecified() || addr.IsLoopback() || t.own[addr] || addr == s.Local.Addr():
		return
	}
	key := peerKey{netns: s.Netns, addr: addr}
	if addr.IsLinkLocalUnicast() {
		key.iface = s.Interface
	}
	r := t.peers[key]
	r.count++
	if s.State == fact.Established {
		r.open++
	}
	t.peers[key] = r
}

// recounted are the counts with some namespaces counted again, in which the kernel
// counted so many before. Who holds the connections, and the links, are as the
// census has them.
func (c *counts) recounted(fresh map[uint32]*tally, now map[uint32]int) counts {
	out := *c
	out.totals.TCP, out.totals.Families = maps.Clone(c.totals.TCP), maps.Clone(c.totals.Families)
	out.shown, out.tallies = maps.Clone(c.shown), maps.Clone(c.tallies)
	for netns, t := range fresh {
		was := cmp.Or(c.tallies[netns], &tally{})
		out.totals.Sockets += t.all - was.all
		replace(out.totals.TCP, was.states, t.states)
		replace(out.totals.Families, was.families, t.families)
		out.shown[netns], out.tallies[netns] = now[netns], t
	}
	out.peers, out.keys = c.recountedPeers(fresh)
	out.totals.Peers = len(out.peers)
	return out
}

// replace takes what was counted out of a sum, and puts in what is.
func replace(sum, was, is map[string]int) {
	for key, n := range was {
		sum[key] -= n
	}
	for key, n := range is {
		sum[key] += n
	}
	maps.DeleteFunc(sum, func(_ string, n int) bool { return n <= 0 })
}

// recountedPeers are the peers, in the order of [verdict.Peers]. One that the
// census did not know has connections and no more: whose they are it will tell.
func (c *counts) recountedPeers(fresh map[uint32]*tally) (peers []state.Peer, keys []peerKey) {
	type one struct {
		state.Peer
		key peerKey
	}
	var all []one
	known := make(map[peerKey]bool, len(c.keys))
	for i, key := range c.keys {
		p := one{c.peers[i], key}
		known[key] = true
		if t := fresh[key.netns]; t != nil && t.own != nil {
			p.Count = t.peers[key].count
		}
		if p.Count > 0 {
			all = append(all, p)
		}
	}
	for netns, t := range fresh {
		for key, r := range t.peers {
			if known[key] {
				continue
			}
			all = append(all, one{state.Peer{Peer: key.addr.String(), Netns: netns, Count: r.count, Verdict: verdict.Alive.String(), // nothing was seen to speak against it
				Unknown: r.open, Processes: []state.Holder{}}, key})
		}
	}
	slices.SortFunc(all, func(a, b one) int {
		return cmp.Or(cmp.Compare(worse(b.Verdict), worse(a.Verdict)), cmp.Compare(b.Count, a.Count), a.key.addr.Compare(b.key.addr),
			cmp.Compare(a.key.netns, b.key.netns), cmp.Compare(a.key.iface, b.key.iface))
	})
	for _, p := range all {
		peers, keys = append(peers, p.Peer), append(keys, p.key)
	}
	return peers, keys
}
