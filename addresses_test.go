package lifeline_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/names"
)

// book is a resolver that knows the addresses of names, and waits for ever for
// those of others.
func book(of map[string][]string) *names.Resolver {
	return &names.Resolver{Root: "/nonexistent", Nameservers: []netip.AddrPort{}, System: []names.Way{pages(of)}}
}

type pages map[string][]string

func (pages) Name() string { return "book" }

func (p pages) Lookup(ctx context.Context, network, host string) (addrs []netip.Addr, err error) {
	texts, ok := p[host]
	if !ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, text := range texts {
		if addr := netip.MustParseAddr(text); network == "ip" || addr.Is4() == (network == "ip4") {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func TestDialAllAddresses(t *testing.T) {
	ln := sink(t)
	port := ln.Addr().(*net.TCPAddr).Port
	address := func(host string) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	resolver := book(map[string][]string{
		"good.test":    {"127.0.0.1"},
		"third.test":   {"127.0.0.2", "127.0.0.3", "127.0.0.1"}, // nobody listens on the others
		"six.test":     {"::1", "127.0.0.1"},
		"none.test":    {},
		"refused.test": {"127.0.0.2", "127.0.0.3"},
	})
	for _, delay := range []time.Duration{0, -1} {
		dialer := lifeline.Dialer{Names: resolver, Net: net.Dialer{FallbackDelay: delay}}
		for _, host := range []string{"good.test", "third.test", "six.test"} {
			conn, err := dialer.Dial("tcp", address(host))
			if err != nil {
				t.Errorf("%s: %v", host, err)
				continue
			}
			if _, ok := conn.(*lifeline.Conn); !ok || conn.RemoteAddr().String() != ln.Addr().String() {
				t.Errorf("%s: %T to %s", host, conn, conn.RemoteAddr())
			}
			conn.Close()
		}
		var name *net.DNSError
		var op *net.OpError
		if _, err := dialer.Dial("tcp", address("none.test")); !errors.As(err, &name) || !name.IsNotFound || !errors.As(err, &op) || op.Op != "dial" {
			t.Errorf("none: %v", err)
		}
		if _, err := dialer.Dial("tcp6", address("good.test")); !errors.As(err, &name) || !name.IsNotFound {
			t.Errorf("tcp6: %v", err)
		}
		name = nil
		if _, err := dialer.Dial("tcp", address("refused.test")); !errors.As(err, &op) || errors.As(err, &name) || op.Addr.(*net.TCPAddr).IP.String() != "127.0.0.2" {
			t.Errorf("refused: %v", err)
		}
		dialer.Net.LocalAddr = &net.TCPAddr{IP: net.IPv6loopback}
		if conn, err := dialer.Dial("tcp", address("good.test")); err == nil {
			t.Error("an address of the other family")
			conn.Close()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if conn, err := dialer.DialContext(ctx, "tcp", address("third.test")); err == nil {
			t.Error("cancelled before")
			conn.Close()
		}
	}
}

// Connections that come too late are closed.
func TestDialClosesWhatIsLate(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(first.Addr().(*net.TCPAddr).Port)
	second, err := net.Listen("tcp", "127.0.0.2:"+port)
	need.Feature(t, "a second address of loopback", err)
	var working sync.WaitGroup
	for _, ln := range []net.Listener{first, second} {
		defer ln.Close()
		working.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				working.Go(func() {
					_, _ = io.Copy(io.Discard, conn) // to its end
					conn.Close()
				})
			}
		})
	}
	dialer := lifeline.Dialer{
		Names: book(map[string][]string{"two.test": {"127.0.0.1", "127.0.0.2"}}),
		Net:   net.Dialer{FallbackDelay: 1}, // at once
	}
	for range 50 {
		conn, err := dialer.Dial("tcp", "two.test:"+port)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	first.Close()
	second.Close()
	ended := make(chan struct{})
	go func() { working.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("a connection that nobody has is open")
	}
}

// A name that nobody answers for is the promise of names, within its own bound.
func TestDialNameUnanswered(t *testing.T) {
	resolver := book(nil)
	resolver.Timeout = 200 * time.Millisecond
	dialer := lifeline.Dialer{Names: resolver}
	_, err := dialer.Dial("tcp", "lost.test:80")
	var name *net.DNSError
	var e *lifeline.Error
	if !errors.As(err, &e) || e.Promise != lifeline.Names || !errors.As(err, &name) || !name.IsTimeout {
		t.Errorf("%v", err)
	}
	dialer.Net.Timeout = time.Millisecond
	if _, err := dialer.Dial("tcp", "lost.test:80"); err == nil {
		t.Error("connected")
	}
}

func TestDialUDPByName(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
	dialer := lifeline.Dialer{Names: book(map[string][]string{"good.test": {"127.0.0.1"}})}
	conn, err := dialer.Dial("udp4", "good.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
