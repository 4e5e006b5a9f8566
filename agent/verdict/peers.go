package verdict

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// Peer is another machine as one network namespace knows it, and what is to be
// said of all connections with it.
type Peer struct {
	Netns     uint32
	Interface uint32 // of a link-local address; 0 otherwise
	Addr      netip.Addr
	Count     int
	Processes []Holder // those with the most connections first

	Verdict  Liveness
	Quiet    fact.Known[time.Duration] // since anything was acknowledged; unknown while it is only being dialled
	Evidence Values                    // what the verdict rests on; empty for a peer that is alive

	Idle, Sending fact.Known[bound.Bound] // the longest of its established connections
	Unknown       int                     // established connections whose bound is not known

	// When the kernel tells the first and the last program, were the peer dead
	// since it was last heard of. Never: some connections have nobody to tell.
	First, Last fact.Known[time.Duration]
	Never       bool
}

// Holder is a process that holds connections; PID 0 stands for what has no
// owner, or none that was seen.
type Holder struct {
	PID   int32
	Name  string
	Count int
}

// Peers returns every peer outside this machine: the silent ones first, then
// those with the most connections. The verdict on each is that of S001.
func Peers(m *fact.Machine) []Peer {
	if m == nil {
		return []Peer{}
	}
	return Read(m).Peers()
}

func (v *view) describeAll() []Peer {
	peers := make([]Peer, 0, len(v.peers))
	for i := range v.peers {
		if p := &v.peers[i]; len(p.conns) > 0 {
			h := v.listen(p, twoLooks)
			peers = append(peers, v.describe(p, &h))
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(b.Verdict, a.Verdict), cmp.Compare(b.Count, a.Count), a.Addr.Compare(b.Addr),
			cmp.Compare(a.Netns, b.Netns), cmp.Compare(a.Interface, b.Interface))
	})
	return peers
}

// describe says everything about a peer that was listened to.
func (v *view) describe(p *peer, h *hush) Peer {
	d := Peer{Netns: p.netns, Interface: p.iface, Addr: p.addr, Count: len(p.conns), Processes: v.holders(p.conns), Verdict: h.sure}
	for _, c := range p.conns {
		if c.State == fact.SynSent {
			continue // its ages count from the kernel's boot
		}
		if quiet, ok := d.Quiet.Get(); !ok || c.Conn.Heard() < quiet {
			d.Quiet = fact.Seen(c.Conn.Heard())
		}
		switch {
		case c.State != fact.Established:
		case !c.bounded:
			d.Unknown++
		default:
			d.Idle, d.Sending = longer(d.Idle, c.idle), longer(d.Sending, c.sending)
		}
	}
	d.First, d.Last, d.Never = remaining(p.conns)
	if h.sure != Alive {
		d.Evidence = v.silentEvidence(h)
	}
	return d
}

func longer(a fact.Known[bound.Bound], b bound.Bound) fact.Known[bound.Bound] {
	if a.OK && bound.Compare(a.Value, b) >= 0 {
		return a
	}
	return fact.Seen(b)
}

// holders counts connections by process.
func (v *view) holders(conns []*conn) []Holder {
	var all []Holder
	for _, c := range crowds(conns) {
		all = append(all, v.holder(c))
	}
	return all
}

func (v *view) holder(c crowd) Holder {
	h := Holder{PID: c.pid, Count: len(c.conns)}
	if p := v.Process(c.pid); p != nil {
		h.Name = fact.Printable(p.Name)
	}
	return h
}

// Complete takes from a list of peers, of a look that asked for more, what p
// itself does not know: whose the connections are, and their bounds.
func (p *Peer) Complete(from []Peer) {
	for i := range from {
		if q := &from[i]; q.Netns == p.Netns && q.Addr == p.Addr && q.Interface == p.Interface {
			p.Processes, p.Idle, p.Sending, p.Unknown = q.Processes, q.Idle, q.Sending, q.Unknown
			p.First, p.Last, p.Never = q.First, q.Last, q.Never
			return
		}
	}
}
