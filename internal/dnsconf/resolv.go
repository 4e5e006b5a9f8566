// Package dnsconf reads the files that say how names are resolved: resolv.conf,
// nsswitch.conf and hosts. It is given their text and does no I/O. What the files
// say may come from anybody, and is returned as it is written.
//
// Where resolvers differ it takes what at least one of glibc and Go makes of a
// file.
package dnsconf

import (
	"bytes"
	"net/netip"
	"strings"
	"time"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultAttempts = 2
	defaultNDots    = 1
	mostNDots       = 15 // RES_MAXNDOTS

	// serversMax is where a resolv.conf stops being one: both glibc and Go use
	// the first three. Further nameserver lines count as ignored.
	serversMax = 64

	nameMax = 16 // IFNAMSIZ, with the NUL at the end
)

// ServersAsked is how many nameservers glibc and Go ask: resolv.conf(5) MAXNS.
const ServersAsked = 3

// Resolv is resolv.conf, resolv.conf(5).
type Resolv struct {
	Servers  []netip.Addr
	Search   []string      // of the last line with domain or search
	Options  []string      // as written
	NDots    int           // 1 when not set
	Timeout  time.Duration // per question; 5 s when not set
	Attempts int           // 2 when not set
	Rotate   bool
	TCP      bool // use-vc: over TCP only
	Ignored  int  // lines that no resolver understands
}

// ParseResolv reads resolv.conf as resolv.conf(5), glibc's res_vinit_1
// (resolv/res_init.c) and Go's dnsReadConfig (net/dnsconfig_unix.go) do. Where
// they differ it takes the more lenient: leading blanks and a carriage return at
// the end of a line are forgiven, as Go does. Of the address forms that only
// glibc's inet_aton knows, such as 127.1, it knows none.
func ParseResolv(text []byte) Resolv {
	resolv := Resolv{Timeout: defaultTimeout, Attempts: defaultAttempts, NDots: defaultNDots}
	for line := range bytes.Lines(text) {
		words := fields(string(line))
		if len(words) == 0 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}
		switch words[0] {
		case "nameserver":
			if !resolv.addServer(words[1:]) {
				resolv.Ignored++
			}
		case "domain":
			if len(words) > 1 {
				resolv.Search = words[1:2]
			}
		case "search": // the last of domain and search counts
			resolv.Search = words[1:]
		case "options":
			for _, option := range words[1:] {
				resolv.apply(option)
			}
		case "sortlist", "lookup": // glibc knows the one, Go the other
		default:
			resolv.Ignored++
		}
	}
	return resolv
}

func (r *Resolv) addServer(words []string) bool {
	if len(words) == 0 || len(r.Servers) == serversMax {
		return false
	}
	addr, err := netip.ParseAddr(words[0])
	if err != nil || len(addr.Zone()) >= nameMax {
		return false
	}
	r.Servers = append(r.Servers, addr)
	return true
}

// apply keeps every option as it is written, as both resolvers pass over those
// that they do not know. A time or a count below one is one.
func (r *Resolv) apply(option string) {
	r.Options = append(r.Options, option)
	if text, ok := strings.CutPrefix(option, "timeout:"); ok {
		r.Timeout = time.Duration(max(1, leadingNumber(text))) * time.Second
	}
	if text, ok := strings.CutPrefix(option, "attempts:"); ok {
		r.Attempts = max(1, leadingNumber(text))
	}
	if text, ok := strings.CutPrefix(option, "ndots:"); ok {
		r.NDots = min(leadingNumber(text), mostNDots)
	}
	switch option {
	case "rotate":
		r.Rotate = true
	case "use-vc", "usevc", "tcp": // of glibc, of OpenBSD
		r.TCP = true
	}
}

// leadingNumber is what atoi(3) makes of text, up to what Go accepts.
func leadingNumber(text string) int {
	const most = 0xFFFFFF
	n := 0
	for _, digit := range []byte(text) {
		if digit < '0' || digit > '9' {
			break
		}
		n = min(most, n*10+int(digit-'0'))
	}
	return n
}

// Understood reports whether a resolv.conf has no lines at all, or one that says
// something to a resolver.
func (r *Resolv) Understood() bool {
	return r.Ignored == 0 || len(r.Servers)+len(r.Search)+len(r.Options) > 0
}

// ServersOrDefault returns the servers. Without any, glibc asks 127.0.0.1
// (__resolv_conf_load in resolv/res_init.c) and Go asks ::1 after that (defaultNS
// in net/dnsconfig.go).
func (r *Resolv) ServersOrDefault() []netip.Addr {
	if len(r.Servers) > 0 {
		return r.Servers
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
}

const blanks = " \t\r\n"

// fields splits a line at the blanks that both resolvers know; Unicode has
// more.
func fields(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool {
		return r == ' ' || r == '\t' || r == '\r' || r == '\n'
	})
}
