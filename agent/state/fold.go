package state

import (
	"net/netip"
	"slices"

	"github.com/lifeline-go/lifeline/agent/verdict"
)

// Fold makes at most so many links of more, 0 means [MostLinks], so that they can
// be drawn. The largest half stays. The rest is folded into networks (/24, of IPv6
// /64) for each program; where that is still too much, the largest of these stay
// and each program gets one link to all others; and then one link stands for the
// rest. Counts are exact: the sums are the same before and after. A folded link
// has the worst verdict and the longest bounds of what is in it.
func Fold(links []Link, most int) []Link {
	if most <= 0 {
		most = MostLinks
	}
	if links = sorted(links); len(links) <= most {
		return slices.Clone(links)
	}
	kept, rest := links[:most/2:most/2], links[most/2:]
	rest = gather(rest, func(l *Link) head { return head{l.From, network(l), l.Netns, l.Here} })
	if room := most - len(kept); len(rest) > room {
		kept, rest = append(kept, rest[:room/2]...), rest[room/2:]
		rest = gather(rest, func(l *Link) head { return head{from: l.From} })
	}
	if room := most - len(kept); len(rest) > room {
		kept, rest = append(kept, rest[:room-1]...), rest[room-1:]
		rest = gather(rest, func(*Link) head { return head{} })
	}
	return sorted(append(kept, rest...))
}

// network is where links are folded first; a program or what was folded already
// stays itself.
func network(l *Link) string {
	addr, err := netip.ParseAddr(l.To.Name)
	if err != nil {
		return l.To.Name
	}
	bits := 64
	if addr.Is4() {
		bits = 24
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return l.To.Name
	}
	return prefix.String()
}

// head is what links that are folded have in common. An end without a name: only
// that there are many.
type head struct {
	from  End
	to    string
	netns uint32
	here  bool
}

// folding is a link that others are folded into.
type folding struct {
	Link
	froms, tos endSet
}

// endSet is which ends a folding has on one side. Most have one.
type endSet struct {
	one  End
	more map[End]bool // all of them; nil while there is one
}

func (s *endSet) add(e *End) {
	switch {
	case s.more != nil:
		s.more[*e] = true
	case *e != s.one:
		s.more = map[End]bool{s.one: true, *e: true}
	}
}

// fold is the end that stands for them; one that is the same for all stays.
func (s *endSet) fold(head End) End {
	if s.more == nil {
		return s.one
	}
	folded, processes := 0, 0
	for e := range s.more {
		folded += max(e.Folded, 1)
		processes += e.Processes
	}
	if head.Name == "" {
		head.Name = verdict.Number(folded) + " others"
	}
	return End{Name: head.Name, Unit: head.Unit, Container: head.Container, Processes: processes, Folded: folded}
}

// add folds a link into one that is there.
func (f *folding) add(l *Link) {
	f.froms.add(&l.From)
	f.tos.add(&l.To)
	f.Count += l.Count
	f.Unacked += l.Unacked
	f.Never = f.Never || l.Never
	f.Here = f.Here && l.Here
	f.Idle, f.Sending = longer(f.Idle, l.Idle), longer(f.Sending, l.Sending)
	if badness(l.Verdict) > badness(f.Verdict) {
		f.Verdict = l.Verdict
	}
	if l.Port != f.Port {
		f.Port = ""
	}
	if l.Protocol != f.Protocol {
		f.Protocol = ""
	}
	if l.Netns != f.Netns {
		f.Netns = 0
	}
}

// gather folds links of which by says the same into one each. One alone stays as
// it is.
func gather(links []Link, by func(*Link) head) []Link {
	type group struct {
		first *Link
		all   *folding // nil while there is one
	}
	index := make(map[head]int32, len(links))
	groups := make([]group, 0, len(links))
	for i := range links {
		l := &links[i]
		h := by(l)
		at, found := index[h]
		if !found {
			index[h] = int32(len(groups))
			groups = append(groups, group{first: l})
			continue
		}
		g := &groups[at]
		if g.all == nil {
			g.all = &folding{Link: *g.first, froms: endSet{one: g.first.From}, tos: endSet{one: g.first.To}}
		}
		g.all.add(l)
	}
	out := make([]Link, len(groups))
	for i, g := range groups {
		if g.all == nil {
			out[i] = *g.first
			continue
		}
		h := by(g.first)
		out[i] = g.all.Link
		out[i].From, out[i].To = g.all.froms.fold(h.from), g.all.tos.fold(End{Name: h.to})
	}
	return sorted(out)
}

func badness(v string) verdict.Liveness {
	for l := verdict.Silent; l > verdict.Alive; l-- {
		if v == l.String() {
			return l
		}
	}
	return verdict.Alive
}
