package ssh_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
)

// A server that freezes while it is written to: the window of TCP closes, one
// Write holds the lock that all others need, and every call returns all the
// same. This row needs a kernel, so its bounds are short, and generous.
func TestZeroWindow(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan *faulty, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		served <- serve(t, conn, fault{})
	}()
	c := config()
	c.Liveness.Silence = 3 * s
	client, err := ssh.Dial(t.Context(), ln.Addr().String(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server := <-served

	frozen := make(chan struct{})
	var writers []*ssh.Command
	for range 8 { // each fills the window of its channel, all together that of TCP
		cmd := client.Command("cat")
		cmd.Stdin = zeros{frozen}
		if err := cmd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, cmd)
	}
	server.conn.freeze()
	froze := time.Now()
	close(frozen)
	time.Sleep(s / 2) // for the window to close

	ctx, cancel := context.WithTimeout(t.Context(), s/2)
	defer cancel()
	began := time.Now()
	_, err = client.Command("exit 0").Output(ctx)
	took := time.Since(began)
	var e *ssh.Error
	if !errors.As(err, &e) || e.Phase != ssh.Open || e.Fate != ssh.NotSent || !errors.Is(err, context.DeadlineExceeded) || took > 20*s {
		t.Errorf("while the window is closed: %v after %v", err, took)
	}
	_ = writers[0].Signal(ctx, ssh.SIGINT)
	for _, cmd := range writers {
		if err := cmd.Wait(t.Context()); !errors.Is(err, ssh.ErrSilent) {
			t.Error(err)
		}
	}
	took = time.Since(froze)
	t.Logf("all given up after %v, the bound is %v", took, client.Bound().Silence)
	if took > client.Bound().Silence+20*s {
		t.Errorf("given up after %v", took)
	}
	began = time.Now()
	_ = client.Close()
	if took := time.Since(began); took > 20*s {
		t.Errorf("Close took %v", took)
	}
}

// zeros is endless from some time on.
type zeros struct{ from chan struct{} }

func (z zeros) Read(p []byte) (int, error) {
	<-z.from
	clear(p)
	return len(p), nil
}
