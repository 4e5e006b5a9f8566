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

// serversAsked is how many nameservers Go and libc read; resolv.conf(5) MAXNS.
const serversAsked = 3

var silentNameserver = Rule{
	Code:    "N001",
	Promise: Names,
	Title:   "a nameserver does not answer",
	Worst:   Fail,
	Sees:    []string{"names"},
	Meaning: `One question over UDP to each nameserver of resolv.conf, none with --no-probe. Any answer is a sign of life, REFUSED too. A server that does not answer within a second is asked again, over UDP with and without EDNS and over TCP: one that answers any over UDP, or over TCP where resolv.conf says options use-vc, lives.

One silent server among several is a warning. Neither Go nor libc remembers it: each lookup asks the servers in the order of the file and waits the whole timeout (5 s unless set) for the silent one before it asks the next. When it is the last, nothing is slower, but there is no spare. When no server answers it is a failure: programs that ask DNS themselves, such as Go programs built without cgo, cannot resolve any name but those in /etc/hosts, even when programs that ask the operating system still can. Where resolv.conf names no server at all and only the default, 127.0.0.1, is silent, that is a warning: some machines do without DNS on purpose.`,
	Wrong: `Three packets lost in a row make a living server look silent. A server that answers only over TCP is silent for everyone who is not told to use it: N004.`,
	Fix: []string{
		"take silent servers out of resolv.conf, or put them last",
		"resolv.conf: options timeout:1 attempts:2 shortens every wait to 1 s; options rotate spreads it",
		"run systemd-resolved or another local cache that remembers which server is silent",
	},
	judge: judgeNameservers,
}

// server is a nameserver with what is known of it.
type server struct {
	*fact.Nameserver
	silent bool
	known  bool
	reason string        // why it does not answer
	wait   time.Duration // what a program waits for it in vain
}

func judgeNameservers(v *view) []Finding {
	if v.Names == nil || len(v.Names.Nameservers) == 0 {
		return nil
	}
	_, configured := v.Names.Resolv.Get()
	resolv := capped(v.Names)
	var servers []server
	silent := 0
	for i := range v.Names.Nameservers[:min(len(v.Names.Nameservers), serversAsked)] {
		s := v.asked(&v.Names.Nameservers[i], resolv.Timeout)
		servers = append(servers, s)
		if s.silent {
			silent++
		}
	}
	switch {
	case silent == 0:
		return nil
	case silent == len(servers):
		f := allSilent(servers, resolv)
		if configured && len(resolv.Servers) == 0 {
			f.Severity = Warn
			f.Title = fmt.Sprintf("no nameserver is configured, and the default %s does not answer (%s)", servers[0].Addr, servers[0].reason)
		}
		return []Finding{f}
	}
	var findings []Finding
	for i := range servers {
		if servers[i].silent {
			findings = append(findings, oneSilent(servers, i, resolv))
		}
	}
	return findings
}

// capped is resolv.conf with what resolvers make of its numbers: Go and libc cap
// the timeout at 30 s and the attempts at 5, resolv.conf(5).
func capped(names *fact.Names) fact.Resolv {
	resolv := names.Resolv.Value
	resolv.Timeout = min(cmp.Or(max(resolv.Timeout, 0), 5*time.Second), 30*time.Second)
	resolv.Attempts = min(cmp.Or(max(resolv.Attempts, 0), 2), 5)
	return resolv
}

// asked says what is known of one nameserver. A server that answered a moment
// ago is not silent because of one lost packet.
func (v *view) asked(n *fact.Nameserver, timeout time.Duration) server {
	s := server{Nameserver: n}
	answer, probed := n.Answer.Get()
	switch {
	case probed && (answer.OK || n.Plain.Value.OK || v.overTCP() && n.TCP.Value.OK):
		s.known = true
	case n.NoRoute != "":
		s.known, s.silent, s.reason = true, true, "no route: "+n.NoRoute
	case probed:
		s.known, s.silent = true, !v.answeredEarlier(n.Addr)
		s.reason, s.wait = cmp.Or(answer.Error, "no answer"), timeout
		if strings.Contains(s.reason, "refused") || strings.Contains(s.reason, "unreachable") {
			s.wait = 0 // the error comes back at once, and the next server is asked
		}
	}
	return s
}

func (v *view) answeredEarlier(addr netip.Addr) bool {
	if v.Earlier == nil || v.Earlier.Names == nil {
		return false
	}
	return slices.ContainsFunc(v.Earlier.Names.Nameservers, func(n fact.Nameserver) bool {
		return n.Addr == addr && n.Answer.OK && n.Answer.Value.OK
	})
}

func serverSubject(s *server) Values {
	subject := Values{{"nameserver", s.Addr.String()}}
	if s.Interface != "" {
		subject = subject.add("interface", s.Interface)
	}
	return subject
}

func oneSilent(servers []server, at int, resolv fact.Resolv) Finding {
	s := &servers[at]
	f := Finding{
		Severity: Warn,
		Subject:  serverSubject(s).add("position", at+1).add("nameservers", len(servers)),
		Evidence: Values{{"error", s.reason}, {"timeout_seconds", seconds(resolv.Timeout)}, {"attempts", resolv.Attempts}, {"rotate", resolv.Rotate}},
		weight:   len(servers) - at,
	}
	living := slices.ContainsFunc(servers[:at], func(s server) bool { return s.known && !s.silent })
	name := fmt.Sprintf("nameserver %s, the %s of %d, does not answer (%s)", s.Addr, ordinal(at), len(servers), s.reason)
	switch {
	case s.wait == 0:
		f.Title = name + ": nothing waits for it, but it is no spare either"
		f.Why = "The error comes back at once and the next server is asked, so lookups are not slower. When the others fail, this one does not help."
	case living && !resolv.Rotate:
		f.Title = name + ": there is no spare when those before it fail"
		f.Why = fmt.Sprintf("Lookups ask the servers before it first and get an answer there. When those fail, each lookup waits %s for this one.", span(resolv.Timeout))
	default:
		f.Title = fmt.Sprintf("%s: lookups by Go and libc wait %s for it", name, span(s.wait))
		f.Why = fmt.Sprintf("Neither Go nor libc remembers that a server is silent: lookup after lookup waits %s for it before the next one is asked.", span(s.wait))
		f.Bound = fact.Seen(s.wait)
	}
	f.Evidence = f.Evidence.add("wait_per_lookup_seconds", known(f.Bound))
	return f
}

func ordinal(at int) string { return [...]string{"first", "second", "third"}[min(at, 2)] }

func allSilent(servers []server, resolv fact.Resolv) Finding {
	var names, reasons []string
	var once time.Duration
	for i := range servers {
		names = append(names, servers[i].Addr.String())
		reasons = append(reasons, servers[i].reason)
		once += servers[i].wait
	}
	wait := once * time.Duration(resolv.Attempts)
	who := "the only nameserver, " + names[0] + ", does not answer"
	if len(names) > 1 {
		who = fmt.Sprintf("none of the %d nameservers answers", len(names))
	}
	return Finding{
		Severity: Fail,
		Title:    fmt.Sprintf("%s (%s): lookups fail %s", who, reasons[0], after(wait)),
		Subject:  Values{{"nameservers", names}},
		Evidence: Values{{"errors", reasons}, {"timeout_seconds", seconds(resolv.Timeout)}, {"attempts", resolv.Attempts}},
		Why:      "Programs that ask DNS themselves, such as Go programs built without cgo, cannot resolve any name that is not in /etc/hosts. Programs that ask the operating system can where nsswitch.conf has another source that works.",
		Bound:    fact.Seen(wait),
		weight:   serversAsked + 1,
	}
}

func after(wait time.Duration) string {
	if wait == 0 {
		return "at once"
	}
	return "after " + span(wait)
}

var hiddenSource = Rule{
	Code:    "N002",
	Promise: Names,
	Title:   "Go programs without cgo do not see all sources of names",
	Worst:   Warn,
	Sees:    []string{"names", "processes"},
	Meaning: `The hosts line of nsswitch.conf names where the operating system looks names up. Go's own resolver knows files and dns and silently ignores the rest, so a name that getent finds may not exist for a Go program built without cgo.

Information; a warning when such programs run on this machine, outside of containers (which have their own nsswitch.conf). Harmless and left out: myhostname, which only knows this machine's own names, and resolve where resolv.conf points at systemd-resolved itself (127.0.0.53), because dns then asks the same. mdns sources only know names in .local and stay information.`,
	Wrong: `A source that is listed and knows no names makes no difference. Programs that ran only for a moment were not seen.`,
	Fix: []string{
		"compare: getent hosts NAME asks the operating system",
		"make DNS know what the other source knows, such as resolv.conf pointing at 127.0.0.53 for systemd-resolved",
		"build the Go programs concerned with CGO_ENABLED=1",
	},
	judge: judgeHiddenSources,
}

func judgeHiddenSources(v *view) []Finding {
	if v.Names == nil {
		return nil
	}
	sources, ok := v.Names.Switch.Get()
	if !ok {
		return nil
	}
	var line, hidden []string
	serious := false
	for _, s := range sources {
		line = append(line, s.Name)
		switch {
		case s.Name == "files", s.Name == "dns", s.Name == "myhostname", s.Name == "resolve" && v.asksResolved():
		default:
			hidden = append(hidden, s.Name)
			serious = serious || !strings.HasPrefix(s.Name, "mdns")
		}
	}
	if len(hidden) == 0 {
		return nil
	}
	programs, running := v.withoutCGO()
	f := Finding{
		Severity: Info,
		Title:    fmt.Sprintf("Go programs without cgo do not see names from %s", strings.Join(hidden, ", ")),
		Subject:  Values{{"sources", hidden}},
		Evidence: Values{{"nsswitch_hosts", strings.Join(line, " ")}, {"running_without_cgo", running}, {"programs", programs}},
		Why:      "Go's own resolver knows files and dns only. A name that only another source knows resolves for programs that ask the operating system and not for these.",
		weight:   running,
	}
	if running > 0 {
		f.Title += fmt.Sprintf("; %s here: %s", choose(running, "one runs", Number(running)+" run"), strings.Join(programs, ", "))
		if running > len(programs) {
			f.Title += " …"
		}
		if serious {
			f.Severity = Warn
		}
	}
	return []Finding{f}
}

// asksResolved reports that dns goes to the stub of systemd-resolved, which
// looks where its nsswitch source looks.
func (v *view) asksResolved() bool {
	resolv, ok := v.Names.Resolv.Get()
	return ok && len(resolv.Servers) > 0 &&
		(resolv.Servers[0] == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || resolv.Servers[0] == netip.AddrFrom4([4]byte{127, 0, 0, 54}))
}

// withoutCGO names some running Go programs that were built without cgo, and
// counts them. Lifeline is one and does not count itself.
func (v *view) withoutCGO() (names []string, running int) {
	names = []string{}
	for i := range v.Processes {
		p := &v.Processes[i]
		if p.Program == nil || p.Program.Go == "" || p.Container != "" ||
			strings.HasPrefix(p.Program.Module, "github.com/lifeline-go/lifeline") {
			continue
		}
		if cgo, ok := p.Program.CGO.Get(); !ok || cgo {
			continue
		}
		if running++; running <= listed {
			names = append(names, v.called(p.PID))
		}
	}
	return names, running
}
