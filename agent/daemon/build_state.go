package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// peerKey tells peers apart.
type peerKey struct {
	netns, iface uint32
	addr         netip.Addr
}

// known is what the sources have told so far. Each value in it is replaced and
// never changed, so that a State may share it.
type known struct {
	policy   *policy.Policy // nil = watch all
	told     state.Policy
	doings   state.Doings
	life     verdict.Lives
	counts   counts
	names    *state.Names
	programs *fact.Executables // nil before they were looked at
	sites    []state.Site
	sitesAll int
	callers  []int32           // processes that opened connections, by the census; nil before it
	parked   []fact.Goroutines // what is known of goroutines
	rates    rates
	full     *float64              // the fullest table of connection tracking
	flows    *fact.Machine         // that pass through, in Conntrack; what that takes
	watching bool                  // peers are watched
	silent   map[peerKey]time.Time // since when, by that watch
	blind    map[string][]fact.Blind
}

// found takes in what a source found, and what it could not see.
func (k *known) found(now time.Time, source string, found []verdict.Finding, blind []fact.Blind) {
	if k.blind == nil {
		k.blind = make(map[string][]fact.Blind)
	}
	k.blind[source] = blind
	k.life.Look(now, source, found)
}

// fill puts what is known into a State.
func (k *known) fill(s *state.State, now time.Time) {
	s.Agent.Policy = k.told
	s.Findings = kept(k.policy, state.FindingsOf(k.life.List(now)))
	s.Totals, s.Links, s.Groups, s.Calls = k.counts.totals, k.counts.links, k.counts.groups, k.counts.calls
	s.Totals.Sites, s.Totals.Conntrack = k.sitesAll, k.full
	k.rates.fill(&s.Totals)
	s.Peers = k.peers(now)
	s.Leaks, s.Names = k.sites, k.names
	s.Blind = append([]state.Blind{}, k.doings.Blind...)
	told := make(map[string]string) // by which source, by key
	for _, source := range slices.Sorted(maps.Keys(k.blind)) {
		for _, b := range k.blind[source] {
			line := state.Blind{Source: b.Source, Error: b.Error}
			if b.Needs != "" {
				line.Needs = &b.Needs
			}
			key := line.Key()
			by, known := told[key]
			if known && (by != source || slices.ContainsFunc(s.Blind, func(o state.Blind) bool { return o.Source == line.Source && o.Error == line.Error })) {
				continue // others see the same gap, a moment later
			}
			told[key] = source
			s.Blind = append(s.Blind, line)
		}
	}
	s.Links, s.Calls, s.Leaks = list(s.Links), list(s.Calls), list(s.Leaks)
	s.Acts, s.Tally, s.Agent.ByHand = list(k.doings.Acts), list(k.doings.Tally), list(k.doings.ByHand)
	s.Agent.Policy.Acts = list(s.Agent.Policy.Acts)
}

// list is never null in JSON.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// peers are those of the census, with the verdicts of the watch.
func (k *known) peers(time.Time) []state.Peer {
	out := make([]state.Peer, 0, len(k.counts.peers))
	for i, p := range k.counts.peers {
		if since, is := k.silent[k.counts.keys[i]]; is {
			p.Verdict, p.Since = verdict.Silent.String(), &since
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b state.Peer) int {
		return cmp.Compare(worse(b.Verdict), worse(a.Verdict))
	})
	return out[:min(len(out), state.MostPeers)]
}

func worse(v string) int {
	return slices.Index([]string{verdict.Alive.String(), verdict.Unsure.String(), verdict.Silent.String()}, v)
}

// asks is which source must have looked for a promise to be kept.
var asks = []string{verdict.Names: fromNames, verdict.Calls: fromCensus, verdict.Silence: fromCensus, verdict.Leaks: fromCensus}

// promises says how it stands with the four, by what else is in the State.
func promises(s *state.State) []state.Promise {
	looked := make(map[verdict.Promise]state.Looked, len(asks))
	for p, from := range asks {
		i := slices.IndexFunc(s.Sources, func(src state.Source) bool { return src.Name == from })
		if i < 0 {
			continue
		}
		promise, src := verdict.Promise(p), &s.Sources[i]
		switch why := cmp.Or(src.Off, src.Error); {
		case why != "":
			looked[promise] = state.Looked{What: "could not be looked at: " + why}
		case src.Last != nil:
			looked[promise] = state.Looked{At: *src.Last, What: examined(s, promise)}
		}
	}
	return state.PromisesOf(s.Findings, looked)
}

// examined says what was looked at and found well.
func examined(s *state.State, of verdict.Promise) string {
	t := &s.Totals
	switch of {
	case verdict.Names:
		if s.Names != nil {
			if slices.ContainsFunc(s.Names.Servers, func(n state.Nameserver) bool { return n.OK == nil }) {
				return "how names are resolved was read; nameservers were not asked"
			}
			asked := fmt.Sprintf("%s asked", many(len(s.Names.Servers), "nameserver"))
			if n := len(s.Names.Names); n > 0 {
				asked += fmt.Sprintf(", and %s looked up in every way", many(n, "name"))
			}
			return asked
		}
		return "how names are resolved was looked at"
	case verdict.Calls:
		return fmt.Sprintf("no call known to wait for its answer among those of %s", many(t.Processes, "process"))
	case verdict.Silence:
		return fmt.Sprintf("%s of %s looked at, none silent", many(t.TCP[fact.Established.String()], "connection"), many(t.Peers, "peer"))
	}
	return fmt.Sprintf("%s of %s looked at", many(t.Sockets, "socket"), many(t.Processes, "process"))
}

// many is a number with its noun.
func many(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if noun == "process" {
		noun += "e"
	}
	return verdict.Number(n) + " " + noun + "s"
}
