package fact

import (
	"net/netip"
	"time"
)

// Names is how this machine resolves names.
type Names struct {
	Resolv      Known[Resolv]
	Switch      Known[[]Source] // the hosts line of nsswitch.conf; empty when the file or line is missing
	Hosts       Known[int]      // names in /etc/hosts
	Nameservers []Nameserver    // in the order of resolv.conf, or the default of RFC-less libc: 127.0.0.1
	Environment Environment
}

// Environment is what the environment says to resolvers: that of whoever looks,
// which other programs need not share. The zero value is nothing.
type Environment struct {
	NetDNS string // netdns of GODEBUG: go, cgo
	Libc   string // the first variable that makes Go leave lookups to libc: LOCALDOMAIN, RES_OPTIONS, HOSTALIASES
}

// Resolv is resolv.conf, resolv.conf(5).
type Resolv struct {
	Path     string
	Servers  []netip.Addr
	Search   []string
	Options  []string      // as written
	Timeout  time.Duration // per question; 5 s when not set
	Attempts int           // 2 when not set
	Rotate   bool
	Ignored  int // lines that no resolver understands
}

// Source is one word of an nsswitch line with the reaction that follows it.
type Source struct {
	Name   string // files, dns, resolve, mdns4_minimal …
	Action string // as written in brackets: NOTFOUND=return; "" = none
}

// Nameserver is a server that names are asked of.
type Nameserver struct {
	Addr      netip.Addr
	Interface string        // that the route to it takes; "" when there is no route or it was not looked at
	Gateway   netip.Addr    // next hop; invalid when it is on the link
	NoRoute   string        // why there is no route; "" when there is one or it was not looked at
	Answer    Known[Answer] // to one question over UDP; unknown when it was not asked

	// Of a server that gives no good answer to that, the same otherwise.
	Plain Known[Answer] // without EDNS, as glibc asks
	TCP   Known[Answer]
}

// Answer is what came of one question.
type Answer struct {
	OK    bool
	After time.Duration
	Error string // "" when OK: timed out, connection refused …
	RCode string // of the answer, such as NOERROR or REFUSED: any of them is a sign of life
}
