package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
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

// doctor is how names are resolved, as it is published.
func doctor(m *fact.Machine) *state.Names {
	out := &state.Names{Time: m.Time, Config: []state.Setting{}, Servers: []state.Nameserver{}, Names: []state.Name{}, Programs: []state.Resolver{}}
	if m.Names == nil {
		return out
	}
	if r, ok := m.Names.Resolv.Get(); ok {
		text := fmt.Sprintf("timeout %v, %d attempts", r.Timeout, r.Attempts)
		if len(r.Search) > 0 {
			text += ", search " + strings.Join(r.Search, " ")
		}
		if len(r.Options) > 0 {
			text += ", options " + strings.Join(r.Options, " ")
		}
		out.Config = append(out.Config, state.Setting{Source: r.Path, Text: fact.Printable(text)})
	}
	if sources, ok := m.Names.Switch.Get(); ok {
		var words []string
		for _, s := range sources {
			word := s.Name
			if s.Action != "" {
				word += " [" + s.Action + "]"
			}
			words = append(words, word)
		}
		out.Config = append(out.Config, state.Setting{Source: "/etc/nsswitch.conf", Text: fact.Printable("hosts: " + strings.Join(words, " "))})
	}
	if n, ok := m.Names.Hosts.Get(); ok {
		out.Config = append(out.Config, state.Setting{Source: "/etc/hosts", Text: many(n, "name")})
	}
	for i := range m.Names.Nameservers {
		out.Servers = append(out.Servers, serverOf(&m.Names.Nameservers[i]))
	}
	return out
}

func serverOf(n *fact.Nameserver) state.Nameserver {
	out := state.Nameserver{Address: n.Addr.String(), Way: n.Interface}
	switch {
	case n.NoRoute != "":
		out.Way = n.NoRoute
	case n.Gateway.IsValid():
		out.Way = fmt.Sprintf("%s via %s", n.Interface, n.Gateway)
	}
	if a, ok := n.Answer.Get(); ok {
		out.OK, out.Error = &a.OK, a.Error
		if a.OK {
			ms := a.After.Seconds() * 1000
			out.MS = &ms
		}
	}
	return out
}
