//go:build linux

package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/internal/need"
	"golang.org/x/sys/unix"
)

// The library promises a bound; these tests make a peer go silent in every way
// that it promises something about, and take the time.

// shortest is the shortest silence that a policy can have.
var shortest = lifeline.Policy{Silence: 6 * time.Second}

// guard is a connection of the library between two hosts.
type guard struct {
	near, far *Host
	conn      *lifeline.Conn
	peer      *net.TCPConn // far end, of package net
}

// guarded connects from a near host with the dialer. The far end has the
// smallest receive buffer there is.
func guarded(t *testing.T, d lifeline.Dialer) *guard {
	t.Helper()
	g := &guard{}
	g.near, g.far = hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	ln := g.far.Listen("tcp", "10.77.1.2:80").(*net.TCPListener)
	setOption(t, ln, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	err := g.near.Do(func() error {
		conn, err := d.DialContext(t.Context(), "tcp", "10.77.1.2:80")
		if err == nil {
			g.conn = conn.(*lifeline.Conn)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.conn.Close() })
	if g.peer, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.peer.Close() })
	return g
}

// reads returns what ends a Read of the connection.
func (g *guard) reads() chan end {
	ended := make(chan end, 1)
	go func() {
		_, err := g.conn.Read(make([]byte, 1))
		ended <- end{time.Now(), err}
	}()
	return ended
}

// writes keeps writing so much at a time, so often, and returns what ends it.
func (g *guard) writes(size int, every time.Duration) chan end {
	ended := make(chan end, 1)
	go func() {
		for data := make([]byte, size); ; time.Sleep(every) {
			if _, err := g.conn.Write(data); err != nil {
				ended <- end{time.Now(), err}
				return
			}
		}
	}()
	return ended
}

// silent waits for the end and checks when it came and what it says.
func silent(t *testing.T, p lifeline.Policy, died time.Time, ended chan end) {
	t.Helper()
	bound := p.Bound().Longest()
	select {
	case end := <-ended:
		took := end.at.Sub(died)
		t.Logf("noticed after %v, %d %% of %v: %v", took.Round(time.Millisecond), 100*took/bound, bound, end.err)
		checkSilent(t, end.err)
		if took > bound+slack {
			t.Errorf("noticed after %v, the bound is %v", took, bound)
		}
		if took < bound/4 {
			t.Errorf("noticed after %v, too soon for a bound of %v", took, bound)
		}
	case <-time.After(time.Until(died) + bound + 20*time.Second):
		t.Fatalf("not noticed in %v", time.Since(died))
	}
}

func checkSilent(t *testing.T, err error) {
	t.Helper()
	var known *lifeline.Error
	var timeout net.Error
	switch {
	case !errors.As(err, &known):
		t.Errorf("%v is no *lifeline.Error", err)
	case !errors.Is(err, lifeline.ErrSilent) || errors.Is(err, lifeline.ErrReset) || errors.Is(err, lifeline.ErrCut):
		t.Errorf("%v is not ErrSilent, or more than that", err)
	case known.Promise != lifeline.Silence || known.Peer != "10.77.1.2:80" || known.Quiet < time.Second:
		t.Errorf("%+v says too little", known)
	case !errors.As(err, &timeout) || !timeout.Timeout():
		t.Errorf("%v is no timeout", err)
	}
}

func TestLibraryIdlePeerDies(t *testing.T) {
	t.Parallel()
	for _, policy := range []lifeline.Policy{shortest, {}} {
		t.Run(policy.Bound().Idle.String(), func(t *testing.T) {
			t.Parallel()
			g := guarded(t, lifeline.Dialer{Policy: policy})
			ended := g.reads()
			g.far.Unplug()
			silent(t, policy, time.Now(), ended)
			for range 2 { // the kernel tells only once
				_, err := g.conn.Write([]byte{1})
				checkSilent(t, err)
				_, err = g.conn.Read(make([]byte, 1))
				checkSilent(t, err)
			}
		})
	}
}

func TestLibrarySendingPeerDies(t *testing.T) {
	t.Parallel()
	for _, policy := range []lifeline.Policy{shortest, {}} {
		for name, every := range map[string]time.Duration{"once": time.Minute, "heartbeat of 1 s": time.Second} {
			t.Run(policy.Bound().Sending.String()+", "+name, func(t *testing.T) {
				t.Parallel()
				sendingPeerDies(t, policy, every)
			})
		}
	}
}

func sendingPeerDies(t *testing.T, policy lifeline.Policy, every time.Duration) {
	t.Helper()
	g := guarded(t, lifeline.Dialer{Policy: policy})
	ended := g.reads()
	g.far.Unplug()
	died := time.Now()
	writes, over := make(chan error, 1), make(chan struct{})
	go func() {
		for {
			if _, err := g.conn.Write([]byte("ping")); err != nil {
				writes <- err
				return
			}
			select {
			case <-time.After(every):
			case <-over:
			}
		}
	}()
	silent(t, policy, died, ended)
	close(over)
	checkSilent(t, <-writes)
	if err := g.conn.Close(); err != nil {
		t.Errorf("Close after the end: %v", err)
	}
	if err := g.conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v, want net.ErrClosed", err)
	}
}

// What was written before the connection was wrapped is watched too.
func TestLibraryWrappedLate(t *testing.T) {
	t.Parallel()
	near, far := hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	far.Listen("tcp", "10.77.1.2:80")
	conn := near.Dial("tcp", "10.77.1.2:80")
	far.Unplug()
	died := time.Now()
	if _, err := conn.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	silent(t, shortest, died, (&guard{conn: shortest.Wrap(conn).(*lifeline.Conn)}).reads())
}

// Data that is written when keepalive is about to notice stops keepalive; the
// silence before counts all the same.
func TestLibraryWriteLateInSilence(t *testing.T) {
	t.Parallel()
	policy := lifeline.Policy{Silence: 10 * time.Second} // of which keepalive takes 9
	g := guarded(t, lifeline.Dialer{Policy: policy})
	ended := g.reads()
	g.far.Unplug()
	died := time.Now()
	time.Sleep(8500 * time.Millisecond)
	if _, err := g.conn.Write([]byte{1}); err != nil {
		checkSilent(t, err) // so busy a machine that keepalive was first
	}
	silent(t, policy, died, ended)
}

func TestLibraryHeavyTrafficPeerDies(t *testing.T) {
	t.Parallel()
	g := guarded(t, lifeline.Dialer{Policy: shortest})
	ended := g.writes(64<<10, 0)
	received := make(chan int64, 1)
	go func() {
		_ = g.peer.SetReadDeadline(time.Now().Add(time.Minute))
		n, _ := io.CopyN(io.Discard, g.peer, 4<<20)
		received <- n
		_, _ = io.Copy(io.Discard, g.peer)
	}()
	if n := <-received; n != 4<<20 {
		t.Fatalf("received %d bytes", n)
	}
	g.far.Unplug()
	silent(t, shortest, time.Now(), ended)
}

// What this machine cannot send, because its queue drops it, keepalive does not
// count: it would try for ever, every 0.5 s. On a busy machine that has made
// keepalive of 3 s take 15 s.
func TestLibraryQueueFull(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]bool{"idle": false, "sending": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			need.Program(t, "tc")
			g := guarded(t, lifeline.Dialer{Policy: shortest})
			ended := g.reads()
			g.near.Run("tc", "qdisc", "replace", "dev", "eth0", "root", "bfifo", "limit", "1")
			died := time.Now()
			if write {
				if _, err := g.conn.Write([]byte("lost")); err != nil {
					t.Fatal(err)
				}
			}
			silent(t, shortest, died, ended)
		})
	}
}

// Keepalive that the program has switched off asks nobody, so nobody is silent.
func TestLibraryWithoutKeepAlive(t *testing.T) {
	t.Parallel()
	g := guarded(t, lifeline.Dialer{Policy: shortest})
	if err := g.conn.NetConn().(*net.TCPConn).SetKeepAlive(false); err != nil {
		t.Fatal(err)
	}
	ended := g.reads()
	select {
	case end := <-ended:
		t.Fatalf("given up: %v", end.err)
	case <-time.After(3 * shortest.Silence):
	}
	g.far.Unplug()
	died := time.Now()
	if _, err := g.conn.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	silent(t, shortest, died, ended)
}

// A peer that does not read closes its window and goes on to acknowledge. It
// is alive for as long as it likes, and its death is noticed all the same.
func TestLibrarySlowReader(t *testing.T) {
	t.Parallel()
	g := guarded(t, lifeline.Dialer{Policy: shortest})
	ended := g.writes(64<<10, 0)
	select {
	case end := <-ended:
		t.Fatalf("a live slow reader was given up: %v", end.err)
	case <-time.After(time.Minute):
	}
	g.far.Unplug()
	silent(t, shortest, time.Now(), ended)
}

// A slow reader that reads a little now and then, across many limits.
func TestLibraryTrickle(t *testing.T) {
	t.Parallel()
	g := guarded(t, lifeline.Dialer{Policy: shortest})
	ended := g.writes(64<<10, 0)
	buf := make([]byte, 1<<10)
	for range 5 {
		select {
		case end := <-ended:
			t.Fatalf("a live slow reader was given up: %v", end.err)
		case <-time.After(4 * time.Second):
		}
		if _, err := g.peer.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
}

// A peer that comes back in time has lost nothing.
func TestLibraryOutage(t *testing.T) {
	t.Parallel()
	g := guarded(t, lifeline.Dialer{Policy: lifeline.Policy{Silence: 10 * time.Second}})
	g.far.Unplug()
	if _, err := g.conn.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	g.far.Plug()
	got := make([]byte, 4)
	_ = g.peer.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(g.peer, got); err != nil || string(got) != "lost" {
		t.Fatalf("got %q, %v", got, err)
	}
	ended := g.reads()
	select {
	case end := <-ended:
		t.Errorf("ended after the outage: %v", end.err)
	case <-time.After(10 * time.Second):
	}
}

// The kernel forgets whom it killed by whose order, but not how: a reset and a
// cut are told apart, from each other and from silence.
func TestLibraryResetAndCut(t *testing.T) {
	t.Parallel()
	t.Run("reset", func(t *testing.T) {
		t.Parallel()
		g := guarded(t, lifeline.Dialer{})
		ended := g.reads()
		if err := errors.Join(g.peer.SetLinger(0), g.peer.Close()); err != nil {
			t.Fatal(err)
		}
		endsAs(t, g, ended, lifeline.ErrReset, syscall.ECONNRESET)
	})
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		need.Program(t, "ss")
		g := guarded(t, lifeline.Dialer{})
		ended := g.reads()
		g.near.Run("ss", "-K", "dst", "10.77.1.2")
		endsAs(t, g, ended, lifeline.ErrCut, syscall.ECONNABORTED)
	})
}

func endsAs(t *testing.T, g *guard, ended chan end, kind error, errno syscall.Errno) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		var timeout net.Error
		if !errors.Is(err, kind) || !errors.Is(err, errno) || errors.Is(err, lifeline.ErrSilent) ||
			!errors.As(err, &timeout) || timeout.Timeout() {
			t.Errorf("got %v, want %v by %v", err, kind, errno)
		}
	}
	select {
	case end := <-ended:
		check(end.err)
	case <-time.After(20 * time.Second):
		t.Fatal("the end was not noticed")
	}
	_, err := g.conn.Write([]byte{1})
	check(err)
	_, err = g.conn.Read(make([]byte, 1))
	check(err)
}

func TestLibraryListen(t *testing.T) {
	t.Parallel()
	near, far := hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	var ln net.Listener
	err := near.Do(func() (err error) {
		ln, err = (&lifeline.ListenConfig{Policy: shortest}).Listen(t.Context(), "tcp", "10.77.1.1:80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far.Dial("tcp", "10.77.1.1:80")
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	far.Unplug()
	died := time.Now()
	_, err = conn.Read(make([]byte, 1))
	took := time.Since(died)
	if !errors.Is(err, lifeline.ErrSilent) || took > shortest.Bound().Idle+slack {
		t.Errorf("after %v: %v", took, err)
	}
}

func TestLibraryConnect(t *testing.T) {
	t.Parallel()
	near, far := hosts(t, "10.77.1.1/24", "10.77.1.2/24")
	far.Listen("tcp", "10.77.1.2:80")
	far.Unplug()
	dial := func(ctx context.Context, d lifeline.Dialer) (took time.Duration, err error) {
		began := time.Now()
		err = near.Do(func() error {
			conn, err := d.DialContext(ctx, "tcp", "10.77.1.2:80")
			if err == nil {
				conn.Close()
			}
			return err
		})
		return time.Since(began), err
	}
	policy := lifeline.Policy{Connect: time.Second}
	took, err := dial(t.Context(), lifeline.Dialer{Policy: policy})
	var known *lifeline.Error
	if !errors.Is(err, lifeline.ErrUnanswered) || !errors.As(err, &known) || known.Promise != lifeline.Calls || !known.Timeout() {
		t.Errorf("got %v, want ErrUnanswered", err)
	}
	if took > policy.Bound().Connect+slack {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := dial(ctx, lifeline.Dialer{}); errors.Is(err, lifeline.ErrUnanswered) || !os.IsTimeout(err) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's own bound gives %v", err)
	}
}

// The options of a socket are what the bound rests on: keepalive that is over
// in time, no user timeout, and retries that are not minutes apart.
func TestLibraryOptions(t *testing.T) {
	t.Parallel()
	ln, err := lifeline.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var d lifeline.Dialer
	dialed, err := d.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	wrapped := lifeline.Wrap(raw)
	defer wrapped.Close()
	for name, conn := range map[string]net.Conn{"dialed": dialed, "accepted": accepted, "wrapped": wrapped} {
		want := map[int]int{unix.TCP_KEEPIDLE: 6, unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 12, unix.TCP_USER_TIMEOUT: 0}
		if d.Policy.Bound().Stalled == d.Policy.Bound().Sending { // Linux 6.15
			want[unix.TCP_RTO_MAX_MS] = 2500
		}
		control(t, conn.(*lifeline.Conn), func(fd int) error {
			for option, value := range want {
				if got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option); err != nil || got != value {
					t.Errorf("%s: option %d is %d, %v; want %d", name, option, got, err, value)
				}
			}
			return nil
		})
	}
}

// Close must not wait for anybody, whatever is under way when the peer is
// found silent, or when it is called.
func TestLibraryCloseRaces(t *testing.T) {
	t.Parallel()
	g := guarded(t, lifeline.Dialer{Policy: shortest})
	const many = 16
	conns := make([]*lifeline.Conn, 0, many)
	for i := range many {
		ln := g.far.Listen("tcp", "10.77.1.2:0")
		conn := g.near.Dial("tcp", ln.Addr().String())
		conns = append(conns, shortest.Wrap(conn).(*lifeline.Conn))
		if i%2 == 0 { // the others wait in the accept queue
			accepted, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
		}
	}
	g.far.Unplug()
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() { _, _ = io.Copy(io.Discard, conn) })
		wg.Go(func() {
			for {
				if _, err := conn.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		})
		wg.Go(func() {
			time.Sleep(shortest.Silence - time.Second + time.Duration(i)*100*time.Millisecond)
			began := time.Now()
			_ = conn.Close()
			if took := time.Since(began); took > slack {
				t.Errorf("Close took %v", took)
			}
		})
	}
	wg.Wait()
}

// What the watcher costs a program with 10,000 connections: when none does
// anything, when a Read waits for each, when each writes every 30 s, and when
// nobody has read for a while and all of them wait. The writes themselves are measured too, over connections
// of package net.
func BenchmarkLibraryWatcher(b *testing.B) {
	const many, listeners, span = 10_000, 5, 10 * time.Second
	for _, test := range []struct {
		name                   string
		wrap                   func(net.Conn) net.Conn
		reads, writes, stalled bool
	}{
		{name: "idle", wrap: lifeline.Wrap},
		{name: "reading", wrap: lifeline.Wrap, reads: true},
		{name: "reading over package net", wrap: func(c net.Conn) net.Conn { return c }, reads: true},
		{name: "heartbeats", wrap: lifeline.Wrap, writes: true},
		{name: "heartbeats over package net", wrap: func(c net.Conn) net.Conn { return c }, writes: true},
		{name: "stalled", wrap: lifeline.Wrap, stalled: true},
	} {
		b.Run(test.name, func(b *testing.B) {
			var conns []net.Conn
			for range listeners { // each keeps its connections in its accept queue
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				defer ln.Close()
				setListener(b, ln.(*net.TCPListener))
				for range many / listeners {
					conn, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						b.Fatal(err)
					}
					conn = test.wrap(conn)
					defer conn.Close()
					if test.stalled {
						_ = conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
						_, _ = conn.Write(make([]byte, 1<<20))
					}
					if test.reads {
						go func() { _, _ = conn.Read(make([]byte, 1)) }()
					}
					conns = append(conns, conn)
				}
			}
			time.Sleep(2 * time.Second)
			for b.Loop() {
				busy, began := used(b), time.Now()
				for i := 0; test.writes && time.Since(began) < span; i++ {
					_, _ = conns[i%many].Write([]byte("ping"))
					time.Sleep(time.Until(began.Add(time.Duration(i) * 30 * time.Second / many)))
				}
				time.Sleep(time.Until(began.Add(span)))
				b.ReportMetric(100*float64(used(b)-busy)/float64(time.Since(began)), "%core")
			}
		})
	}
}

// setListener gives the connections of a listener the smallest buffers.
func setListener(b *testing.B, ln *net.TCPListener) {
	b.Helper()
	raw, err := ln.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) })
	if err != nil {
		b.Fatal(err)
	}
}

// used returns the processor time of this process.
func used(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
