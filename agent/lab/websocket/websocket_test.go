package websocket

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// events returns a writer for an end, and what comes out of it.
func events(t *testing.T) (io.Writer, func() Event) {
	r, w := io.Pipe()
	t.Cleanup(func() { r.Close() })
	lines := bufio.NewScanner(r)
	return w, func() (e Event) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no event: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		return e
	}
}

// Both ends tell what they see: the server serves, the clients are open, hear
// heartbeats, and each learns of the end of the other.
func TestEnds(t *testing.T) {
	const connections = 5
	addr := need.Address(t)
	ctx, stop := context.WithCancel(t.Context())
	out, serverSays := events(t)
	served := make(chan error, 1)
	go func() { served <- RunServer(ctx, addr, 10*time.Millisecond, out) }()
	if e := serverSays(); e.What != Ready {
		t.Fatalf("the server says %+v, want %s", e, Ready)
	}

	clients, leave := context.WithCancel(t.Context())
	out, clientsSay := events(t)
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- RunClients(clients, "ws://"+addr, "", connections, 100*time.Millisecond, out) }()
	if e := clientsSay(); e.What != Open || e.At > Now() {
		t.Fatalf("the clients say %+v, want %s", e, Open)
	}
	if took := time.Since(began); took < 80*time.Millisecond {
		t.Errorf("open after %v, want them spread over 100 ms", took)
	}
	time.Sleep(50 * time.Millisecond) // some heartbeats, which end nothing
	leave()
	for range connections {
		if e := clientsSay(); e.What != Ended || e.Error == "" {
			t.Errorf("a client says %+v, want why it ended", e)
		}
		if e := serverSays(); e.What != Ended || e.Error == "" {
			t.Errorf("the server says %+v, want why a connection ended", e)
		}
	}
	stop()
	for _, ended := range []chan error{done, served} {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// Clients of which one cannot connect do not wait for the others.
func TestServerGoes(t *testing.T) {
	addr := need.Address(t)
	ctx, stop := context.WithCancel(t.Context())
	out, serverSays := events(t)
	go RunServer(ctx, addr, 0, out)
	serverSays()
	time.AfterFunc(100*time.Millisecond, stop) // which ends no connection of a server
	if err := RunClients(t.Context(), "ws://"+addr, "", 20, time.Second, io.Discard); err == nil {
		t.Error("all connected to a server that was gone")
	}
	for range 2 {
		serverSays() // the first ones are open until their clients go
	}
}

func TestNobodyListens(t *testing.T) {
	addr := need.Address(t)
	err := RunClients(t.Context(), "ws://"+addr, "", 3, 0, io.Discard)
	if err == nil || cause(err) != "connection refused" {
		t.Errorf("got %v, want connection refused", err)
	}
}

func TestAddressTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := RunServer(t.Context(), ln.Addr().String(), 0, io.Discard); cause(err) != "address already in use" {
		t.Errorf("got %v, want address already in use", err)
	}
}

func TestCause(t *testing.T) {
	for want, err := range map[string]error{
		"connection timed out": fmt.Errorf("failed to read: %w", &net.OpError{Op: "read", Err: syscall.ETIMEDOUT}),
		"end of file":          fmt.Errorf("failed to read: %w", io.EOF),
		"something else":       fmt.Errorf("something else"),
	} {
		if got := cause(err); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}
