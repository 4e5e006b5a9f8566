package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// echo is a server that returns what it reads, and then the end.
func echo(t testing.TB, network, addr string) string {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _, _ = io.Copy(conn, conn); conn.Close() })
		}
	})
	return ln.Addr().String()
}

// exchange sends, ends its half, and expects the same back, and the end.
func exchange(t testing.TB, conn net.Conn, size int) {
	t.Helper()
	defer conn.Close()
	text := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	done := make(chan error, 1)
	go func() {
		_, err := conn.Write(text)
		done <- errors.Join(err, conn.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-done); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes of %d came back: %v", len(got), len(text), err)
	}
}

func TestDialThrough(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	conn, err := client.Dial(t.Context(), "tcp", echo(t, "tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn, 4<<20)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	if conn, err = client.Dial(t.Context(), "unix", echo(t, "unix", socket)); err != nil {
		t.Fatal(err)
	}
	exchange(t, conn, 1<<20)

	var e *ssh.Error
	if _, err := client.Dial(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, ssh.ErrRefused) || !errors.As(err, &e) || e.Phase != ssh.Open {
		t.Error(err)
	}
	for _, wrong := range []string{"nothing", "127.0.0.1:70000", "127.0.0.1:x"} {
		if _, err := client.Dial(t.Context(), "tcp", wrong); err == nil {
			t.Errorf("dialed %q", wrong)
		}
	}
	if _, err := client.Dial(t.Context(), "udp", "127.0.0.1:1"); err == nil {
		t.Error("dialed udp")
	}
	if err := client.Command("true").Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// All deadlines work, are moved while somebody waits, and leave the connection
// usable.
func TestTunnelDeadlines(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := client.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	one := make([]byte, 1)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := conn.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Hour))
	time.AfterFunc(20*time.Millisecond, func() { _ = conn.SetReadDeadline(time.Now()) })
	if _, err := conn.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(3 * time.Second)) // a busy machine encrypts nothing for long
	n, err := conn.Write(make([]byte, 64<<20))                 // which nobody reads
	if timeout := net.Error(nil); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	_ = conn.SetDeadline(time.Time{})
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(one); err != nil || one[0] != 'x' {
		t.Error(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = conn.Close() })
	if _, err := conn.Read(one); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := conn.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// forwarding runs a forward until the end of the test, or of the client.
func forwarding(t *testing.T, f func(ctx context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * s):
			t.Error("the forward does not end")
			return nil
		}
	}
}

func TestForwardLocal(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	to := echo(t, "tcp", "127.0.0.1:0")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := forwarding(t, func(ctx context.Context) error { return client.ForwardLocal(ctx, ln, to, ssh.Forwarding{}) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			exchange(t, conn, 1<<20)
		})
	}
	wg.Wait()
	idle, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n, err := idle.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from a forward that has ended", n)
	}
	if err := client.Command("true").Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// One connection that is refused ends only itself.
func TestForwardLocalRefused(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 10)
	stop := forwarding(t, func(ctx context.Context) error {
		return client.ForwardLocal(ctx, ln, "127.0.0.1:1", ssh.Forwarding{Most: 1, Failed: func(_ net.Addr, err error) { failed <- err }})
	})
	for range 3 {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("it was not closed")
		}
		conn.Close()
		if err := <-failed; !errors.Is(err, ssh.ErrRefused) {
			t.Error(err)
		}
	}
	_ = stop()
}

func TestForwardRemote(t *testing.T) {
	t.Parallel()
	client := startSSHD(t).dial(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	to := echo(t, "tcp", "127.0.0.1:0")
	stop := forwarding(t, func(ctx context.Context) error { return client.ForwardRemote(ctx, at, to, ssh.Forwarding{}) })
	var conn net.Conn
	for deadline := time.Now().Add(10 * s); ; time.Sleep(10 * time.Millisecond) {
		if conn, err = net.Dial("tcp", at); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	exchange(t, conn, 4<<20)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * s); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", at)
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			conn.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server still listens: %v", err)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	d := startSSHD(t)
	client := d.dial(t)
	ln, err := client.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Listen(t.Context(), "tcp", ln.Addr().String()); !errors.Is(err, ssh.ErrRefused) {
		t.Error(err)
	}
	there, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	here, err := ln.Accept()
	if err != nil || here.RemoteAddr().String() != there.LocalAddr().String() {
		t.Fatalf("%v, %v", here, err)
	}
	if _, err := there.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	exchange := make([]byte, 1)
	if _, err := here.Read(exchange); err != nil || exchange[0] != 'x' {
		t.Error(err)
	}
	// What ends the client ends all of it, for the same cause.
	time.AfterFunc(50*time.Millisecond, func() { _ = client.Close() })
	if _, err := here.Read(exchange); !errors.Is(err, ssh.ErrClosed) {
		t.Error(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, ssh.ErrClosed) {
		t.Error(err)
	}
	if _, err := here.Write(make([]byte, 1<<20)); !errors.Is(err, ssh.ErrClosed) {
		t.Error(err)
	}
	_ = ln.Close()
}

// A server that dies ends its forwards, and a channel that it never confirms
// does so within its budget.
func TestForwardFaults(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		client, server := connected(t, config(), fault{opens: func(*faulty, xssh.NewChannel) bool { return false }})
		began := time.Now()
		_, err := client.Dial(t.Context(), "tcp", "db:5432")
		var budget *ssh.BudgetError
		if took := time.Since(began); !errors.As(err, &budget) || budget.Budget != "ChannelOpen" || took > budget.Limit+s {
			t.Errorf("%v after %v", err, took)
		}
		done := make(chan error, 1)
		ln := &silentListener{gone: make(chan struct{})}
		go func() { done <- client.ForwardLocal(t.Context(), ln, "db:5432", ssh.Forwarding{}) }()
		_ = server.conn.Close()
		if err := <-done; !errors.Is(err, ssh.ErrDisconnected) {
			t.Error(err)
		}
	})
}

// silentListener accepts nothing.
type silentListener struct {
	once sync.Once
	gone chan struct{}
}

func (l *silentListener) Accept() (net.Conn, error) { <-l.gone; return nil, net.ErrClosed }
func (l *silentListener) Close() error              { l.once.Do(func() { close(l.gone) }); return nil }
func (l *silentListener) Addr() net.Addr            { return &net.TCPAddr{} }
