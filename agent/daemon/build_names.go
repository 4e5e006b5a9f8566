package daemon

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

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
	for i := range m.Lookups {
		out.Names = append(out.Names, nameOf(&m.Lookups[i]))
	}
	out.Programs = append(out.Programs, resolversOf(verdict.Programs(m))...)
	return out
}

// nameOf is what came of looking a name up, by way.
func nameOf(l *fact.Lookup) state.Name {
	out := state.Name{Name: fact.Printable(l.Name), Ways: make([]state.Way, len(l.Ways))}
	for i := range l.Ways {
		w := &l.Ways[i]
		way := state.Way{Way: w.String(), Family: w.Family.String(), OK: w.Answer == fact.Addresses, Answer: w.Answer.String(),
			Addresses: []string{}, MS: w.Took.Seconds() * 1000, Error: fact.Printable(w.Error)}
		if w.Family != fact.BothFamilies {
			way.Way += " " + way.Family
		}
		if !way.OK {
			way.Error = cmp.Or(way.Error, way.Answer)
		}
		for _, addr := range w.Addresses {
			way.Addresses = append(way.Addresses, addr.String())
		}
		out.Ways[i] = way
	}
	return out
}

// mostExamples is how many programs a resolver names.
const mostExamples = 5

// resolversOf counts programs by who resolves their names, the largest first; last
// those in which nobody does, which are most, and say nothing.
// Those that fail come first in programs.
func resolversOf(programs []verdict.Program) []state.Resolver {
	var out []state.Resolver
	for i := range programs {
		p := &programs[i]
		at := slices.IndexFunc(out, func(r state.Resolver) bool { return r.Resolver == string(p.Resolver) })
		if at < 0 {
			at = len(out)
			out = append(out, state.Resolver{Resolver: string(p.Resolver), Examples: []string{}})
		}
		r := &out[at]
		r.Count++
		if fails, known := p.Fails.Get(); known {
			if r.Fails == nil {
				r.Fails = new(int)
			}
			*r.Fails += truth(fails)
		}
		if len(r.Examples) < mostExamples {
			r.Examples = append(r.Examples, p.Path)
		}
	}
	nobody := func(r state.Resolver) int { return truth(r.Resolver == string(verdict.ByNobody)) }
	slices.SortStableFunc(out, func(a, b state.Resolver) int { return cmp.Or(nobody(a)-nobody(b), b.Count-a.Count) })
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
