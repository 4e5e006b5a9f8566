package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

var refusedEDNS = Rule{
	Code:    "N003",
	Promise: Names,
	Title:   "a nameserver does not take questions with EDNS",
	Worst:   Fail,
	Sees:    []string{"names"},
	Meaning: `Go's resolver, systemd-resolved and others ask with EDNS (RFC 6891); glibc and musl do not unless resolv.conf says options edns0. A server that answers FORMERR or NOTIMP to EDNS, or drops such questions, and answers the same question without, is dead for Go and fine for the rest: Go does not ask again without. Where it drops them, Go waits the whole timeout (5 s unless set) in each lookup.

A failure when no nameserver takes EDNS, since Go programs without cgo then resolve nothing; a warning when another one does. A drop is only told when two questions with EDNS got no answer within a second each, and one without did.`,
	Wrong: `Two packets lost in a row, and a third that is not, look the same: with 5 % of packets lost that is one look in 400.`,
	Fix: []string{
		"GODEBUG=netedns0=0 in the environment of Go programs (Go 1.21.12, Go 1.22.5, and all later ones) makes them ask without EDNS",
		"update or replace the nameserver, or the firewall that takes its packets apart",
		"lifeline run -- PROGRAM lets one program ask the operating system instead",
	},
	judge: judgeEDNS,
}

// noEDNS says why a server is of no use with EDNS, where it is without.
func noEDNS(s *fact.Nameserver) (how string, dropped, found bool) {
	with, asked := s.Answer.Get()
	without, compared := s.Plain.Get()
	switch {
	case !asked || !compared || !without.OK || refusesEDNS(without.RCode):
	case onlyRefusesEDNS(s):
		return "answers " + with.RCode + " to", false, true
	case !with.OK && with.Error == timedOut:
		return "does not answer", true, true
	}
	return "", false, false
}

// timedOut is the error of a question that nothing answered.
const timedOut = "timed out"

func judgeEDNS(v *view) (findings []Finding) {
	if v.Names == nil || v.overTCP() {
		return nil
	}
	servers := v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)]
	fails, _ := v.serversFail(true)
	resolv := capped(v.Names)
	for i := range servers {
		s := &servers[i]
		how, dropped, found := noEDNS(s)
		if !found {
			continue
		}
		f := Finding{
			Severity: Warn,
			Title:    fmt.Sprintf("nameserver %s %s questions with EDNS, and answers those without: Go programs without cgo get nothing from it", s.Addr, how),
			Subject:  serverSubject(&server{Nameserver: s}),
			Evidence: Values{{"with_edns", how}, {"without_edns", s.Plain.Value.RCode}, {"without_edns_seconds", seconds(s.Plain.Value.After)}},
			Why:      "Go's resolver asks with EDNS and never again without. glibc and musl ask without, so everything else works.",
			weight:   len(servers) - i,
		}
		if fails.OK && fails.Value {
			f.Severity = Fail
			f.Title = fmt.Sprintf("nameserver %s %s questions with EDNS, and answers those without: Go programs without cgo resolve nothing here", s.Addr, how)
		}
		if dropped {
			f.Bound = fact.Seen(resolv.Timeout)
		}
		findings = append(findings, f.forPrograms(v))
	}
	return findings
}

var onlyTCP = Rule{
	Code:    "N004",
	Promise: Names,
	Title:   "a nameserver answers over TCP and not over UDP",
	Worst:   Warn,
	Sees:    []string{"names"},
	Meaning: `A nameserver that answered none of three questions over UDP, with and without EDNS, answered one over TCP. Something on the way drops UDP to port 53 and lets TCP through, as some VPNs and firewalls do. Both Go and glibc ask over UDP first and fall back to TCP only when an answer is cut off, so that this server is dead for them until resolv.conf says otherwise. What that means for this machine, N001 says.`,
	Wrong:   `Three packets lost in a row look the same.`,
	Fix: []string{
		"resolv.conf: options use-vc makes glibc, and Go 1.12 and later, ask over TCP only",
		"find out what drops UDP to port 53 of ADDRESS: a VPN, a firewall of this machine (nft list ruleset), a security group",
	},
	judge: judgeOnlyTCP,
}

func judgeOnlyTCP(v *view) (findings []Finding) {
	if v.Names == nil || v.overTCP() {
		return nil
	}
	for i := range v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)] {
		s := &v.Names.Nameservers[i]
		udp, asked := s.Answer.Get()
		plain, compared := s.Plain.Get()
		tcp, over := s.TCP.Get()
		if !asked || !compared || !over || udp.OK || plain.OK || !tcp.OK {
			continue
		}
		findings = append(findings, Finding{
			Severity: Warn,
			Title:    fmt.Sprintf("nameserver %s answers over TCP and not over UDP%s", s.Addr, by(s)),
			Subject:  serverSubject(&server{Nameserver: s}),
			Evidence: Values{{"udp", udp.Error}, {"tcp", tcp.RCode}, {"tcp_seconds", seconds(tcp.After)}},
			Why:      "Go and glibc ask over UDP. Something on the way drops that and lets TCP through.",
			weight:   len(v.Names.Nameservers) - i,
			fill:     []string{"ADDRESS", s.Addr.String()},
		})
	}
	return findings
}

// by is the interface that packets to a server take.
func by(s *fact.Nameserver) string {
	switch {
	case s.Interface == "" || s.Interface == "lo":
		return ""
	case s.Gateway.IsValid():
		return fmt.Sprintf(" (by %s and %s)", s.Interface, s.Gateway)
	}
	return " (by " + s.Interface + ")"
}

var failingPrograms = Rule{
	Code:    "N005",
	Promise: Names,
	Title:   "programs on this machine cannot resolve names",
	Worst:   Fail,
	Sees:    []string{"names", "programs", "processes"},
	Meaning: `No nameserver gives Go's resolver an answer that it can use (N001 and N003 say why), and here are programs that ask nobody else: Go programs without cgo or with the tag netgo, and Go programs with cgo where nothing in resolv.conf or nsswitch.conf makes them ask the C library. They are found by their files, in the directories of PATH, running or not, and those that run now wherever they are; lifeline names --binaries lists the former with the reasons.

A failure when programs that ask the operating system are not known to fail as well, or where nothing else is said of the nameservers. A warning where no nameserver is configured: some machines do without DNS on purpose.`,
	Wrong: `A program that brings its own DNS client, or is only ever given addresses, is named all the same. Programs that do not run and are not on PATH, and those in containers, are not looked at.`,
	Fix: []string{
		"lifeline run -- PROGRAM … lets an unmodified program ask the operating system",
		"lifeline names NAME shows every way to resolve a name, side by side",
		"lifeline names --binaries lists every program with who resolves its names",
	},
	judge: judgeFailingPrograms,
}

func judgeFailingPrograms(v *view) []Finding {
	if v.Names == nil || len(v.Lookups) > 0 {
		return nil
	}
	fails, why := v.serversFail(true)
	names := v.goPrograms()
	running, n := v.withoutCGO()
	if !fails.OK || !fails.Value || len(names)+n == 0 {
		return nil
	}
	who := fmt.Sprintf("%s on PATH %s DNS", count(len(names), "program"), choose(len(names), "asks", "ask"))
	list := some(names)
	switch {
	case len(names) == 0:
		who, list = fmt.Sprintf("%s here %s DNS", count(n, "running program"), choose(n, "asks", "ask")), some(running)
	case n > 0:
		list += "; running: " + some(running)
	}
	f := Finding{
		Severity: Fail,
		Title:    who + " by Go's own resolver and cannot resolve names: " + list,
		Subject:  Values{{"programs", names[:min(len(names), mostNamed)]}, {"count", len(names)}},
		Evidence: Values{{"nameservers", why}, {"running_without_cgo", n}},
		Why:      "They read resolv.conf, ask the servers in it and nobody else. " + capital(why) + ".",
		weight:   len(names) + n,
	}
	if len(names) > 0 {
		f.fill = []string{"PROGRAM", names[0]}
	}
	if resolv, ok := v.Names.Resolv.Get(); ok && len(resolv.Servers) == 0 {
		f.Severity = Warn
	}
	if system := v.resolversWorking().system; system.OK && system.Value {
		f.Why += " Programs that ask the operating system fail as well: it has nobody else to ask."
	}
	return []Finding{f}
}

// mostNamed is how many programs a finding names.
const mostNamed = 6

// some names a few.
func some(names []string) string {
	if len(names) > mostNamed {
		return strings.Join(names[:mostNamed], ", ") + " …"
	}
	return strings.Join(names, ", ")
}

// first are programs that people ask about; others follow by name.
var first = []string{"kubectl", "helm", "terraform", "vault", "consul", "docker", "gh", "oc", "argocd", "flux", "k9s", "istioctl", "aws-iam-authenticator", "gke-gcloud-auth-plugin"}

// goPrograms are the names of the programs that were found and whose names Go's
// own resolver looks up here. Lifeline does not count itself, and the Go
// distribution is not what anybody asks about.
func (v *view) goPrograms() (names []string) {
	names = []string{}
	if v.Programs == nil {
		return names
	}
	for i := range v.Programs.Binaries {
		p := Program{Binary: &v.Programs.Binaries[i]}
		r, _ := resolverOf(p.Binary, v.Programs.Glibc)
		if r == ByEither && p.Go != "" {
			r, _ = v.goAsks()
		}
		if r != ByGo || strings.HasPrefix(p.Module, "github.com/lifeline-go/lifeline") {
			continue
		}
		names = append(names, p.called())
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return place(a) - place(b)
	})
	return slices.Compact(names)
}

func place(name string) int {
	if i := slices.Index(first, name); i >= 0 {
		return i
	}
	return len(first)
}

// forPrograms puts a program that is there into the advice of a finding.
func (f Finding) forPrograms(v *view) Finding {
	name := "PROGRAM"
	if names := v.goPrograms(); len(names) > 0 {
		name = names[0]
		f.Evidence = f.Evidence.add("programs", names[:min(len(names), mostNamed)])
	}
	f.fill = append(f.fill, "PROGRAM", name)
	return f
}
