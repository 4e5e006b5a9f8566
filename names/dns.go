package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// lateness is how long addresses of IPv4 wait for those of IPv6 that their name
// may have too: the resolution delay of RFC 8305 section 3.
const lateness = 50 * time.Millisecond

// found is what nameservers say of a name.
type found struct {
	addrs     []netip.Addr
	canonical string
	ttl       time.Duration
	by        string // the name of the way
	partial   bool   // a part of the answer was not waited for
}

// Server returns the way that asks one nameserver: over UDP, again without EDNS
// where the server refuses that, and over TCP where the answer is truncated. It
// takes host as it is, without a search list.
func Server(addr netip.AddrPort) Way { return serverWay{&server{addr: addr}} }

type serverWay struct{ *server }

func (w serverWay) Name() string { return w.server.name(0) }

func (w serverWay) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	found, err := lookupName(ctx, []*server{w.server}, false, network, strings.TrimSuffix(host, ".")+".")
	return found.addrs, err
}

// lookupDNS asks the nameservers for host, with the search list where it has no
// dot at its end. As with glibc (__res_context_search), a name that servers
// failed to answer does not end the search, but then its no is not final.
func (r *Resolver) lookupDNS(ctx context.Context, c *config, network, host string) (found, error) {
	if !isHostname(host) {
		return found{}, notFound(host, "", "not a host name: nameservers are not asked")
	}
	for _, s := range c.servers {
		r.probe(s)
	}
	var unsure, no error
	for _, name := range c.candidates(host) {
		f, err := lookupName(ctx, r.rotated(c), c.resolv.TCP, network, name)
		switch {
		case err == nil:
			return f, nil
		case isNotFound(err) && (no == nil || errors.Is(err, errNoData)):
			no = err // that there is another kind of record says more than that there is none
		case !isNotFound(err):
			unsure = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if unsure != nil {
		return found{}, unsure
	}
	return found{}, no
}

// rotated returns the servers in the order of resolv.conf, or from another one
// each time where it says so.
func (r *Resolver) rotated(c *config) []*server {
	if !c.resolv.Rotate || len(c.servers) < 2 {
		return c.servers
	}
	at := int(r.turn.Add(1)) % len(c.servers)
	return append(append([]*server(nil), c.servers[at:]...), c.servers[:at]...)
}

// lookupName asks for the addresses of one name, which ends with a dot: A and
// AAAA at the same time, and the second is not waited for when it is late.
func lookupName(ctx context.Context, servers []*server, tcp bool, network, name string) (found, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kinds := map[string][]dnsmessage.Type{"ip4": {dnsmessage.TypeA}, "ip6": {dnsmessage.TypeAAAA}, "ip": {dnsmessage.TypeA, dnsmessage.TypeAAAA}}[network]
	if len(kinds) == 1 {
		return lookupKind(ctx, servers, tcp, name, kinds[0])
	}
	type half struct {
		found
		kind dnsmessage.Type
		err  error
	}
	halves := make(chan half, len(kinds))
	for _, kind := range kinds {
		go func() {
			f, err := lookupKind(ctx, servers, tcp, name, kind)
			halves <- half{f, kind, err}
		}()
	}
	var a, b half
	select {
	case a = <-halves:
	case <-ctx.Done():
		a = <-halves // it has an error that says who did not answer
	}
	var late <-chan time.Time
	if a.kind == dnsmessage.TypeA && a.err == nil || isNotFound(a.err) && !errors.Is(a.err, errNoData) {
		timer := time.NewTimer(lateness)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case b = <-halves:
	case <-late:
		if a.err != nil || sourceFor(a.addrs[0]).IsValid() { // else only the other could be used
			a.partial = true
			return a.found, a.err
		}
		b = <-halves
	}
	if a.kind == dnsmessage.TypeAAAA {
		a, b = b, a
	}
	return join(a.found, a.err, b.found, b.err)
}

// join puts what is known of IPv4 and of IPv6 together. One of them is enough; a
// no is one only where both are.
func join(a found, errA error, b found, errB error) (found, error) {
	switch {
	case errA == nil && errB == nil:
		a.addrs, a.ttl = append(a.addrs, b.addrs...), min(a.ttl, b.ttl)
		return a, nil
	case errA == nil:
		a.partial = !isNotFound(errB)
		return a, nil
	case errB == nil:
		b.partial = !isNotFound(errA)
		return b, nil
	case !isNotFound(errA):
		return found{}, errA
	case !isNotFound(errB) || errors.Is(errB, errNoData):
		return found{}, errB
	}
	return found{}, errA
}

// lookupKind asks for the addresses of one kind.
func lookupKind(ctx context.Context, servers []*server, tcp bool, name string, kind dnsmessage.Type) (found, error) {
	answer, err := hedge(ctx, servers, func(ctx context.Context, s *server, how method) (reply, error) {
		if tcp {
			how = overTCP
		}
		got, err := s.ask(ctx, name, kind, how)
		if err == nil {
			got.found, err = parseAddrs(got.message, name, kind)
			got.found.by = s.name(got.via)
		}
		if errors.Is(err, errNoName) || errors.Is(err, errNoData) {
			got.no, err = err, nil
		}
		if err != nil {
			return reply{}, &failure{s.name(got.via), err}
		}
		return got, nil
	})
	if err != nil {
		return found{}, &net.DNSError{
			Err: strings.ReplaceAll(err.Error(), "\n", "; "), UnwrapErr: err, Name: name,
			IsTimeout: ctx.Err() != nil, IsTemporary: true,
		}
	}
	if answer.no != nil {
		return found{}, &net.DNSError{Err: answer.no.Error(), UnwrapErr: answer.no, Name: name, Server: answer.found.by, IsNotFound: true}
	}
	return answer.found, nil
}

// isHostname reports whether nameservers may be asked for name: what Go's
// isDomainName accepts, of 253 octets at most. glibc would send others as they
// are, which no zone has.
func isHostname(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return false
	}
	letters := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', c == '-':
				letters = true
			case '0' <= c && c <= '9':
			default:
				return false
			}
		}
	}
	return letters
}

func isNotFound(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}
