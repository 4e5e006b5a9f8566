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
	rest = gather(rest, func(l *Link) Link { return Link{From: l.From, Netns: l.Netns, Here: l.Here, To: End{Name: network(l)}} })
	if room := most - len(kept); len(rest) > room {
		kept, rest = append(kept, rest[:room/2]...), rest[room/2:]
		rest = gather(rest, func(l *Link) Link { return Link{From: l.From} })
	}
	if room := most - len(kept); len(rest) > room {
		kept, rest = append(kept, rest[:room-1]...), rest[room-1:]
		rest = gather(rest, func(*Link) Link { return Link{} })
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

// gather folds links of which by says the same into one each. By leaves a To
// without a name where they only have in common that there are many, and a From
// likewise. One alone stays as it is.
func gather(links []Link, by func(*Link) Link) []Link {
	type key struct {
		from, to End
		netns    uint32
		here     bool
	}
	index := make(map[key]int)
	var groups [][]*Link
	var heads []Link
	for i := range links {
		head := by(&links[i])
		k := key{head.From, head.To, head.Netns, head.Here}
		at, found := index[k]
		if !found {
			at = len(groups)
			index[k] = at
			groups, heads = append(groups, nil), append(heads, head)
		}
		groups[at] = append(groups[at], &links[i])
	}
	folded := make([]Link, len(groups))
	for i, group := range groups {
		folded[i] = *group[0]
		if len(group) > 1 {
			folded[i] = merge(heads[i], group)
		}
	}
	return sorted(folded)
}

func merge(head Link, group []*Link) Link {
	all := *group[0]
	all.From, all.To = head.From, head.To
	froms, tos := make(map[End]bool), make(map[End]bool)
	for i, l := range group {
		froms[l.From], tos[l.To] = true, true
		if i == 0 {
			continue
		}
		all.Count += l.Count
		all.Unacked += l.Unacked
		all.Never = all.Never || l.Never
		all.Here = all.Here && l.Here
		all.Idle, all.Sending = longer(all.Idle, l.Idle), longer(all.Sending, l.Sending)
		if badness(l.Verdict) > badness(all.Verdict) {
			all.Verdict = l.Verdict
		}
		if l.Port != all.Port {
			all.Port = ""
		}
		if l.Protocol != all.Protocol {
			all.Protocol = ""
		}
		if l.Netns != all.Netns {
			all.Netns = 0
		}
	}
	all.From, all.To = foldEnds(all.From, froms), foldEnds(all.To, tos)
	return all
}

// foldEnds is an end that stands for others; one that is the same for all stays.
func foldEnds(head End, ends map[End]bool) End {
	folded, processes := 0, 0
	for e := range ends {
		folded += max(e.Folded, 1)
		processes += e.Processes
		if len(ends) == 1 {
			return e
		}
	}
	if head.Name == "" {
		head.Name = verdict.Number(folded) + " others"
	}
	return End{Name: head.Name, Unit: head.Unit, Container: head.Container, Processes: processes, Folded: folded}
}

func badness(v string) verdict.Liveness {
	for l := verdict.Silent; l > verdict.Alive; l-- {
		if v == l.String() {
			return l
		}
	}
	return verdict.Alive
}
