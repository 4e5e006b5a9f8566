package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// The language of scenarios about names, beside what language_test.go has:
//
//	lookup api.corp
//	way getaddrinfo 10.1.2.3,10.1.2.4               what one way answered, to the lookup before it
//	way nameserver A udp 10.0.0.53 silent           no-name, no-data, refused=SERVFAIL, failed="why", silent
//	program /usr/bin/kubectl go=go1.23.8 cgo=no net=yes binding=no tags=a,b static
//	program /usr/bin/curl loader=/lib64/ld.so asks=getaddrinfo:libcurl.so.4 own=libcares.so.2 loads part packed
//	environment netdns=cgo libc=RES_OPTIONS

func (w *world) names(kind string, l *words) error {
	if w.now.Names == nil {
		w.now.Names, w.was.Names = &fact.Names{}, &fact.Names{}
	}
	switch kind {
	case "resolv":
		return w.resolv(l)
	case "nameserver":
		return w.nameserver(l)
	case "lookup":
		return w.lookup(l)
	case "way":
		return w.way(l)
	case "program":
		return w.program(l)
	case "environment":
		w.now.Names.Environment = fact.Environment{NetDNS: l.text("netdns"), Libc: l.text("libc")}
		return nil
	}
	var sources []fact.Source
	for word := l.next(); word != ""; word = l.next() {
		if strings.HasPrefix(word, "[") && len(sources) > 0 {
			sources[len(sources)-1].Action = strings.Trim(word, "[]")
			continue
		}
		sources = append(sources, fact.Source{Name: word})
	}
	w.now.Names.Switch = fact.Seen(sources)
	return nil
}

func (w *world) resolv(l *words) error {
	resolv := fact.Resolv{Path: "/etc/resolv.conf", Timeout: 5 * time.Second, Attempts: 2, Rotate: l.flag("rotate")}
	if options, found := l.take("options"); found {
		resolv.Options = strings.Split(options, ",")
	}
	if search, found := l.take("search"); found {
		resolv.Search = strings.Split(search, ",")
	}
	err := firstError([]error{set(l, "timeout", &resolv.Timeout, time.ParseDuration), set(l, "attempts", &resolv.Attempts, integer[int]), set(l, "ignored", &resolv.Ignored, integer[int])})
	for word := l.next(); word != "" && err == nil; word = l.next() {
		var addr netip.Addr
		addr, err = netip.ParseAddr(word)
		resolv.Servers = append(resolv.Servers, addr)
	}
	w.now.Names.Resolv = fact.Seen(resolv)
	return err
}

func (w *world) nameserver(l *words) error {
	addr, err := netip.ParseAddr(l.next())
	if err != nil {
		return err
	}
	n := fact.Nameserver{Addr: addr, Interface: l.text("dev"), NoRoute: l.text("noroute")}
	was := n
	if gateway, found := l.take("gateway"); found {
		n.Gateway = netip.MustParseAddr(gateway)
	}
	if after, found := l.take("answers"); found {
		n.Answer = answered(after)
	}
	if code, found := l.take("code"); found {
		n.Answer.Value.RCode = code
	}
	if reason, found := l.take("silent"); found {
		n.Answer = fact.Seen(fact.Answer{Error: reason})
	}
	if text, found := l.take("plain"); found {
		n.Plain = answered(text)
	}
	if text, found := l.take("tcp"); found {
		n.TCP = answered(text)
	}
	if _, found := l.take("was.answers"); found {
		was.Answer = fact.Seen(fact.Answer{OK: true})
	}
	l.flag("unasked")
	w.now.Names.Nameservers = append(w.now.Names.Nameservers, n)
	w.was.Names.Nameservers = append(w.was.Names.Nameservers, was)
	return nil
}

// answered reads a time, of an answer, or else why there was none.
func answered(text string) fact.Known[fact.Answer] {
	if took, err := time.ParseDuration(text); err == nil {
		return fact.Seen(fact.Answer{OK: true, After: took, RCode: "NOERROR"})
	}
	if strings.ToUpper(text) == text {
		return fact.Seen(fact.Answer{OK: true, RCode: text})
	}
	return fact.Seen(fact.Answer{Error: text})
}

func (w *world) lookup(l *words) error {
	name := l.next()
	w.now.Lookups = append(w.now.Lookups, fact.Lookup{Name: name, Asked: cmp.Or(l.text("asked"), name)})
	return nil
}

var wayKinds = []fact.WayKind{fact.WayHosts, fact.WayLibc, fact.WayGo, fact.WayServer, fact.WayStub, fact.WayVarlink, fact.WayDBus, fact.WayNSCD, fact.WayGetent}

var transports = map[string]fact.Transport{"udp": fact.UDPWithEDNS, "plain": fact.PlainUDP, "tcp": fact.OverTCP, "tls": fact.OverTLS}

func (w *world) way(l *words) error {
	if len(w.now.Lookups) == 0 {
		return fmt.Errorf("a way needs its lookup before it")
	}
	kind := l.next()
	at := slices.IndexFunc(wayKinds, func(k fact.WayKind) bool { return k.String() == kind })
	if at < 0 {
		return fmt.Errorf("no way is called %q", kind)
	}
	way := fact.Way{Kind: wayKinds[at], Took: 3 * time.Second, Truncated: l.flag("truncated")}
	if err := set(l, "took", &way.Took, time.ParseDuration); err != nil {
		return err
	}
	for word := l.next(); word != ""; word = l.next() {
		switch {
		case word == "A":
			way.Family = fact.OnlyIPv4
		case word == "AAAA":
			way.Family = fact.OnlyIPv6
		case transports[word] != 0:
			way.Transport = transports[word]
		case word == "silent":
			way.Answer, way.Error = fact.Silent, timedOut
		case word == "no-name":
			way.Answer, way.RCode = fact.NoName, "NXDOMAIN"
		case word == "no-data":
			way.Answer, way.RCode = fact.NoData, "NOERROR"
		case way.Transport != 0 && !way.Server.IsValid():
			way.Server = netip.MustParseAddr(word)
		default:
			for addr := range strings.SplitSeq(word, ",") {
				way.Addresses = append(way.Addresses, netip.MustParseAddr(addr))
			}
			way.Answer = fact.Addresses
		}
	}
	if code, found := l.take("refused"); found {
		way.Answer, way.RCode, way.Error = fact.Refused, code, code
	}
	if why, found := l.take("failed"); found {
		way.Answer, way.Error = fact.Failed, why
	}
	ways := &w.now.Lookups[len(w.now.Lookups)-1].Ways
	*ways = append(*ways, way)
	return nil
}

func (w *world) program(l *words) error {
	if w.now.Programs == nil {
		w.now.Programs = &fact.Executables{Glibc: true}
	}
	file := l.next()
	b := fact.Binary{Called: path.Base(file), Loader: l.text("loader"), Loads: l.flag("loads"), Part: l.flag("part"), Packed: l.flag("packed"), NetDNS: l.text("netdns"), Unreadable: l.text("unreadable")}
	b.Program = fact.Program{Path: file, Go: l.text("go"), Module: l.text("module"), Static: l.flag("static")}
	yes := func(key string) fact.Known[bool] {
		value, found := l.take(key)
		return fact.Known[bool]{Value: value == "yes", OK: found && value != "unknown"}
	}
	b.CGO, b.Resolver, b.Binding = yes("cgo"), yes("net"), yes("binding")
	if tags, found := l.take("tags"); found {
		b.Tags = strings.Split(tags, ",")
	}
	switch l.text("libc") {
	case "musl":
		b.Libc = fact.Musl
	case "glibc":
		b.Libc = fact.Glibc
	}
	for key, into := range map[string]*[]fact.Asking{"asks": &b.Asks, "own": &b.Own} {
		if text, found := l.take(key); found {
			what, in, _ := strings.Cut(text, ":")
			*into = []fact.Asking{{What: what, In: in}}
		}
	}
	w.now.Programs.Files++
	w.now.Programs.Binaries = append(w.now.Programs.Binaries, b)
	return nil
}
