package daemon

import (
	"net/netip"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// Each way has a name of its own, and what did not bring an address says why.
func TestNameOf(t *testing.T) {
	n := nameOf(&fact.Lookup{Name: "db", Ways: []fact.Way{
		{Kind: fact.WayLibc, Answer: fact.Addresses, Addresses: []netip.Addr{netip.MustParseAddr("10.1.2.3")}},
		{Kind: fact.WayLibc, Family: fact.OnlyIPv6, Answer: fact.NoData},
		{Kind: fact.WayServer, Family: fact.OnlyIPv4, Server: netip.MustParseAddr("10.0.0.53"), Transport: fact.OverTCP, Answer: fact.Failed, Error: "refused"},
	}})
	for i, want := range []struct{ way, says string }{{"getaddrinfo", ""}, {"getaddrinfo AAAA", "no address"}, {"nameserver 10.0.0.53 tcp A", "refused"}} {
		if w := n.Ways[i]; w.Way != want.way || w.Error != want.says || w.OK != (want.says == "") || w.Addresses == nil {
			t.Errorf("%+v, want %+v", w, want)
		}
	}
}

// Of each resolver the programs that fail are named first, and what is not known
// is not counted as well.
func TestResolversOf(t *testing.T) {
	of := func(path string, r verdict.Resolver, fails fact.Known[bool]) verdict.Program {
		return verdict.Program{Binary: &fact.Binary{Program: fact.Program{Path: path}}, Resolver: r, Fails: fails}
	}
	got := resolversOf([]verdict.Program{of("/bin/kubectl", verdict.ByGo, fact.Seen(true)), of("/bin/curl", verdict.BySystem, fact.Known[bool]{}),
		of("/bin/true", verdict.ByNobody, fact.Known[bool]{}), of("/bin/false", verdict.ByNobody, fact.Known[bool]{}), of("/bin/yes", verdict.ByNobody, fact.Known[bool]{}), of("/bin/no", verdict.ByNobody, fact.Known[bool]{}),
		of("/bin/git", verdict.BySystem, fact.Known[bool]{}), of("/bin/helm", verdict.ByGo, fact.Seen(false)), of("/bin/x", verdict.ByGo, fact.Known[bool]{})})
	if len(got) != 3 || got[2].Resolver != "none" || got[2].Count != 4 || got[0].Resolver != "go" || got[0].Count != 3 || *got[0].Fails != 1 || got[0].Examples[0] != "/bin/kubectl" || got[1].Fails != nil || got[1].Count != 2 {
		t.Errorf("%+v", got)
	}
}
