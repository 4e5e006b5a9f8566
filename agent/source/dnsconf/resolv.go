//go:build linux

package dnsconf

import (
	"bytes"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultAttempts = 2

	// serversMax is where a resolv.conf stops being one: both glibc and Go use
	// the first three. Further nameserver lines count as ignored.
	serversMax = 64
)

// parseResolv reads resolv.conf as resolv.conf(5), glibc's
// res_vinit_1 (resolv/res_init.c) and Go's dnsReadConfig (net/dnsconfig_unix.go)
// do. Where they differ it takes the more lenient: leading blanks and a
// carriage return at the end of a line are forgiven, as Go does. Of the address
// forms that only glibc's inet_aton knows, such as 127.1, it knows none.
func parseResolv(text []byte) fact.Resolv {
	resolv := fact.Resolv{Timeout: defaultTimeout, Attempts: defaultAttempts}
	for line := range bytes.Lines(text) {
		words := fields(string(line))
		if len(words) == 0 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}
		switch words[0] {
		case "nameserver":
			if !addServer(&resolv, words[1:]) {
				resolv.Ignored++
			}
		case "domain":
			if len(words) > 1 {
				resolv.Search = printable(words[1:2])
			}
		case "search": // the last of domain and search counts
			resolv.Search = printable(words[1:])
		case "options":
			for _, option := range words[1:] {
				applyOption(&resolv, option)
			}
		case "sortlist", "lookup": // glibc knows the one, Go the other
		default:
			resolv.Ignored++
		}
	}
	return resolv
}

func addServer(resolv *fact.Resolv, words []string) bool {
	if len(words) == 0 || len(resolv.Servers) == serversMax {
		return false
	}
	addr, err := netip.ParseAddr(words[0])
	if err != nil || len(addr.Zone()) >= unix.IFNAMSIZ || addr.Zone() != fact.Printable(addr.Zone()) {
		return false
	}
	resolv.Servers = append(resolv.Servers, addr)
	return true
}

// applyOption keeps every option as it is written, as both resolvers pass over
// those that they do not know. A time or a count below one is one.
func applyOption(resolv *fact.Resolv, option string) {
	resolv.Options = append(resolv.Options, fact.Printable(option))
	if text, ok := strings.CutPrefix(option, "timeout:"); ok {
		resolv.Timeout = time.Duration(max(1, leadingNumber(text))) * time.Second
	}
	if text, ok := strings.CutPrefix(option, "attempts:"); ok {
		resolv.Attempts = max(1, leadingNumber(text))
	}
	if option == "rotate" {
		resolv.Rotate = true
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

// nothingUnderstood reports that a resolv.conf has lines, and none that says
// anything to a resolver.
func nothingUnderstood(resolv fact.Resolv) bool {
	return resolv.Ignored > 0 && len(resolv.Servers)+len(resolv.Search)+len(resolv.Options) == 0
}

// printable returns words that a terminal may show.
func printable(words []string) []string {
	shown := make([]string, len(words))
	for i, word := range words {
		shown[i] = fact.Printable(word)
	}
	return shown
}

// fields splits a line at the blanks that both resolvers know; Unicode has
// more.
func fields(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool {
		return r == ' ' || r == '\t' || r == '\r' || r == '\n'
	})
}
