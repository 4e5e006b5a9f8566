package names

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/internal/dnsclient"
)

// server is a nameserver and what is known of it.
type server struct {
	addr   netip.AddrPort
	health health
	plain  atomic.Bool  // it refused EDNS
	stream atomic.Int64 // until when it is asked over TCP, because it did not answer over UDP; nanoseconds since 1970
}

// name says which server it is, and by which transport.
func (s *server) name(transport dnsclient.Transport) string {
	if s.addr.Port() == dnsPort {
		return transport.String() + " " + s.addr.Addr().String()
	}
	return transport.String() + " " + s.addr.String()
}

// A method is how a question is put.
type method int

const (
	usual   method = iota // UDP with EDNS
	bare                  // UDP without EDNS, which some networks drop
	overTCP               // where UDP seems to be dropped

	methods = 3
)

// reply is an answer of a server, as it came, and what is in it.
type reply struct {
	message []byte
	by      *server
	via     dnsclient.Transport
	found   found
	no      error // why there is nothing in it, where that is an answer too
}

// ask puts one question and returns the answer, whatever it says, and how it
// came. A truncated one is asked for again over TCP, and one that was refused
// because of EDNS again without it.
func (s *server) ask(ctx context.Context, name string, kind dnsmessage.Type, how method) (reply, error) {
	if how == overTCP || time.Now().UnixNano() < s.stream.Load() {
		answer, err := s.send(ctx, dnsclient.TCP, name, kind, !s.plain.Load())
		if err != nil {
			s.stream.Store(0)
		}
		return answer, err
	}
	edns := how == usual && !s.plain.Load()
	answer, err := s.send(ctx, dnsclient.UDP, name, kind, edns)
	if err == nil && edns && refusesEDNS(answer.message) {
		answer, err = s.send(ctx, dnsclient.UDP, name, kind, false)
		if err == nil && !refusesEDNS(answer.message) {
			s.plain.Store(true)
		}
	}
	if err == nil && dnsclient.Truncated(answer.message) || errors.Is(err, dnsclient.ErrFlooded) {
		return s.send(ctx, dnsclient.TCP, name, kind, !s.plain.Load())
	}
	return answer, err
}

// preferTCP asks over TCP from now on, until it is time to see whether UDP works
// again.
func (s *server) preferTCP() { s.stream.Store(time.Now().Add(longestPause).UnixNano()) }

// refusesEDNS: RFC 6891 section 7.
func refusesEDNS(message []byte) bool {
	code := dnsclient.Code(message)
	return code == dnsmessage.RCodeFormatError || code == dnsmessage.RCodeNotImplemented
}

func (s *server) send(ctx context.Context, transport dnsclient.Transport, name string, kind dnsmessage.Type, edns bool) (reply, error) {
	query, err := dnsclient.NewQuery(name, kind, edns)
	if err != nil {
		return reply{}, err
	}
	return s.exchange(ctx, transport, query)
}

// exchange sends a message and notes what came of it.
func (s *server) exchange(ctx context.Context, transport dnsclient.Transport, query []byte) (reply, error) {
	began := time.Now()
	message, err := dnsclient.Exchange(ctx, transport, s.addr, query)
	switch {
	case err == nil:
		s.health.did(time.Since(began))
	case ctx.Err() == nil: // its own error; of time the one who waits says more
		s.health.failedBy(err)
	}
	return reply{message: message, by: s, via: transport}, err
}

// probe asks a server that did not answer whether it is back, when it is time to.
// It asks for the servers of the root, which every resolver knows and which tells
// nobody a name.
func (r *Resolver) probe(s *server) {
	const patience = time.Second
	if s.health.due() {
		r.background(patience, func(ctx context.Context) { _, _ = s.ask(ctx, ".", dnsmessage.TypeNS, usual) })
	}
}

// background runs do for no longer than most, or until [Resolver.Close].
func (r *Resolver) background(most time.Duration, do func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	over := make(chan struct{})
	r.mu.Lock()
	if r.running == nil {
		r.running = make(map[chan struct{}]context.CancelFunc)
	}
	r.running[over] = cancel
	r.mu.Unlock()
	go func() {
		do(ctx)
		cancel()
		r.mu.Lock()
		delete(r.running, over)
		r.mu.Unlock()
		close(over)
	}()
}

// Close ends what the resolver does in the background: it may be asking a server
// or a way that did not answer whether it is back, for Timeout at most. A resolver can be
// used again after it.
func (r *Resolver) Close() {
	r.mu.Lock()
	running := maps.Clone(r.running)
	r.mu.Unlock()
	for over, stop := range running {
		stop()
		<-over
	}
}

// failure is why a way could not find out. It says so without the addresses and
// the name, which its reader knows.
type failure struct {
	way string
	err error
}

func (f *failure) Error() string {
	text := f.err.Error()
	switch err := f.err.(type) {
	case *net.OpError:
		text = err.Err.Error()
	case *net.DNSError:
		text = err.Err
	}
	return f.way + ": " + strings.ReplaceAll(text, "\n", "; ")
}

func (f *failure) Unwrap() error { return f.err }
