// Package nameways asks for a name in every way there is on a machine, all at
// the same time, and says what came of each: /etc/hosts, what the operating
// system answers (getaddrinfo, or getent where its helper is not built in), Go's
// own resolver with this machine's configuration, each nameserver of resolv.conf
// over UDP, UDP without EDNS, TCP and TLS, and systemd-resolved and nscd where
// there are any.
//
// Rights: none. Names go to the nameservers that resolv.conf names, and to nobody
// else.
//
// Bound: all ways end when the context does. An answer keeps at most mostAddresses
// addresses; what else arrives is for package dnsclient to pass over.
package nameways

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/idna"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/names"
)

const (
	mostServers   = 3 // that Go and libc ask: resolv.conf(5) MAXNS
	mostAddresses = 64

	// getaddrinfo is the name of the way that package names/getaddrinfo brings.
	getaddrinfo = "getaddrinfo"
)

// The sockets of systemd-resolved and nscd, and what says that the former's stub
// runs.
const (
	varlinkSocket = "/run/systemd/resolve/io.systemd.Resolve"
	stubConf      = "/run/systemd/resolve/stub-resolv.conf"
	nscdSocket    = "/var/run/nscd/socket"
)

// ErrName is the error of what cannot be a name.
var ErrName = errors.New("no name that a resolver takes")

// ASCII returns a name as DNS has it: bücher.example is xn--bcher-kva.example. A
// dot at its end stays. Of names that are ASCII already it only asks that they
// have an end and no label is too long, since resolvers take more than hosts may
// be called.
func ASCII(name string) (string, error) {
	ascii := name
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 }) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(name); err != nil {
			return "", fmt.Errorf("%w: %w", ErrName, err)
		}
	}
	bare := strings.TrimSuffix(ascii, ".")
	switch {
	case bare == "", len(bare) > 253:
		return "", fmt.Errorf("%w: it has %d bytes, and may have 1 to 253", ErrName, len(bare))
	case strings.ContainsAny(ascii, " \t\r\n\x00/"):
		return "", fmt.Errorf("%w: it has a blank or a slash in it", ErrName)
	}
	for label := range strings.SplitSeq(bare, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("%w: a part between two dots has %d bytes, and may have 1 to 63", ErrName, len(label))
		}
	}
	return ascii, nil
}

// Ask asks for a name, which is as [ASCII] returns it, and returns when all ways
// have answered or ctx ends. An address is asked of nobody. It asks from the
// network namespace of the process. Conf says which servers there are and how
// short names are completed.
func Ask(ctx context.Context, name string, conf *fact.Names) fact.Lookup {
	l := fact.Lookup{Name: name, Asked: name}
	if addr, err := netip.ParseAddr(name); err == nil {
		l.Ways = []fact.Way{{Kind: fact.WayAddress, Answer: fact.Addresses, Addresses: []netip.Addr{addr}}}
		return l
	}
	asks := asksOf(name, conf)
	l.Ways = make([]fact.Way, len(asks))
	var wg sync.WaitGroup
	for i, ask := range asks {
		l.Ways[i] = ask.way
		wg.Go(func() {
			began := time.Now()
			ask.do(ctx, &l.Ways[i])
			l.Ways[i].Took = time.Since(began)
		})
	}
	wg.Wait()
	return l
}

// ask is one way and how it asks.
type ask struct {
	way fact.Way
	do  func(ctx context.Context, w *fact.Way)
}

// asksOf lists the ways that there are here.
func asksOf(name string, conf *fact.Names) (asks []ask) {
	add := func(kind fact.WayKind, way names.Way, families ...fact.AddressFamily) {
		for _, family := range families {
			asks = append(asks, ask{fact.Way{Kind: kind, Family: family}, func(ctx context.Context, w *fact.Way) {
				addrs, err := way.Lookup(ctx, networks[family], name)
				conclude(w, addrs, err)
			}})
		}
	}
	add(fact.WayHosts, names.Hosts("/"), fact.BothFamilies)
	kind, libc := system()
	add(kind, libc, fact.BothFamilies, fact.OnlyIPv4, fact.OnlyIPv6)
	add(fact.WayGo, goWay{}, fact.BothFamilies)
	if present(varlinkSocket) {
		add(fact.WayVarlink, names.Varlink("/"), fact.BothFamilies)
	}
	if present(varlinkSocket) && present(busSocket) {
		add(fact.WayDBus, busWay{busSocket}, fact.BothFamilies)
	}
	if present(nscdSocket) {
		add(fact.WayNSCD, names.NSCD("/"), fact.BothFamilies)
	}
	candidates := completed(name, conf)
	server := func(kind fact.WayKind, addr netip.Addr, transports ...fact.Transport) {
		for _, transport := range transports {
			for _, family := range []fact.AddressFamily{fact.OnlyIPv4, fact.OnlyIPv6} {
				asks = append(asks, ask{fact.Way{Kind: kind, Family: family, Server: addr, Transport: transport}, func(ctx context.Context, w *fact.Way) {
					askServer(ctx, w, candidates)
				}})
			}
		}
	}
	known := make(map[netip.Addr]bool)
	for _, s := range conf.Nameservers[:min(len(conf.Nameservers), mostServers)] {
		if !known[s.Addr] {
			known[s.Addr] = true
			server(fact.WayServer, s.Addr, fact.UDPWithEDNS, fact.PlainUDP, fact.OverTCP, fact.OverTLS)
		}
	}
	if present(stubConf) {
		for _, last := range []byte{53, 54} {
			if stub := netip.AddrFrom4([4]byte{127, 0, 0, last}); !known[stub] {
				server(fact.WayStub, stub, fact.UDPWithEDNS, fact.OverTCP)
			}
		}
	}
	return asks
}

func present(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

var networks = map[fact.AddressFamily]string{fact.BothFamilies: "ip", fact.OnlyIPv4: "ip4", fact.OnlyIPv6: "ip6"}

// system is the way that asks the C library.
func system() (fact.WayKind, names.Way) {
	for _, way := range names.Registered() {
		if way.Name() == getaddrinfo {
			return fact.WayLibc, way
		}
	}
	return fact.WayGetent, names.Getent()
}

// goWay is the resolver of a Go program without cgo.
type goWay struct{}

func (goWay) Name() string { return "go" }

func (goWay) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, network, host)
}

// conclude says what came of a way that returns addresses or an error.
func conclude(w *fact.Way, addrs []netip.Addr, err error) {
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case err == nil && len(addrs) > 0:
		for _, addr := range addrs[:min(len(addrs), mostAddresses)] {
			w.Addresses = append(w.Addresses, addr.Unmap())
		}
		w.Answer = fact.Addresses
	case err == nil:
		w.Answer = fact.NoData
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &dns) && dns.IsTimeout:
		w.Answer, w.Error = fact.Silent, timedOut
	case errors.As(err, &dns) && dns.IsNotFound, w.Kind == fact.WayGetent && dns != nil:
		w.Answer = fact.NoName // getent does not say whether there is none or it did not find out
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		w.Answer, w.Error = fact.Failed, "closed without an answer"
	case errors.As(err, &errno):
		w.Answer, w.Error = fact.Failed, errno.Error()
	case dns != nil:
		w.Answer, w.Error = fact.Refused, fact.Printable(dns.Err)
	default:
		w.Answer, w.Error = fact.Failed, fact.Printable(err.Error())
	}
}

const timedOut = "timed out"
