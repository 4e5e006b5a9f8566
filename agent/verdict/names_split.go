package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

var neverAAAA = Rule{
	Code:    "N007",
	Promise: Names,
	Title:   "a nameserver never answers questions for IPv6 addresses",
	Worst:   Fail,
	Sees:    []string{"names"},
	Meaning: `Of lifeline names. A nameserver answered questions for A records and none of two or more for AAAA records of the same name, sent at the same moment. Both Go and glibc ask for both and wait for both, so that each lookup waits the timeouts for AAAA (5 s each unless set; 10 s in Go and 15 s in glibc with one nameserver) and only then returns the address that was there after a millisecond.`,
	Wrong:   `Two or more packets lost, and none of those for A, look the same.`,
	Fix: []string{
		"repair or replace the nameserver, or the firewall before it, that drops questions it does not like; NODATA is the right answer",
		"resolv.conf: options timeout:1 attempts:1 shortens every wait to 1 s; put another nameserver first",
		"of your own programs: import github.com/lifeline-go/lifeline/names and call names.Install: A is not held back by a late AAAA",
	},
	judge: judgeAAAA,
}

// silentAAAA returns the servers that answered for A and not for AAAA over UDP,
// each with how many questions for AAAA got nothing.
func silentAAAA(lookups []fact.Lookup) map[netip.Addr]int {
	heard, silent := make(map[netip.Addr]int), make(map[netip.Addr]int)
	answered := make(map[netip.Addr]bool)
	for i := range lookups {
		for _, w := range lookups[i].Ways {
			if w.Kind != fact.WayServer || w.Transport != fact.UDPWithEDNS && w.Transport != fact.PlainUDP {
				continue
			}
			switch {
			case w.Family == fact.OnlyIPv4 && w.Answer.Heard():
				heard[w.Server]++
			case w.Family == fact.OnlyIPv6 && w.Answer.Heard():
				answered[w.Server] = true
			case w.Family == fact.OnlyIPv6 && w.Answer == fact.Silent:
				silent[w.Server]++
			}
		}
	}
	for server, n := range silent {
		if answered[server] || n < 2 || heard[server] < 2 {
			delete(silent, server)
		}
	}
	return silent
}

func judgeAAAA(v *view) (findings []Finding) {
	if v.Names == nil {
		return nil
	}
	silent := silentAAAA(v.Lookups)
	resolv := capped(v.Names)
	servers := v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)]
	for i := range servers {
		s := &servers[i]
		n := silent[s.Addr]
		if n == 0 {
			continue
		}
		wait := resolv.Timeout
		if len(servers) == 1 {
			wait *= time.Duration(resolv.Attempts)
		}
		f := Finding{
			Severity: Fail,
			Title:    fmt.Sprintf("nameserver %s never answers AAAA: each lookup waits %s or longer for it", s.Addr, span(wait)),
			Subject:  serverSubject(&server{Nameserver: s}),
			Evidence: Values{{"aaaa_unanswered", n}, {"timeout_seconds", seconds(resolv.Timeout)}, {"attempts", resolv.Attempts}},
			Why:      fmt.Sprintf("It answers for A at once. Go and glibc ask for both and wait for both: Go %s, glibc as long or longer, and then they return what they had all the time.", span(wait)),
			Bound:    fact.Seen(wait),
			weight:   len(servers) - i,
		}
		if slices.ContainsFunc(servers[:i], func(b fact.Nameserver) bool {
			works, _ := v.usable(&b, false)
			return works.OK && works.Value && silent[b.Addr] == 0
		}) {
			f.Severity = Warn
			f.Title = fmt.Sprintf("nameserver %s never answers AAAA: lookups wait for it where those before it fail", s.Addr)
		}
		findings = append(findings, f)
	}
	return findings
}

var splitDNS = Rule{
	Code:    "N008",
	Promise: Names,
	Title:   "who is asked decides whether a name exists",
	Worst:   Fail,
	Sees:    []string{"names"},
	Meaning: `Of lifeline names: split DNS. One nameserver of resolv.conf has addresses for the name and another says that it does not exist, or the operating system says so and a nameserver does not. No resolver goes on to the next server after an answer, and "no such name" is one: with the server that does not know the name in front, Go and glibc fail; with it behind, they fail when the one before it is slow or options rotate is set.

Also, as information, that one answers with private addresses only and another with public ones only: a name that is one thing inside and another outside. Different addresses alone say nothing: many names have different ones each time.`,
	Wrong: `A name that was made or removed a moment ago is known to some and not yet to others.`,
	Fix: []string{
		"all nameservers of resolv.conf must know the same names: take out the one that does not",
		"a local resolver sends names of one domain to one server: systemd-resolved (resolvectl domain), dnsmasq (server=/corp.example/10.0.0.53)",
		"lifeline run -- PROGRAM … lets one program ask the operating system",
	},
	judge: judgeSplit,
}

func judgeSplit(v *view) (findings []Finding) {
	if v.Names == nil {
		return nil
	}
	for i := range v.Lookups {
		if f, found := v.split(&v.Lookups[i]); found {
			findings = append(findings, f.forPrograms(v))
		}
	}
	return findings
}

// voice is what one nameserver, or the operating system, says of a name.
type voice struct {
	who   string
	at    int // place in resolv.conf; -1 = the operating system
	says  fact.WayAnswer
	addrs []netip.Addr
}

func (v *view) split(l *fact.Lookup) (Finding, bool) {
	var knows, denies []voice
	hear := func(w voice) {
		switch w.says {
		case fact.Addresses:
			knows = append(knows, w)
		case fact.NoName:
			denies = append(denies, w)
		}
	}
	for i, s := range v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)] {
		says, addrs := said(l, s.Addr)
		hear(voice{"nameserver " + s.Addr.String(), i, says, addrs})
	}
	servers := len(knows)
	if system := systemFound(l); system != nil {
		hear(voice{"the operating system", -1, fact.Addresses, system.Addresses})
	} else if w := way(l, fact.WayLibc, fact.BothFamilies); w != nil {
		hear(voice{"the operating system", -1, w.Answer, nil})
	}
	f := Finding{Severity: Warn, Subject: Values{{"name", l.Name}}}
	switch {
	case servers > 0 && len(denies) > 0:
		known, denied := knows[0], denies[0]
		f.Title = fmt.Sprintf("%s: split DNS: %s knows it (%s), %s says it does not exist", l.Name, known.who, strings.Join(texts(known.addrs), ", "), denied.who)
		f.Why = "No resolver asks on after \"no such name\"."
		switch {
		case denied.at < 0:
			f.Why = "Programs that ask the operating system do not find it; Go programs without cgo do."
		case denied.at < known.at:
			f.Severity = Fail
			f.Why += " The server that does not know it is asked first, so that programs which ask DNS do not find it."
		default:
			f.Why += " It is found while the server that knows it is asked first and answers in time."
		}
	case insideAndOutside(knows) && len(knows) > 1:
		inside, outside := knows[0], knows[1]
		for _, k := range knows {
			if private(k.addrs) != private(inside.addrs) {
				outside = k
			}
		}
		f.Severity = Info
		f.Title = fmt.Sprintf("%s: split DNS: %s says %s, %s says %s", l.Name, inside.who, strings.Join(texts(inside.addrs), ", "), outside.who, strings.Join(texts(outside.addrs), ", "))
		f.Why = "Inside and outside it is not the same machine: which one a program reaches depends on whom it asks."
	default:
		return Finding{}, false
	}
	f.Evidence = Values{{"known_by", voices(knows)}, {"denied_by", voices(denies)}}
	return f, true
}

// insideAndOutside reports that some have private addresses only, and others public ones
// only.
func insideAndOutside(knows []voice) bool {
	inside, outside := false, false
	for _, k := range knows {
		inside = inside || private(k.addrs)
		outside = outside || !slices.ContainsFunc(k.addrs, inner)
	}
	return inside && outside
}

func inner(a netip.Addr) bool { return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() }

func private(addrs []netip.Addr) bool {
	return len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !inner(a) })
}

func voices(list []voice) []string {
	names := []string{}
	for _, v := range list {
		names = append(names, v.who)
	}
	return names
}

var cutOff = Rule{
	Code:    "N011",
	Promise: Names,
	Title:   "answers are cut off, and TCP is not answered",
	Worst:   Warn,
	Sees:    []string{"names"},
	Meaning: `Of lifeline names. A nameserver's answer did not fit a datagram and said so; the same question over TCP, which resolvers then ask, got no answer. Go and glibc fail for such names, or wait the timeout for TCP in each lookup, while short answers work.`,
	Wrong:   `A single TCP connection that could not be made looks the same.`,
	Fix: []string{
		"let TCP to port 53 of ADDRESS through: DNS needs both (RFC 7766)",
	},
	judge: judgeCutOff,
}

func judgeCutOff(v *view) (findings []Finding) {
	if v.Names == nil {
		return nil
	}
	for i := range v.Lookups {
		l := &v.Lookups[i]
		for _, s := range v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)] {
			cut := slices.ContainsFunc(l.Ways, func(w fact.Way) bool { return w.Server == s.Addr && w.Kind == fact.WayServer && w.Truncated })
			tcp, asked := s.TCP.Get()
			if !cut || !asked || tcp.OK {
				continue
			}
			findings = append(findings, Finding{
				Severity: Warn,
				Title:    fmt.Sprintf("%s: the answer of nameserver %s does not fit a datagram, and TCP to it is not answered (%s)", l.Name, s.Addr, tcp.Error),
				Subject:  serverSubject(&server{Nameserver: &s}).add("name", l.Name),
				Evidence: Values{{"udp", "truncated"}, {"tcp", tcp.Error}},
				Why:      "Resolvers ask over TCP when an answer is cut off.",
				fill:     []string{"ADDRESS", s.Addr.String()},
			})
		}
	}
	return findings
}
