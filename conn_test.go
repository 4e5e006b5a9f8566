package lifeline_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/internal/need"
)

// pair returns both ends of a connection over loopback; both are the library's.
func pair(t testing.TB) (a, b *lifeline.Conn) {
	t.Helper()
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
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return dialed.(*lifeline.Conn), accepted.(*lifeline.Conn)
}

// received returns what comes from the connection until its end.
func received(conn net.Conn) <-chan []byte {
	all := make(chan []byte, 1)
	go func() {
		got, _ := io.ReadAll(conn)
		all <- got
	}()
	return all
}

func TestCopies(t *testing.T) {
	text := []byte(strings.Repeat("0123456789", 100_000))
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for from, copyTo := range map[string]func(w *lifeline.Conn) (int64, error){
		"file": func(w *lifeline.Conn) (int64, error) {
			f, err := os.Open(name)
			if err != nil {
				return 0, err
			}
			defer f.Close()
			return io.Copy(w, f)
		},
		"buffer":  func(w *lifeline.Conn) (int64, error) { return w.ReadFrom(bytes.NewReader(text)) },
		"buffers": func(w *lifeline.Conn) (int64, error) { b := net.Buffers{text[:10], text[10:]}; return b.WriteTo(w) },
		"connection": func(w *lifeline.Conn) (int64, error) {
			return io.Copy(w, source(t, text))
		},
		"connection, read from": func(w *lifeline.Conn) (int64, error) { return w.ReadFrom(source(t, text)) },
		"connection, limited": func(w *lifeline.Conn) (int64, error) {
			limited := &io.LimitedReader{R: source(t, text), N: int64(len(text))}
			n, err := w.ReadFrom(limited)
			if limited.N != 0 {
				t.Errorf("%d left of the limit", limited.N)
			}
			return n, err
		},
		"writes": func(w *lifeline.Conn) (int64, error) { n, err := w.Write(text); return int64(n), err },
	} {
		t.Run(from, func(t *testing.T) {
			w, r := pair(t)
			all := received(r)
			n, err := copyTo(w)
			if err == nil {
				err = w.CloseWrite()
			}
			if err != nil || n != int64(len(text)) {
				t.Fatalf("%d bytes, %v", n, err)
			}
			if got := <-all; !bytes.Equal(got, text) {
				t.Errorf("%d bytes came, and not the same", len(got))
			}
		})
	}
}

// source returns a connection from which the text comes.
func source(t *testing.T, text []byte) *lifeline.Conn {
	r, w := pair(t)
	go func() {
		_, _ = w.Write(text)
		_ = w.CloseWrite()
	}()
	return r
}

// An error in the middle of a copy is told of the side that it is of.
func TestCopyBlamesTheRightSide(t *testing.T) {
	for name, copyTo := range map[string]func(to, from *lifeline.Conn) (int64, error){
		"ReadFrom": func(to, from *lifeline.Conn) (int64, error) { return to.ReadFrom(from) },
		"WriteTo":  func(to, from *lifeline.Conn) (int64, error) { return from.WriteTo(to) },
		"by hand":  func(to, from *lifeline.Conn) (int64, error) { return to.ReadFrom(struct{ io.Reader }{from}) },
	} {
		for _, side := range []string{"from", "to"} {
			t.Run(name+" "+side, func(t *testing.T) {
				from, source := pair(t)
				to, sink := pair(t)
				fails, lives, peer := from, to, source
				if side == "to" {
					fails, lives, peer = to, from, sink
				}
				done := make(chan error, 1)
				go func() {
					_, err := copyTo(to, from)
					done <- err
				}()
				if _, err := source.Write([]byte("some")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(sink, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(peer.SetLinger(0), peer.Close()); err != nil {
					t.Fatal(err)
				}
				stop := make(chan struct{})
				defer close(stop)
				go feed(source, stop)
				var known *lifeline.Error
				if err := <-done; !errors.As(err, &known) || known.Peer != fails.RemoteAddr().String() || !errors.Is(err, lifeline.ErrReset) {
					t.Errorf("got %v, want a reset by %v", err, fails.RemoteAddr())
				}
				if err := lives.SetDeadline(time.Time{}); err != nil {
					t.Errorf("the other side: %v", err)
				}
			})
		}
	}
}

// feed writes until it fails, or is told to stop: a copy learns that its sink
// is gone when it has something to write.
func feed(w io.Writer, stop <-chan struct{}) {
	for {
		if _, err := w.Write([]byte("more")); err != nil {
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func TestCloseWakes(t *testing.T) {
	a, b := pair(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v, want net.ErrClosed", err)
		}
	})
	wg.Go(func() {
		for {
			if _, err := a.Write(make([]byte, 1<<20)); err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Write: %v, want net.ErrClosed", err)
				}
				return
			}
		}
	})
	time.Sleep(100 * time.Millisecond)
	if err := errors.Join(a.SetLinger(0), a.Close()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	_, _ = io.Copy(io.Discard, b)
}

func TestDeadlinesAreNotEnds(t *testing.T) {
	a, b := pair(t)
	if err := a.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	var known *lifeline.Error
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &known) {
		t.Errorf("got %v", err)
	}
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want io.EOF itself", err)
	}
}

func TestWrap(t *testing.T) {
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	a, _ := pair(t)
	for _, conn := range []net.Conn{left, a} {
		if lifeline.Wrap(conn) != conn {
			t.Errorf("%T is wrapped", conn)
		}
	}
	if conn, ok := lifeline.Wrap(a.NetConn()).(*lifeline.Conn); !ok || conn.NetConn() != a.NetConn() {
		t.Error("a TCP connection is not wrapped")
	}
	if _, err := lifeline.Wrap(&net.TCPConn{}).Read(nil); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no connection at all: %v", err)
	}
}

func TestOtherNetworks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	ln, err := lifeline.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var d lifeline.Dialer
	conn, err := d.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	inner, ok := conn.(interface{ NetConn() net.Conn })
	if !ok {
		t.Fatalf("a unix socket is a %T", conn)
	}
	if _, ok := inner.NetConn().(*net.UnixConn); !ok {
		t.Errorf("a unix socket is a %T", inner.NetConn())
	}
}

func TestRefusedIsNotSilence(t *testing.T) {
	var d lifeline.Dialer
	var known *lifeline.Error
	if _, err := d.Dial("tcp", need.Address(t)); !errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &known) {
		t.Errorf("got %v", err)
	}
}

// The name is part of the bound, and the error says that it was the name.
func TestNameUnanswered(t *testing.T) {
	never := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	d := lifeline.Dialer{Policy: lifeline.Policy{Connect: 50 * time.Millisecond}, Net: net.Dialer{Resolver: never}}
	_, err := d.Dial("tcp", "lifeline.invalid:80")
	var known *lifeline.Error
	if !errors.As(err, &known) || known.Promise != lifeline.Names || !errors.Is(err, lifeline.ErrUnanswered) || !known.Timeout() {
		t.Errorf("got %v", err)
	}
}

func TestHTTP(t *testing.T) {
	ln, err := lifeline.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	var d lifeline.Dialer
	transport := &http.Transport{DialContext: d.DialContext}
	client := &http.Client{Transport: transport}
	for range 3 {
		resp, err := client.Get("http://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || len(body) != 1<<20 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
	}
	transport.CloseIdleConnections()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
