package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// working is which resolvers fail on this machine now, as far as was seen, and
// why.
type working struct {
	golang, plain, system fact.Known[bool] // true: it fails
	goWhy, plainWhy, why  string
}

// of says whether a program with this resolver fails.
func (w *working) of(r Resolver, b *fact.Binary) (fact.Known[bool], string) {
	switch r {
	case ByGo:
		return w.golang, w.goWhy
	case ByItself:
		return w.plain, w.plainWhy
	case BySystem:
		if b.Libc == fact.Musl {
			return w.plain, w.plainWhy
		}
		return w.system, w.why
	case ByNobody:
		return fact.Seen(false), ""
	}
	return fact.Known[bool]{}, ""
}

// resolversWorking judges Go's resolver, those that ask DNS as C libraries do,
// and the operating system's: by lookups of names where there were any, else by
// what nameservers answered.
func (v *view) resolversWorking() working {
	var w working
	if v.Names == nil {
		return w
	}
	w.golang, w.goWhy = v.serversFail(true)
	w.plain, w.plainWhy = v.serversFail(false)
	// glibc with nothing but files and dns does what nameservers do.
	sources, ok := v.Names.Switch.Get()
	onlyDNS := ok && !slices.ContainsFunc(sources, func(s fact.Source) bool { return s.Name != "files" && s.Name != "dns" && s.Name != "myhostname" })
	dns := len(sources) == 0 || slices.ContainsFunc(sources, func(s fact.Source) bool { return s.Name == "dns" })
	if fails, known := w.plain.Get(); known && ok && (onlyDNS || !fails && dns) {
		w.system, w.why = w.plain, w.plainWhy
	}
	for i := range v.Lookups {
		w.add(&v.Lookups[i])
	}
	return w
}

// serversFail says whether none of the nameservers that resolvers ask gives an
// answer that Go, or a C library, can use.
func (v *view) serversFail(edns bool) (fact.Known[bool], string) {
	servers := v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)]
	var reasons []string
	for i := range servers {
		s := &servers[i]
		works, reason := v.usable(s, edns)
		switch fine, known := works.Get(); {
		case known && fine:
			return fact.Seen(false), ""
		case !known:
			return fact.Known[bool]{}, ""
		}
		reasons = append(reasons, s.Addr.String()+": "+reason)
	}
	if reasons == nil {
		return fact.Known[bool]{}, ""
	}
	return fact.Seen(true), "no nameserver answers it (" + strings.Join(reasons, "; ") + ")"
}

// usable says whether a nameserver answers as it is asked: with EDNS by Go,
// without by C libraries, over TCP where resolv.conf says so.
func (v *view) usable(s *fact.Nameserver, edns bool) (fact.Known[bool], string) {
	if s.NoRoute != "" {
		return fact.Seen(false), "no route"
	}
	asked := s.Answer
	switch {
	case v.overTCP():
		if asked = s.TCP; !asked.OK {
			return fact.Known[bool]{}, ""
		}
	case !edns && s.Plain.OK:
		asked = s.Plain
	}
	a, ok := asked.Get()
	switch {
	case !ok:
		return fact.Known[bool]{}, ""
	case !a.OK:
		return fact.Seen(false), cmp.Or(a.Error, "no answer")
	case edns && onlyRefusesEDNS(s):
		return fact.Seen(false), a.RCode + " to EDNS"
	}
	return fact.Seen(true), ""
}

// overTCP reports that resolv.conf wants every question over TCP.
func (v *view) overTCP() bool {
	resolv, ok := v.Names.Resolv.Get()
	return ok && slices.ContainsFunc(resolv.Options, func(o string) bool { return o == "use-vc" || o == "usevc" || o == "tcp" })
}

// refusesEDNS reports an answer that says nothing but that the question had an
// OPT record, RFC 6891 section 7.
func refusesEDNS(rcode string) bool { return rcode == "FORMERR" || rcode == "NOTIMP" }

// onlyRefusesEDNS reports a server whose answer is another one without: some say
// NOTIMP to a question that they do not care for, whatever it has with it.
func onlyRefusesEDNS(s *fact.Nameserver) bool {
	return s.Answer.OK && s.Answer.Value.OK && refusesEDNS(s.Answer.Value.RCode) && s.Plain.OK && s.Plain.Value.OK && !refusesEDNS(s.Plain.Value.RCode)
}

// add takes in what came of looking one name up, which is surer than what
// nameservers say to a question of no use.
func (w *working) add(l *fact.Lookup) {
	system, golang := way(l, fact.WayLibc, fact.BothFamilies), way(l, fact.WayGo, fact.BothFamilies)
	found := anyAddresses(l)
	judge := func(a *fact.Way, fails *fact.Known[bool], why *string) {
		switch {
		case a == nil || a.Answer == fact.NotAsked || fails.OK && fails.Value && *why != "" && a.Answer == fact.Addresses:
		case a.Answer == fact.Addresses:
			*fails, *why = fact.Seen(false), ""
		case !a.Answer.Heard():
			*fails, *why = fact.Seen(true), cmp.Or(a.Error, "it does not answer")
		case found:
			*fails, *why = fact.Seen(true), fmt.Sprintf("it does not find %s (%s)", l.Name, a.Answer)
		}
	}
	judge(golang, &w.golang, &w.goWhy)
	judge(system, &w.system, &w.why)
}

// way returns the way of a kind that asks for a family, nil when there is none.
func way(l *fact.Lookup, kind fact.WayKind, family fact.AddressFamily) *fact.Way {
	i := slices.IndexFunc(l.Ways, func(w fact.Way) bool { return w.Kind == kind && w.Family == family })
	if i < 0 {
		return nil
	}
	return &l.Ways[i]
}

func anyAddresses(l *fact.Lookup) bool {
	return slices.ContainsFunc(l.Ways, func(w fact.Way) bool { return w.Answer == fact.Addresses })
}
