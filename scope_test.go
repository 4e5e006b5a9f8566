package lifeline_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/ledger"
)

// bothEnds returns both ends of a connection that the library made, and what it
// took to make them is closed when the test ends.
func bothEnds(t *testing.T, ctx context.Context, config lifeline.ListenConfig, network string) (dialed, accepted net.Conn, ln net.Listener) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "lifeline") // a short path, as unix sockets need it
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "socket")
	}
	ln, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var dialer lifeline.Dialer
	if dialed, err = dialer.DialContext(ctx, network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close() })
	if accepted, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return dialed, accepted, ln
}

// Everything that the library opens is in the ledger until it is closed, with
// who opened it.
func TestLedger(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			scope := lifeline.NewScope(network)
			dialed, accepted, ln := bothEnds(t, scope.Context(t.Context()), lifeline.ListenConfig{Scope: scope}, network)
			open := scope.Open()
			if len(open) != 3 {
				t.Fatalf("open are %+v", open)
			}
			for i, op := range []string{"listen", "dial", "accept"} {
				if e := open[i]; e.Op != op || e.Network != network || e.Scope != network || !strings.HasSuffix(e.Stack[0].Function, "_test.bothEnds") {
					t.Errorf("got %+v", e)
				}
			}
			if open[0].Local != ln.Addr().String() || open[1].Remote != ln.Addr().String() || open[2].Local != ln.Addr().String() {
				t.Errorf("got %+v", open)
			}
			time.Sleep(20 * time.Millisecond)
			if _, err := dialed.Write([]byte("hello")); err != nil {
				t.Error(err)
			}
			if e := scope.Open()[1]; e.Used.Sub(e.Opened) < 10*time.Millisecond {
				t.Errorf("opened %v, used %v", e.Opened, e.Used)
			}
			for _, c := range []io.Closer{dialed, ln, accepted} {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			if open := scope.Open(); len(open) != 0 {
				t.Errorf("open are %+v", open)
			}
		})
	}
}

func TestWrappedAndDatagrams(t *testing.T) {
	t.Parallel()
	scope := lifeline.NewScope("wrapped")
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	plain, err := net.Dial("udp", peer.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := lifeline.Policy{}.WrapContext(scope.Context(t.Context()), plain)
	if err != nil {
		t.Fatal(err)
	}
	again, err := lifeline.Policy{}.WrapContext(scope.Context(t.Context()), conn)
	if err != nil || again != conn {
		t.Errorf("wrapped twice it is %v, %v", again, err)
	}
	if open := scope.Open(); len(open) != 1 || open[0].Op != "wrap" || open[0].Network != "udp" {
		t.Errorf("open are %+v", open)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if left := scope.Close(); len(left) != 1 {
		t.Errorf("closed %+v", left)
	}
	if other, err := (lifeline.Policy{}).WrapContext(scope.Context(t.Context()), plain); !errors.Is(err, lifeline.ErrScopeClosed) {
		t.Errorf("got %v, %v", other, err)
	}
}

// Read, Write and Accept of what a scope closed say so.
func TestScopeEnds(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			scope, server := lifeline.NewScope("build 42"), lifeline.NewScope("server")
			dialed, _, ln := bothEnds(t, scope.Context(t.Context()), lifeline.ListenConfig{Scope: server}, network)
			reads, accepts := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := dialed.Read(make([]byte, 1))
				reads <- err
			}()
			go func() {
				_, err := ln.Accept()
				accepts <- err
			}()
			time.Sleep(20 * time.Millisecond)
			if left := scope.Close(); len(left) != 1 {
				t.Errorf("closed %+v", left)
			}
			read := <-reads
			if left := server.Close(); len(left) != 2 {
				t.Errorf("closed %+v", left)
			}
			_, write := dialed.Write([]byte("hello"))
			var dialer lifeline.Dialer
			_, dial := dialer.DialContext(scope.Context(t.Context()), network, ln.Addr().String())
			for op, err := range map[string]error{"read": read, "write": write, "accept": <-accepts, "dial": dial} {
				var known *lifeline.Error
				if !errors.As(err, &known) || !errors.Is(err, lifeline.ErrScopeClosed) || known.Op != op || known.Promise != lifeline.Leaks || known.Timeout() {
					t.Errorf("%s: got %v", op, err)
				}
			}
			if err := dialed.Close(); err != nil { // as the program does that does not know
				t.Error(err)
			}
			if err := dialed.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed twice: %v", err)
			}
		})
	}
}

// No state of a connection keeps Close of its scope.
func TestScopeCloseDoesNotWait(t *testing.T) {
	t.Parallel()
	scope := lifeline.NewScope("stuck")
	ctx := scope.Context(t.Context())
	full := func() *lifeline.Conn { // whose peer does not read
		dialed, _, _ := bothEnds(t, ctx, lifeline.ListenConfig{}, "tcp")
		go func() {
			for data := make([]byte, 1<<20); ; {
				if _, err := dialed.Write(data); err != nil {
					return
				}
			}
		}()
		return dialed.(*lifeline.Conn)
	}
	full()
	if err := full().SetLinger(60); err != nil {
		t.Fatal(err)
	}
	reads := full()
	go func() { _, _ = reads.Read(make([]byte, 1)) }()
	locked, release, holds := full(), make(chan struct{}), make(chan struct{})
	raw, err := locked.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = raw.Control(func(uintptr) {
			close(holds)
			<-release
		})
	}()
	defer close(release)
	<-holds
	time.Sleep(200 * time.Millisecond) // until the buffers are full
	began := time.Now()
	if left := scope.Close(); len(left) != 4 {
		t.Errorf("closed %d", len(left))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestScopeLimit(t *testing.T) {
	t.Parallel()
	scope := lifeline.NewScope("few")
	scope.SetLimit(2)
	_, _, ln := bothEnds(t, t.Context(), lifeline.ListenConfig{Scope: scope}, "tcp") // which reach it
	dialer := lifeline.Dialer{Scope: scope}
	_, err := dialer.DialContext(t.Context(), "tcp", ln.Addr().String())
	var known *lifeline.Error
	if !errors.As(err, &known) || !errors.Is(err, lifeline.ErrTooMany) || known.Peer != ln.Addr().String() ||
		!strings.Contains(err.Error(), `lifeline: leaks: dial `+known.Peer+`: too many connections are open: scope "few" has the 2 open that it may have, `) {
		t.Errorf("got %v", err)
	}

	refused, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	_, err = ln.Accept()
	if temporary, ok := err.(interface{ Temporary() bool }); !errors.Is(err, lifeline.ErrTooMany) || !ok || !temporary.Temporary() {
		t.Errorf("got %v", err)
	}
	if n, err := refused.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the connection that was not accepted is open")
	}
}

// The values of a request's context reach the dial that net/http makes for it,
// and so does its scope, though not its cancellation.
func TestScopeOfARequest(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer server.Close()
	var dialer lifeline.Dialer
	transport := &http.Transport{DialContext: dialer.DialContext}
	defer transport.CloseIdleConnections()
	scope := lifeline.NewScope("request")
	request, err := http.NewRequestWithContext(scope.Context(t.Context()), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	left := scope.Close()
	if len(left) != 1 || left[0].Remote != server.Listener.Addr().String() || !strings.HasSuffix(left[0].Site().Function, ".TestScopeOfARequest") {
		t.Errorf("left were %+v", left)
	}
}

// A connection that nobody can close any more is found, and the ledger does not
// keep it alive.
func TestDropped(t *testing.T) {
	t.Parallel()
	scope := lifeline.NewScope("dropped")
	ln := sink(t)
	drop(t, scope, ln.Addr().String())
	for deadline := time.Now().Add(time.Minute); len(scope.Open()) > 0; time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatal("the ledger keeps it")
		}
	}
	if !slices.ContainsFunc(ledger.Dropped(), func(d ledger.Loss) bool { return strings.HasSuffix(d.Stack[0].Function, "_test.drop") }) {
		t.Errorf("dropped are %+v", ledger.Dropped())
	}
}

//go:noinline
func drop(t *testing.T, scope *lifeline.Scope, address string) {
	dialer := lifeline.Dialer{Scope: scope}
	if _, err := dialer.DialContext(t.Context(), "tcp", address); err != nil {
		t.Fatal(err)
	}
}
