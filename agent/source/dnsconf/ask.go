//go:build linux

package dnsconf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/route"
)

const (
	port = 53

	// Patience is how long an answer is waited for when nothing else is said. A
	// resolver on the other side of the world takes 0.3 s, one that has to ask
	// the root first a second.
	Patience = 2 * time.Second

	// datagramMax is more than any answer without EDNS, RFC 1035 section 4.2.1.
	datagramMax = 4096
)

// Ask asks a server one question over UDP, in one packet that is never sent
// again, and waits for the answer up to timeout (zero means [Patience]) or until
// ctx ends. The packet leaves from the network namespace of the calling thread.
//
// Answers to another question, or that are no DNS messages, are passed over:
// anybody can send them. A refusal by the machine, such as "connection
// refused", is reported at once.
func Ask(ctx context.Context, server netip.Addr, timeout time.Duration) fact.Answer {
	return ask(ctx, netip.AddrPortFrom(server, port), timeout)
}

// AskAll asks all nameservers of names at the same time, each once even when it
// is listed several times, and fills in their answers. What Ask says holds for
// each.
func AskAll(ctx context.Context, names *fact.Names, timeout time.Duration) {
	askAll(ctx, names, port, timeout)
}

func ask(ctx context.Context, server netip.AddrPort, timeout time.Duration) fact.Answer {
	start := time.Now()
	conn, err := dial(ctx, server)
	if err != nil {
		return fact.Answer{After: time.Since(start), Error: reason(ctx, err)}
	}
	return exchange(ctx, conn, timeout)
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
		conn, err := dial(ctx, netip.AddrPortFrom(addr, port))
		if err != nil {
			answer.Error = reason(ctx, err)
			continue
		}
		wg.Go(func() { *answer = exchange(ctx, conn, timeout) })
	}
	wg.Wait()
	for i := range names.Nameservers {
		server := &names.Nameservers[i]
		server.Answer = fact.Seen(*answers[server.Addr.Unmap()])
	}
}

// dial returns a socket that is connected, so that an ICMP refusal reaches it,
// and whose port the kernel chose at random.
func dial(ctx context.Context, server netip.AddrPort) (*net.UDPConn, error) {
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
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, server.Port())))
}

// exchange sends the question, waits for its answer and closes conn.
func exchange(ctx context.Context, conn *net.UDPConn, timeout time.Duration) fact.Answer {
	defer conn.Close()
	if timeout <= 0 {
		timeout = Patience
	}
	start := time.Now()
	failed := func(why string) fact.Answer { return fact.Answer{After: time.Since(start), Error: why} }

	if err := conn.SetDeadline(start.Add(timeout)); err != nil {
		return failed(reason(ctx, err))
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	id := uint16(rand.Uint32())
	if _, err := conn.Write(question(id)); err != nil {
		return failed(reason(ctx, err))
	}
	strange := 0
	for buf := make([]byte, datagramMax); ; {
		n, err := conn.Read(buf)
		if err != nil {
			why := reason(ctx, err)
			if strange > 0 {
				why += fmt.Sprintf("; datagrams that came and do not answer the question: %d", strange)
			}
			return failed(why)
		}
		if code, ok := parseAnswer(buf[:n], id); ok {
			return fact.Answer{OK: true, After: time.Since(start), RCode: code}
		}
		strange++
	}
}

// reason is what is left of an error without the addresses, which the fact it
// goes into has already.
func reason(ctx context.Context, err error) string {
	if cause := context.Cause(ctx); cause != nil {
		return cause.Error()
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timed out"
	case errors.As(err, &errno):
		return errno.Error()
	default:
		return err.Error()
	}
}
