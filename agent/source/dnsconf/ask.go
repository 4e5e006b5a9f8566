//go:build linux

package dnsconf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/route"
	"github.com/lifeline-go/lifeline/internal/dnsclient"
)

const (
	port = 53

	// Patience is how long an answer is waited for when nothing else is said.
	Patience = dnsclient.Patience
)

// Ask asks a server one question over UDP, as Go's resolver does with EDNS, in one
// packet that is never sent again, and waits for the answer up to timeout (zero means [Patience]) or until
// ctx ends. The packet leaves from the network namespace of the calling thread.
//
// Answers to another question, or that are no DNS messages, are passed over:
// anybody can send them. A refusal by the machine, such as "connection
// refused", is reported at once.
func Ask(ctx context.Context, server netip.Addr, timeout time.Duration) fact.Answer {
	return ask(ctx, netip.AddrPortFrom(server, port), dnsclient.UDP, true, timeout)
}

// AskAll asks all nameservers of names at the same time, each once even when it
// is listed several times, and fills in their answers. What Ask says holds for
// each.
func AskAll(ctx context.Context, names *fact.Names, timeout time.Duration) {
	askAll(ctx, names, port, timeout)
}

func ask(ctx context.Context, server netip.AddrPort, transport dnsclient.Transport, edns bool, timeout time.Duration) fact.Answer {
	start := time.Now()
	within, cancel := context.WithTimeout(ctx, cmp.Or(max(timeout, 0), Patience))
	defer cancel()
	conn, err := dial(within, transport, server)
	if err != nil {
		return fact.Answer{After: time.Since(start), Error: reason(ctx, err)}
	}
	return exchange(ctx, within, conn, edns, start)
}

func askAll(ctx context.Context, names *fact.Names, port uint16, timeout time.Duration) {
	var wg sync.WaitGroup
	answers := make(map[netip.Addr]*fact.Answer)
	for _, server := range names.Nameservers {
		addr := server.Addr.Unmap()
		if answers[addr] != nil {
			continue
		}
		answer := new(fact.Answer)
		answers[addr] = answer
		// On this thread: the goroutine may run on one of another namespace.
		start := time.Now()
		conn, err := dial(ctx, dnsclient.UDP, netip.AddrPortFrom(addr, port))
		if err != nil {
			answer.Error = reason(ctx, err)
			continue
		}
		wg.Go(func() {
			within, cancel := context.WithTimeout(ctx, cmp.Or(max(timeout, 0), Patience))
			defer cancel()
			*answer = exchange(ctx, within, conn, true, start)
		})
	}
	wg.Wait()
	for i := range names.Nameservers {
		server := &names.Nameservers[i]
		server.Answer = fact.Seen(*answers[server.Addr.Unmap()])
	}
}

// dial returns a socket that is connected, so that an ICMP refusal reaches it,
// and whose port the kernel chose at random.
func dial(ctx context.Context, transport dnsclient.Transport, server netip.AddrPort) (*dnsclient.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	addr := server.Addr().Unmap()
	if addr.Zone() != "" {
		index, err := route.Index(addr.Zone())
		if err != nil {
			return nil, err
		}
		addr = addr.WithZone(strconv.FormatUint(uint64(index), 10))
	}
	return dnsclient.Dial(ctx, transport, netip.AddrPortFrom(addr, server.Port()))
}

// exchange sends the question, waits for its answer and closes conn.
//
// The question is for the name servers of the root. It tells nobody which names
// this machine looks up; every resolver has the answer at hand, as it needs it
// itself (priming, RFC 8109); and one that may not or cannot answer says so,
// which is a sign of life as well. Go's resolver asks with EDNS, and glibc's
// without unless it is told otherwise.
func exchange(ctx, within context.Context, conn *dnsclient.Conn, edns bool, start time.Time) fact.Answer {
	defer conn.Close()
	question, err := dnsclient.NewQuery(".", dnsmessage.TypeNS, edns)
	var answer []byte
	if err == nil {
		answer, err = conn.Exchange(within, question)
	}
	took := time.Since(start)
	if err != nil {
		why := reason(ctx, err)
		if n := conn.Strays(); n > 0 {
			why += fmt.Sprintf("; datagrams that came and do not answer the question: %d", n)
		}
		return fact.Answer{After: took, Error: why}
	}
	return fact.Answer{OK: true, After: took, RCode: dnsclient.CodeName(dnsclient.Code(answer))}
}

// reason is what is left of an error without the addresses, which the fact it
// goes into has already.
func reason(ctx context.Context, err error) string {
	if cause := context.Cause(ctx); cause != nil {
		return cause.Error()
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case errors.As(err, &errno):
		return errno.Error()
	default:
		return err.Error()
	}
}
