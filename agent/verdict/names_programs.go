package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Resolver is who looks the names up that a program asks for.
type Resolver string

// The resolvers.
const (
	ByGo      Resolver = "go"      // Go's own: files and DNS
	BySystem  Resolver = "system"  // the C library of this machine, and all that nsswitch.conf names
	ByEither  Resolver = "either"  // the program decides as it runs
	ByItself  Resolver = "own"     // neither: a DNS client or a C library that it brings along
	ByNobody  Resolver = "none"    // nothing in it looks names up
	ByUnknown Resolver = "unknown" // cannot be told from its file
)

// Program is an executable file with who resolves its names, and whether that
// works on this machine now.
type Program struct {
	*fact.Binary
	Resolver Resolver
	Reason   string           // why this one
	Here     Resolver         // of either, what it comes to here for most names; else the same
	Fails    fact.Known[bool] // it cannot resolve what is not in /etc/hosts
	Why      string           // why it fails; "" where it does not, or it is not known
}

// Programs says of each executable that was found who resolves its names: those
// that fail here first, then by path.
func Programs(m *fact.Machine) []Program {
	if m == nil || m.Programs == nil {
		return nil
	}
	v := newView(m)
	working := v.resolversWorking()
	list := make([]Program, 0, len(m.Programs.Binaries))
	for i := range m.Programs.Binaries {
		p := Program{Binary: &m.Programs.Binaries[i]}
		p.Resolver, p.Reason = resolverOf(p.Binary, m.Programs.Glibc)
		p.Here = p.Resolver
		if p.Resolver == ByEither && p.Go != "" {
			here, why := v.goAsks()
			p.Here = here
			p.Reason += "; here " + asks(here) + why
		}
		p.Fails, p.Why = working.of(p.Here, p.Binary)
		list = append(list, p)
	}
	slices.SortStableFunc(list, func(a, b Program) int {
		return cmp.Or(rank(a.Fails)-rank(b.Fails), cmp.Compare(a.Path, b.Path))
	})
	return list
}

func rank(fails fact.Known[bool]) int {
	if fails.OK && fails.Value {
		return 0
	}
	return 1
}

func asks(r Resolver) string {
	switch r {
	case ByGo:
		return "Go's own"
	case BySystem:
		return "getaddrinfo"
	}
	return "not known"
}

// resolverOf says who resolves the names of a program, and why.
func resolverOf(b *fact.Binary, glibc bool) (Resolver, string) {
	switch {
	case b.Unreadable != "":
		return ByUnknown, b.Unreadable
	case b.Packed:
		return ByUnknown, "packed by UPX: what is in it cannot be read"
	case b.Go != "":
		return resolverOfGo(b)
	case b.Loader == "":
		return resolverOfStatic(b)
	}
	return resolverOfDynamic(b, glibc)
}

func resolverOfGo(b *fact.Binary) (Resolver, string) {
	built := "Go " + strings.TrimPrefix(b.Go, "go")
	if words := strings.Fields(built); len(words) > 2 && strings.HasPrefix(words[1], "1.") {
		built = "Go " + words[1] // what follows are experiments
	}
	cgo, ok := b.CGO.Get()
	if ok {
		built += ", CGO_ENABLED=" + choose(boolInt(cgo), "1", "0")
	}
	for _, tag := range []string{"netgo", "netcgo", "osusergo"} {
		if slices.Contains(b.Tags, tag) {
			built += ", tag " + tag
		}
	}
	built += choose(boolInt(b.Static), ", static", ", dynamic")
	resolver, known := b.Resolver.Get()
	switch bound := b.Binding.Value; {
	case known && !resolver:
		return ByNobody, built + ": it has no code that looks names up"
	case !known && !(ok && !cgo):
		return ByUnknown, built + ": its table of functions could not be found"
	case !bound:
		why := ": getaddrinfo is not linked in"
		if b.NetDNS == "cgo" {
			why += ", so that its netdns=cgo does nothing"
		}
		return ByGo, built + why
	case b.NetDNS == "go":
		return ByGo, built + ": go:debug netdns=go"
	case b.NetDNS == "cgo", slices.Contains(b.Tags, "netcgo"):
		return bySystemOrMusl(b, built+": set to getaddrinfo")
	}
	return ByEither, built + ": resolv.conf, nsswitch.conf and GODEBUG=netdns choose between Go's own and getaddrinfo" + ofMusl(b)
}

func ofMusl(b *fact.Binary) string {
	if b.Static && b.Libc == fact.Musl {
		return " of the musl in it"
	}
	return ""
}

func bySystemOrMusl(b *fact.Binary, why string) (Resolver, string) {
	if b.Static && b.Libc == fact.Musl {
		return ByItself, why + " of the musl in it, which knows hosts and DNS only"
	}
	return BySystem, why
}

func resolverOfStatic(b *fact.Binary) (Resolver, string) {
	switch {
	case len(b.Asks) > 0 && b.Libc == fact.Musl:
		return ByItself, "static, with musl's " + b.Asks[0].What + ", which knows hosts and DNS only"
	case len(b.Asks) > 0:
		return BySystem, "static, with " + b.Asks[0].What + " of glibc, which loads what nsswitch.conf names"
	case len(b.Own) > 0 && b.Own[0].What == "resolv.conf":
		return ByUnknown, "static and without symbols, but it speaks of /etc/resolv.conf"
	case len(b.Own) > 0:
		return ByItself, "static, with " + b.Own[0].What
	}
	return ByNobody, "static, and nothing in it looks names up"
}

func resolverOfDynamic(b *fact.Binary, glibc bool) (Resolver, string) {
	libc := choose(boolInt(b.Libc == fact.Musl), "musl", "dynamic")
	// Functions of libc that ask DNS are for records that getaddrinfo has no way
	// to ask for; a DNS client is for addresses too.
	own := slices.IndexFunc(b.Own, func(a fact.Asking) bool { return a.In == "" && (len(b.Asks) == 0 || strings.Contains(a.What, ".so")) })
	switch {
	case len(b.Asks) > 0 && b.Libc == fact.Musl && glibc:
		return ByItself, "musl: " + through(b.Asks[0]) + ", which knows hosts and DNS only"
	case own >= 0 && len(b.Asks) > 0:
		return ByEither, fmt.Sprintf("%s: %s, and %s, which asks nameservers itself", libc, through(b.Asks[0]), b.Own[own].What)
	case own >= 0:
		return ByItself, libc + ": " + b.Own[own].What + " asks nameservers itself"
	case len(b.Asks) > 0:
		return BySystem, libc + ": " + through(b.Asks[0])
	case b.Part:
		return ByUnknown, libc + ": a library that it needs could not be read"
	case b.Loads:
		return ByUnknown, libc + ": it may load libraries that look names up"
	}
	return ByNobody, libc + ": nothing in it or its libraries looks names up"
}

func through(a fact.Asking) string {
	if a.In == "" {
		return a.What
	}
	return a.What + " by way of " + a.In
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// knownToGo are the options of resolv.conf that Go reads, net/dnsconfig_unix.go.
// For what it does not know it leaves lookups to cgo where it has that.
func knownToGo(option string) bool {
	switch option {
	case "rotate", "single-request", "single-request-reopen", "use-vc", "usevc", "tcp", "trust-ad", "edns0", "no-reload":
		return true
	}
	return strings.HasPrefix(option, "ndots:") || strings.HasPrefix(option, "timeout:") || strings.HasPrefix(option, "attempts:")
}

// goAsks says whom a Go program with cgo asks here that is set to neither, for
// names that are not special, by the rules of net/conf.go.
func (v *view) goAsks() (r Resolver, why string) {
	if v.Names == nil {
		return ByUnknown, ""
	}
	switch env := v.Names.Environment; {
	case env.NetDNS == "go":
		return ByGo, ", as GODEBUG says netdns=go"
	case env.NetDNS == "cgo":
		return BySystem, ", as GODEBUG says netdns=cgo"
	case env.Libc != "":
		return BySystem, ", as " + env.Libc + " is set"
	}
	resolv, ok := v.Names.Resolv.Get()
	if !ok {
		return ByUnknown, ": resolv.conf could not be read"
	}
	for _, o := range resolv.Options {
		if !knownToGo(o) {
			return BySystem, ", as Go does not know the option " + o + " of resolv.conf"
		}
	}
	if resolv.Ignored > 0 {
		return BySystem, ", as resolv.conf has a line that Go does not understand"
	}
	sources, ok := v.Names.Switch.Get()
	if !ok {
		return BySystem, ", as nsswitch.conf cannot be read"
	}
	for _, s := range sources {
		switch {
		case s.Name == "files", s.Name == "dns":
			if !standardReaction(s.Action) {
				return BySystem, fmt.Sprintf(", as nsswitch.conf says %s [%s]", s.Name, s.Action)
			}
		case s.Name == "myhostname", strings.HasPrefix(s.Name, "mdns"): // for this machine's own names, and .local
		default:
			return BySystem, ", as nsswitch.conf names " + s.Name
		}
	}
	return ByGo, ""
}

// standardReaction reports reactions that change nothing, nssSource.standardCriteria
// of net/nss.go.
func standardReaction(action string) bool {
	reactions := strings.Fields(strings.ToLower(action))
	for i, r := range reactions {
		status, what, _ := strings.Cut(r, "=")
		usual := "continue"
		switch status {
		case "success":
			usual = "return"
		case "notfound", "unavail", "tryagain":
		default:
			return false
		}
		if what != usual && !(i == len(reactions)-1 && what == "return") {
			return false
		}
	}
	return true
}

// called is the name of a program for people.
func (p *Program) called() string {
	return cmp.Or(p.Called, p.Path[strings.LastIndexByte(p.Path, '/')+1:])
}
