package lifelinetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline/lifelinetest"
)

// bubble runs a test in a bubble, with a network and both ends of a connection.
func bubble(t *testing.T, f func(t *testing.T, n *lifelinetest.Network, client, server net.Conn)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n lifelinetest.Network
		ln, err := n.Listen("server:80")
		if err != nil {
			t.Fatal(err)
		}
		client, err := n.Dial("tcp", "server:80")
		if err != nil {
			t.Fatal(err)
		}
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		f(t, &n, client, server)
		client.Close()
		server.Close()
		ln.Close()
		if open := n.Open(); open != 0 {
			t.Errorf("%d are open", open)
		}
	})
}

func TestNoFaults(t *testing.T) {
	bubble(t, func(t *testing.T, n *lifelinetest.Network, client, server net.Conn) {
		if client.LocalAddr() != server.RemoteAddr() || client.RemoteAddr().String() != "server:80" {
			t.Errorf("%v to %v", client.LocalAddr(), server.RemoteAddr())
		}
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // more than the buffers hold
		go func() {
			_, _ = client.Write(data)
			client.Close()
		}()
		if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes of %d, %v", len(got), len(data), err)
		}
		if _, err := server.Write(data); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("written to nobody: %v", err)
		}
		if _, err := client.Read(data); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read from what was closed: %v", err)
		}
	})
}

func TestHalfClosed(t *testing.T) {
	bubble(t, func(t *testing.T, n *lifelinetest.Network, client, server net.Conn) {
		_, _ = client.Write([]byte("hello"))
		if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(server); string(got) != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := client.Write([]byte("more")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("got %v", err)
		}
		_, _ = server.Write([]byte("bye"))
		got := make([]byte, 3)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "bye" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// Nothing arrives for as long as the network is silent, writes succeed until the
// buffer is full, a dial waits for its context, and then all arrives.
func TestSilent(t *testing.T) {
	bubble(t, func(t *testing.T, n *lifelinetest.Network, client, server net.Conn) {
		n.Set(lifelinetest.Faults{Silent: true, Buffer: 10})
		if _, err := client.Write([]byte("0123456789")); err != nil {
			t.Error(err)
		}
		_ = client.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := client.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("written into a full buffer: %v", err)
		}
		_ = server.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := n.DialContext(ctx, "tcp", "server:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialed: %v", err)
		}
		client.Close()
		_ = server.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { n.Set(lifelinetest.Faults{}) })
		if got, err := io.ReadAll(server); string(got) != "0123456789" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestStalled(t *testing.T) {
	bubble(t, func(t *testing.T, n *lifelinetest.Network, client, server net.Conn) {
		n.Set(lifelinetest.Faults{Stalled: true})
		_ = client.SetDeadline(time.Now().Add(time.Minute))
		written, err := client.Write(make([]byte, 100<<10))
		if written != 64<<10 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", written, err)
		}
		_ = client.SetDeadline(time.Time{})
		_, _ = server.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestDelayAndSegment(t *testing.T) {
	bubble(t, func(t *testing.T, n *lifelinetest.Network, client, server net.Conn) {
		n.Set(lifelinetest.Faults{Delay: time.Second, Segment: 2})
		began := time.Now()
		_, _ = client.Write([]byte("hello"))
		got := make([]byte, 10)
		if read, err := server.Read(got); read != 2 || err != nil || time.Since(began) != time.Second {
			t.Errorf("read %d after %v, %v", read, time.Since(began), err)
		}
		if read, err := io.ReadFull(server, got[:3]); read != 3 || err != nil {
			t.Errorf("read %d, %v", read, err)
		}
	})
}

func TestResetAndPartialWrite(t *testing.T) {
	bubble(t, func(t *testing.T, n *lifelinetest.Network, client, server net.Conn) {
		n.Set(lifelinetest.Faults{CutAfter: 7})
		if written, err := client.Write([]byte("hello")); written != 5 || err != nil {
			t.Errorf("wrote %d, %v", written, err)
		}
		if written, err := client.Write([]byte("hello")); written != 2 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("wrote %d, %v", written, err)
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		n.Set(lifelinetest.Faults{})
		other, err := n.Dial("tcp", "server:80")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		}()
		time.AfterFunc(time.Second, n.Reset)
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
	})
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	var n lifelinetest.Network
	if _, err := n.Dial("tcp", "server:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	ln, err := n.Listen("server:80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen("server:80"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	n.Set(lifelinetest.Faults{Refused: true})
	if _, err := n.Dial("tcp", "server:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	n.Set(lifelinetest.Faults{})
	waits, err := n.Dial("tcp", "server:80")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if _, err := waits.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	waits.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if open := n.Open(); open != 0 {
		t.Errorf("%d are open", open)
	}
}

// A request to a server that falls silent returns by its own timeout, and in a
// bubble that takes no time.
func TestHTTP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lifelinetest.NoLeaks(t)
		var n lifelinetest.Network
		ln, err := n.Listen("server:80")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })}
		go func() { _ = server.Serve(ln) }()
		client := &http.Client{Transport: &http.Transport{DialContext: n.DialContext}, Timeout: 30 * time.Second}
		if err := get(client, "http://server"); err != nil {
			t.Error(err)
		}
		n.Set(lifelinetest.Faults{Silent: true})
		began := time.Now()
		if err := get(client, "http://server"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 30*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		n.Set(lifelinetest.Faults{})
		client.CloseIdleConnections()
		server.Close()
	})
}
