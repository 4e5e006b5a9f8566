//go:build unix

package lifeline_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/lifeline-go/lifeline"
)

// A process that may open no more files says who has them open.
func TestTooManyFiles(t *testing.T) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	_, _, ln := bothEnds(t, t.Context(), lifeline.ListenConfig{}, "tcp")
	next, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	few := was
	few.Cur = uint64(next.Fd()) + 1
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	var dialer lifeline.Dialer
	for err == nil {
		var conn net.Conn
		if conn, err = dialer.Dial("tcp", ln.Addr().String()); err == nil {
			defer conn.Close()
		}
	}
	_, accept := ln.Accept()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, lifeline.ErrTooMany) || !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "connections in the ledger, ") {
		t.Errorf("dial: got %v", err)
	}
	t.Log(err)
	if accept != nil && !errors.Is(accept, lifeline.ErrTooMany) {
		t.Errorf("accept: got %v", accept)
	}
}
