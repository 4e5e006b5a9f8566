package verdict

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// suspectSockets is how many connections of a suspect are named: a poke takes
// fewer.
const suspectSockets = 16

// Suspect is a peer of which a poke would tell more than looking does.
type Suspect struct {
	Netns     uint32
	Interface uint32 // of a link-local address; 0 otherwise
	Addr      netip.Addr
	Count     int            // connections
	Sockets   []*fact.Socket // some that are established, those heard last first; copies, which stay good
	Quiet     time.Duration  // since anything came from it
	Silent    bool           // the verdict has fallen, and an answer would lift it
}

// Answer is what came of poking a peer.
type Answer struct {
	Netns     uint32
	Interface uint32
	Addr      netip.Addr
	Began     time.Time // when the first probe was sent
	Alive     bool      // something was answered
	Silent    bool      // nothing was, often and long enough for a verdict

	// Exchanges that were left unanswered, in the end or before the answer came.
	// Retransmissions are not among them.
	Exchanges int
}

// Suspects are the peers of the last look that leave something unanswered, on so
// few connections, or after so long a quiet, that a poke would settle soon what
// takes long to see; and the silent ones. Whoever pokes them gives the [Answer] to
// [Detector.Hear]; nobody has to.
func (d *Detector) Suspects() []Suspect { return d.suspects }

// Hear takes what came of a poke. The next look judges by it.
func (d *Detector) Hear(a Answer) {
	key := peerKey{netns: a.Netns, iface: a.Interface, addr: a.Addr}
	if d.peers == nil {
		d.peers = make(map[peerKey]*memory)
	}
	mem := d.peers[key]
	if mem == nil {
		mem = &memory{}
		d.peers[key] = mem
	}
	switch {
	case a.Alive && !mem.silent: // what lifts a verdict is seen by the next look
		if n := max(mem.unanswered, mem.poked+a.Exchanges); n > 0 && n >= mem.survived {
			mem.survived, mem.survivedAt = n, a.Began
		}
		if a.Exchanges > 0 { // answered, but not at once
			mem.lossyAt = a.Began
		}
		mem.unanswered, mem.poked = 0, 0
	case a.Silent:
		if mem.poked == 0 {
			mem.pokedSince = a.Began
		}
		mem.poked += a.Exchanges
	}
}

// suspect notes a peer that a poke would tell more of. Where enough connections
// of many ask already, looking tells within a second, unless it is long since.
func (d *Detector) suspect(v *view, p *peer, mem *memory, quiet time.Duration) {
	owed, asking := v.owed(p, quiet)
	if !mem.silent {
		d.suspicious = d.suspicious || owed > 0 || mem.poked > 0
		if asking != nil && len(d.asking) < suspectSockets {
			d.asking = append(d.asking, apartOf(asking))
		}
		looking := len(p.conns) >= largePeer && owed >= exchangesUnknownPath && quiet < pokedQuiet
		if looking || owed == 0 && mem.poked == 0 {
			return
		}
	}
	d.suspects = append(d.suspects, suspectOf(p, quiet, mem.silent))
}

func suspectOf(p *peer, quiet time.Duration, silent bool) Suspect {
	s := Suspect{Netns: p.netns, Interface: p.iface, Addr: p.addr, Count: len(p.conns), Quiet: quiet, Silent: silent}
	for _, c := range p.conns {
		if c.State == fact.Established {
			s.Sockets = append(s.Sockets, c.Socket)
		}
	}
	slices.SortStableFunc(s.Sockets, func(a, b *fact.Socket) int { return cmp.Compare(a.Conn.Heard(), b.Conn.Heard()) })
	s.Sockets = s.Sockets[:min(len(s.Sockets), suspectSockets)]
	for i, socket := range s.Sockets {
		own := apartOf(socket)
		s.Sockets[i] = &own
	}
	return s
}

// Quiet returns the peers outside this machine that were not heard for so long,
// on any of their connections: nothing says that they are not well, but nothing
// would say if they were not.
func Quiet(m *fact.Machine, than time.Duration) []Suspect {
	type last struct {
		quiet time.Duration
		n     int
	}
	peers := make(map[peerKey]last)
	for i := range m.Sockets {
		s := &m.Sockets[i]
		if s.Conn == nil || s.Protocol != fact.TCP || s.State != fact.Established || s.Remote.Addr().IsLoopback() {
			continue
		}
		key := keyOf(s)
		l, known := peers[key]
		if quiet := s.Conn.Heard(); !known || quiet < l.quiet {
			l.quiet = quiet
		}
		l.n++
		peers[key] = l
	}
	v := viewOf(m, func(s *fact.Socket) bool {
		l, known := peers[keyOf(s)]
		return known && l.quiet >= than
	})
	var quiet []Suspect
	for i := range v.peers {
		if p := &v.peers[i]; len(p.conns) > 0 {
			quiet = append(quiet, suspectOf(p, peers[p.peerKey].quiet, false))
		}
	}
	slices.SortStableFunc(quiet, func(a, b Suspect) int { return cmp.Compare(b.Quiet, a.Quiet) })
	return quiet
}

// Others looks at the other peers of a silent peer's network namespace: whether
// any of them was heard while the silent one was asked and did not answer, and who
// they are, those heard last first. When nobody was, it may be this machine's own
// link that is dead.
//
// That another was heard after the silent peer was is not enough: two peers that are
// talked to in turns are heard in turns until the link dies. It must have been heard
// in the second half of the time that the first unanswered question waits, so that
// one which was lost by chance, just before the link died, decides nothing.
func Others(m *fact.Machine, silent *Peer) (heard bool, others []Suspect) {
	// An age may be that of a moment before the peer died, as both are rounded; and
	// those that the kernel told last are of a moment that much later.
	const rounded = 200 * time.Millisecond
	apart := rounded + m.Took
	v := viewOf(m, func(s *fact.Socket) bool { return s.Netns == silent.Netns && s.State != fact.SynSent })
	asked := v.firstAsked(silent)
	for i := range v.peers {
		p := &v.peers[i]
		if len(p.conns) == 0 || p.is(silent) {
			continue
		}
		quiet := p.conns[0].Conn.Heard()
		for _, c := range p.conns {
			quiet = min(quiet, c.Conn.Heard())
		}
		heard = heard || quiet+apart < asked/2
		others = append(others, suspectOf(p, quiet, false))
	}
	slices.SortStableFunc(others, func(a, b Suspect) int { return cmp.Compare(a.Quiet, b.Quiet) })
	return heard, others
}

// firstAsked is how long ago a silent peer was first asked what it did not answer, as far
// as its sockets show; 0 when they do not.
func (v *view) firstAsked(silent *Peer) (longest time.Duration) {
	for i := range v.peers {
		if p := &v.peers[i]; p.is(silent) {
			for _, c := range p.conns {
				_, first := v.unanswered(c.Socket, silent.Quiet.Value)
				longest = max(longest, first)
			}
		}
	}
	return longest
}

func (p *peer) is(q *Peer) bool { return p.addr == q.Addr && p.iface == q.Interface }
