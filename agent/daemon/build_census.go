package daemon

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// counts is what a census says, without the facts that it rests on.
type counts struct {
	totals state.Totals
	links  []state.Link
	groups []state.Group // of all links
	calls  []state.Waiting
	waits  map[int32]bool // processes that wait for an answer
	peers  []state.Peer
	keys   []peerKey // of peers

	population *population       // that the census found
	shown      map[uint32]int    // the same, as counted last
	tallies    map[uint32]*tally // by namespace
	cost       time.Duration     // that it took of a processor
}

// counted makes counts of a census and its reading.
func counted(m *fact.Machine, r *verdict.Reading) counts {
	peers := r.Peers()
	links := state.LinksOf(m, peers)
	c := counts{totals: totals(m), links: state.Fold(links, 0), groups: state.GroupsOf(links), peers: state.PeersOf(peers)}
	c.totals.Links, c.population = len(links), populationOf(m)
	c.shown, c.tallies = c.population.by, talliesOf(m)
	for _, p := range peers {
		c.keys = append(c.keys, peerKey{p.Netns, p.Interface, p.Addr})
	}
	c.totals.Peers = len(c.peers)
	c.waits = make(map[int32]bool)
	waiting := r.Unanswered(unanswered)
	for i := range waiting {
		c.waits[waiting[i].PID] = true
	}
	for _, w := range mostSure(waiting, state.MostWaiting) {
		c.calls = append(c.calls, waitingOf(&w))
	}
	return c
}

// mostSure leaves out what is beyond so many: of what may be a long poll, or a
// protocol of one direction, first. The order stays.
func mostSure(all []verdict.Waiting, most int) []verdict.Waiting {
	unsure := len(all) - most // to leave out
	for i := len(all) - 1; i >= 0 && unsure > 0; i-- {
		if !all[i].Sure {
			all = slices.Delete(all, i, i+1)
			unsure--
		}
	}
	return all[:min(len(all), most)]
}

func totals(m *fact.Machine) state.Totals {
	t := state.Totals{Sockets: len(m.Sockets), Families: map[string]int{}, TCP: map[string]int{}, Namespaces: len(m.Namespaces), Looked: m.Time, Took: m.Took.Seconds()}
	for i := range m.Sockets {
		s := &m.Sockets[i]
		t.Families[s.Family.String()]++
		if s.Protocol == fact.TCP {
			t.TCP[s.State.String()]++
		}
	}
	for i := range m.Namespaces {
		if n := m.Namespaces[i].TimeWait; n > 0 {
			t.TCP[fact.TimeWait.String()] += n
		}
	}
	owns := make(map[int32]bool)
	for i := range m.Sockets {
		for _, o := range m.Sockets[i].Owners {
			owns[o.PID] = true
		}
	}
	t.Processes = len(owns)
	for i := range m.Processes {
		if f, ok := m.Processes[i].Files.Get(); ok && f.Limit > 0 && f.Limit != math.MaxUint64 {
			t.Files = greatest(t.Files, float64(f.Open)/float64(f.Limit))
		}
	}
	return t
}

func greatest(a *float64, b float64) *float64 {
	if a != nil && *a >= b {
		return a
	}
	return &b
}

// boundOf is a bound in seconds, nil where it is unknown or never ends.
func boundOf(b fact.Known[bound.Bound]) (s *float64, never bool) {
	v, ok := b.Get()
	if !ok {
		return nil, false
	}
	if v.Never() {
		return nil, true
	}
	return number(fact.Seen(v.After)), false
}

// number is a time in seconds, nil where it is unknown.
func number(d fact.Known[time.Duration]) *float64 {
	v, ok := d.Get()
	if !ok {
		return nil
	}
	s := v.Seconds()
	return &s
}

func waitingOf(w *verdict.Waiting) state.Waiting {
	out := state.Waiting{PID: w.PID, Process: w.Process, Count: w.Count, Since: w.Since.Seconds(), Goroutines: []string{}}
	if w.Peer.IsValid() {
		out.Peer = w.Peer.String()
	}
	out.Acknowledged, _ = w.Acknowledged.Get()
	for _, g := range w.Goroutines[:min(len(w.Goroutines), 5)] {
		out.Goroutines = append(out.Goroutines, strings.TrimSpace(g.For+" "+place(g.Asked)))
	}
	return out
}
