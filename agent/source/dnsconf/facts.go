//go:build linux

package dnsconf

import (
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/dnsconf"
)

// resolvFact is what resolv.conf says, fit for a terminal. A nameserver whose
// zone is not becomes a line that nobody understands.
func resolvFact(resolv dnsconf.Resolv) fact.Resolv {
	shown := fact.Resolv{
		Search:   printable(resolv.Search),
		Options:  printable(resolv.Options),
		Timeout:  resolv.Timeout,
		Attempts: resolv.Attempts,
		Rotate:   resolv.Rotate,
		Ignored:  resolv.Ignored,
	}
	for _, addr := range resolv.Servers {
		if addr.Zone() != fact.Printable(addr.Zone()) {
			shown.Ignored++
			continue
		}
		shown.Servers = append(shown.Servers, addr)
	}
	return shown
}

func nameservers(resolv fact.Resolv) []fact.Nameserver {
	asked := dnsconf.Resolv{Servers: resolv.Servers}
	var servers []fact.Nameserver
	for _, addr := range asked.ServersOrDefault() {
		servers = append(servers, fact.Nameserver{Addr: addr})
	}
	return servers
}

// switchFact is never nil: that would be unknown.
func switchFact(sources []dnsconf.Source) []fact.Source {
	shown := make([]fact.Source, len(sources))
	for i, s := range sources {
		shown[i] = fact.Source{Name: fact.Printable(s.Name), Action: fact.Printable(s.Action)}
	}
	return shown
}

// printable returns words that a terminal may show.
func printable(words []string) []string {
	if words == nil {
		return nil
	}
	shown := make([]string, len(words))
	for i, word := range words {
		shown[i] = fact.Printable(word)
	}
	return shown
}
