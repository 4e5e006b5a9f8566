package daemon

import (
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// mostMinutes is for how long the open sockets of a site are kept.
const mostMinutes = 60

// seenSite is a site over time.
type seenSite struct {
	first  time.Time
	minute time.Time // in which the last of over was counted
	over   []int
}

// remember adds the look to what is kept of each site, and returns the sites as
// they are published.
func (l *leakLook) remember(now time.Time, sites []verdict.LeakSite) []state.Site {
	seen := make(map[string]*seenSite, len(sites))
	out := state.SitesOf(sites[:min(len(sites), state.MostSites)])
	for i := range sites {
		s := &sites[i]
		kept := l.sites[s.Key()]
		if kept == nil {
			kept = &seenSite{first: now}
		}
		seen[s.Key()] = kept
		kept.count(now, s.Open)
		if i < len(out) {
			out[i].First, out[i].Over = kept.first, slices.Clone(kept.over)
		}
	}
	l.sites = seen
	return out
}

func (k *seenSite) count(now time.Time, open int) {
	minute := now.Truncate(time.Minute)
	if len(k.over) > 0 && k.minute.Equal(minute) {
		k.over[len(k.over)-1] = open
		return
	}
	k.minute, k.over = minute, append(k.over, open)
	k.over = k.over[max(len(k.over)-mostMinutes, 0):]
}
