package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

var lostOnGo = Rule{
	Code:    "N006",
	Promise: Names,
	Title:   "the operating system resolves a name that Go's own resolver does not",
	Worst:   Fail,
	Sees:    []string{"names", "programs"},
	Meaning: `Of lifeline names. The operating system answered: getaddrinfo, or systemd-resolved or nscd which stand behind it. Go's own resolver with this machine's configuration got nothing: its questions to the nameservers of resolv.conf are dropped or refused, or no nameserver knows the name and a source of nsswitch.conf that Go does not know does. So it is on a VPN whose resolver only the operating system knows. Go programs without cgo fail where all else works, and of those on this machine some are named.

Where Go only waits because one of several nameservers is silent, N001 and N007 say it instead.`,
	Wrong: `The operating system may have answered from its cache what no nameserver knows any more.`,
	Fix: []string{
		"lifeline run -- PROGRAM … lets the program ask the operating system; it is not changed and needs no root",
		"where the nameserver answers over TCP, resolv.conf: options use-vc",
		"of your own programs: import github.com/lifeline-go/lifeline/names and call names.Install, or build with CGO_ENABLED=1",
	},
	judge: judgeLostOnGo,
}

func judgeLostOnGo(v *view) (findings []Finding) {
	if v.Names == nil {
		return nil
	}
	for i := range v.Lookups {
		l := &v.Lookups[i]
		system, golang := systemFound(l), way(l, fact.WayGo, fact.BothFamilies)
		if system == nil || golang == nil || golang.Answer == fact.NotAsked || golang.Answer == fact.Addresses {
			continue
		}
		fails, _ := v.serversFail(true)
		if golang.Answer == fact.Silent && !(fails.OK && fails.Value) {
			continue // it waits, and goes on to a server that answers
		}
		cause := v.whyGo(golang)
		names := v.goPrograms()
		who := "Go programs without cgo"
		if len(names) > 0 {
			who = "static Go programs (" + some(names) + ")"
		}
		f := Finding{
			Severity: Fail,
			Title:    fmt.Sprintf("%s: the operating system answers, %s: %s will fail", l.Name, cause, who),
			Subject:  Values{{"name", l.Name}},
			Evidence: Values{{"system", system.Kind.String()}, {"addresses", texts(system.Addresses)}, {"system_seconds", seconds(system.Took)},
				{"go", cmp.Or(golang.Error, golang.Answer.String())}, {"go_programs", len(names)}},
			Why: "Go's own resolver reads resolv.conf, asks the servers in it and nobody else. What asks the operating system works, so that the network looks fine.",
		}
		if golang.Answer == fact.Silent {
			f.Bound = v.waitOfGo()
		}
		findings = append(findings, f.forPrograms(v))
	}
	return findings
}

// systemFound is a way in which the operating system finds a name: getaddrinfo
// before what stands behind it, and for both families before one, which may
// answer where the other does not.
func systemFound(l *fact.Lookup) *fact.Way {
	for _, kind := range []fact.WayKind{fact.WayLibc, fact.WayGetent, fact.WayVarlink, fact.WayDBus, fact.WayNSCD} {
		for _, family := range []fact.AddressFamily{fact.BothFamilies, fact.OnlyIPv4, fact.OnlyIPv6} {
			if w := way(l, kind, family); w != nil && w.Answer == fact.Addresses {
				return w
			}
		}
	}
	return nil
}

// whyGo says what keeps Go's resolver from an answer.
func (v *view) whyGo(golang *fact.Way) string {
	if golang.Answer == fact.NoName || golang.Answer == fact.NoData {
		if hidden := v.hiddenSources(); len(hidden) > 0 {
			return fmt.Sprintf("no nameserver knows the name, only %s of nsswitch.conf does", strings.Join(hidden, " or "))
		}
		return "no nameserver knows the name"
	}
	for i := range v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)] {
		s := &v.Names.Nameservers[i]
		a, asked := s.Answer.Get()
		switch {
		case s.NoRoute != "":
			return fmt.Sprintf("there is no route to nameserver %s (%s)", s.Addr, s.NoRoute)
		case !asked || a.OK && !onlyRefusesEDNS(s):
		case a.OK, s.Plain.Value.OK:
			return fmt.Sprintf("nameserver %s takes no questions with EDNS", s.Addr)
		case a.Error == timedOut:
			return fmt.Sprintf("UDP/53 to %s is dropped%s", s.Addr, onInterface(s))
		default:
			return fmt.Sprintf("nameserver %s is not to be had (%s)", s.Addr, a.Error)
		}
	}
	return "DNS does not (" + cmp.Or(golang.Error, golang.Answer.String()) + ")"
}

func onInterface(s *fact.Nameserver) string {
	switch {
	case s.Interface == "":
		return ""
	case s.Gateway.IsValid():
		return " on " + s.Interface + " or behind it"
	}
	return " on " + s.Interface
}

// hiddenSources are sources of nsswitch.conf that Go does not know.
func (v *view) hiddenSources() (hidden []string) {
	sources, _ := v.Names.Switch.Get()
	for _, s := range sources {
		if s.Name != "files" && s.Name != "dns" && s.Name != "myhostname" {
			hidden = append(hidden, s.Name)
		}
	}
	return hidden
}

// waitOfGo is how long Go's resolver asks silent servers before it gives up.
func (v *view) waitOfGo() fact.Known[time.Duration] {
	resolv := capped(v.Names)
	silent := 0
	for i := range v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)] {
		if a, asked := v.Names.Nameservers[i].Answer.Get(); asked && a.Error == timedOut {
			silent++
		}
	}
	return fact.Known[time.Duration]{Value: time.Duration(silent*resolv.Attempts) * resolv.Timeout, OK: silent > 0}
}

func texts(addrs []netip.Addr) []string {
	const most = 4
	list := []string{}
	for _, a := range addrs[:min(len(addrs), most)] {
		list = append(list, a.String())
	}
	return list
}

var stuckSystem = Rule{
	Code:    "N009",
	Promise: Names,
	Title:   "the operating system does not answer, and every nameserver does",
	Worst:   Fail,
	Sees:    []string{"names"},
	Meaning: `Of lifeline names. getaddrinfo had not answered when the time was up (3 s), neither for both families nor for one alone, while every nameserver of resolv.conf answered the same question. So something other than DNS holds it up: a source of nsswitch.conf that waits for a server of its own (LDAP, NIS, mDNS, sssd), or systemd-resolved or nscd that hang. Every program that asks the operating system waits as long; there is no bound on it.`,
	Wrong:   `A nameserver that is slow rather than silent may answer one question in time and not the next.`,
	Fix: []string{
		"getent -s dns hosts NAME, and the same with each other source of nsswitch.conf, tells which one hangs",
		"nsswitch.conf: take that source out of the hosts line, or put it behind dns",
		"restart systemd-resolved, nscd or sssd where one of them is in use",
	},
	judge: judgeStuckSystem,
}

func judgeStuckSystem(v *view) (findings []Finding) {
	if v.Names == nil || len(v.Names.Nameservers) == 0 {
		return nil
	}
	for i := range v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)] {
		if works, _ := v.usable(&v.Names.Nameservers[i], false); !works.OK || !works.Value {
			return nil
		}
	}
	for i := range v.Lookups {
		l := &v.Lookups[i]
		both, alone := way(l, fact.WayLibc, fact.BothFamilies), way(l, fact.WayLibc, fact.OnlyIPv4)
		if both == nil || alone == nil || both.Answer != fact.Silent || alone.Answer != fact.Silent || len(silentAAAA(v.Lookups)) > 0 {
			continue
		}
		var line []string
		for _, s := range v.Names.Switch.Value {
			line = append(line, s.Name)
		}
		findings = append(findings, Finding{
			Severity: Fail,
			Title:    fmt.Sprintf("%s: the operating system does not answer within %s, and every nameserver does", l.Name, span(both.Took)),
			Subject:  Values{{"name", l.Name}},
			Evidence: Values{{"waited_seconds", seconds(both.Took)}, {"nsswitch_hosts", strings.Join(line, " ")}, {"nameservers", len(v.Names.Nameservers)}},
			Why:      "DNS is not what it waits for. A source of nsswitch.conf hangs, or the daemon behind one.",
			fill:     []string{"NAME", l.Name},
		})
	}
	return findings
}

var unresolved = Rule{
	Code:    "N010",
	Promise: Names,
	Title:   "a name that no way resolves",
	Worst:   Fail,
	Sees:    []string{"names"},
	Meaning: `Of lifeline names. No way there is has an address for the name: it does not exist, it has no address, or nobody who would know answers. Who said what is in the table.`,
	Wrong:   `A name may exist in another network, behind a VPN that is not up.`,
	Fix: []string{
		"look whether the name is written right; a short one is completed by search of resolv.conf",
		"where a VPN or another network knows it, bring that up and ask again",
	},
	judge: judgeUnresolved,
}

func judgeUnresolved(v *view) (findings []Finding) {
	for i := range v.Lookups {
		l := &v.Lookups[i]
		if anyAddresses(l) || len(l.Ways) == 0 {
			continue
		}
		count := make(map[fact.WayAnswer]int)
		var first *fact.Way // that refused
		for j := range l.Ways {
			if w := &l.Ways[j]; w.Kind != fact.WayHosts && w.Transport != fact.OverTLS {
				count[w.Answer]++
				if w.Answer == fact.Refused && (first == nil || first.RCode == "") {
					first = w
				}
			}
		}
		title := l.Name + ": nobody who would know answers"
		why := "Neither the operating system nor a nameserver gives an answer."
		switch {
		case count[fact.NoData] > 0:
			title, why = l.Name+": the name exists and has no address", "It may have other records, such as MX or SRV."
		case count[fact.NoName] > 0:
			title, why = l.Name+": no such name", "Whoever answers says that it does not exist."
		case first != nil:
			title = fmt.Sprintf("%s: no answer that is of use (%s)", l.Name, cmp.Or(first.RCode, first.Error))
		}
		findings = append(findings, Finding{
			Severity: Fail, Title: title, Why: why,
			Subject:  Values{{"name", l.Name}},
			Evidence: Values{{"no_such_name", count[fact.NoName]}, {"no_address", count[fact.NoData]}, {"refused", count[fact.Refused]}, {"failed", count[fact.Failed]}, {"silent", count[fact.Silent]}},
		})
	}
	return findings
}

// said is what the ways of one server say of a name.
func said(l *fact.Lookup, server netip.Addr) (answer fact.WayAnswer, addrs []netip.Addr) {
	for _, w := range l.Ways {
		if w.Kind != fact.WayServer || w.Server != server || !w.Answer.Heard() || w.Answer == fact.Refused {
			continue
		}
		switch {
		case w.Answer == fact.Addresses:
			answer = fact.Addresses
			for _, a := range w.Addresses {
				if !slices.Contains(addrs, a) {
					addrs = append(addrs, a)
				}
			}
		case answer == fact.NotAsked || answer == fact.NoName && w.Answer == fact.NoData:
			answer = w.Answer
		}
	}
	return answer, addrs
}
