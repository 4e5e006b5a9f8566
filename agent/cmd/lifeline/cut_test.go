package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// other runs the command in a process of its own: in this one all connections
// of the test would be Lifeline's own, which it never touches.
func other(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "lifeline") // by this name the test binary is the command
	if err := os.Symlink("/proc/self/exe", program); err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), executable, args...)
	cmd.Args[0] = program
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// wired returns two hosts with n connections between them, the far ends first.
func wired(t *testing.T, n int) (near, far *lab.Host, ends []net.Conn) {
	t.Helper()
	l := lab.New(t)
	near, far = l.Host("near"), l.Host("far")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	near.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	for _, c := range connect(t, near, far, "10.77.1.2:80", n) {
		t.Cleanup(func() { c.Close() })
		if conn, ok := c.(net.Conn); ok {
			ends = append(ends, conn)
		}
	}
	return near, far, ends
}

// readError returns the error of a read, nil when there is none for a moment.
func readError(c net.Conn, wait time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, err := c.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func TestCutIsDryUnlessToldOtherwise(t *testing.T) {
	near, _, ends := wired(t, 40)
	stdout, stderr, code := other(t, "cut", "--peer", "10.77.1.2", "--netns", near.Path())
	if code != exitWell || !strings.Contains(stdout, "Would cut 40 connections at 500/s, in 80 ms. Nothing is done without --yes.") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	for _, c := range ends {
		if err := readError(c, time.Millisecond); err != nil {
			t.Fatalf("the dry run ended a connection: %v", err)
		}
	}

	stdout, stderr, code = other(t, "cut", "--peer", "10.77.1.2", "--netns", near.Path(), "--rate", "200/s", "--yes")
	if code != exitWell || !strings.Contains(stdout, "\nCut 40 connections in ") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	if batches := strings.Count(stderr, " cut "); batches != 4 || !strings.Contains(stderr, " cut 40, 0 gone, 0 failed, 0 left\n") {
		t.Errorf("%d batches are told, want 4:\n%s", batches, stderr)
	}
	for i, c := range ends {
		want := syscall.ECONNABORTED
		if i%2 == 1 {
			want = syscall.ECONNRESET
		}
		if err := readError(c, 30*time.Second); !errors.Is(err, want) {
			t.Errorf("end %d: %v, want %v", i, err, want)
		}
	}
}

func TestCutStopsWhileThePeerIsAlive(t *testing.T) {
	near, _, ends := wired(t, 4)
	done := make(chan struct{})
	defer close(done)
	go func() { // a peer that keeps talking, on all connections
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				for i := 1; i < len(ends); i += 2 {
					_, _ = ends[i].Write([]byte{1})
				}
			}
		}
	}()
	stdout, stderr, code := other(t, "cut", "--peer", "10.77.1.2", "--netns", near.Path(), "--while-silent", "--rate", "2/s", "--yes", "--json")
	var d struct {
		Done    []struct{ Count int }
		Left    int
		Stopped string
		Undo    *string
	}
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v:\n%s%s", err, stdout, stderr)
	}
	if code != exitFindings || d.Left == 0 || !strings.Contains(d.Stopped, "sign of life") {
		t.Errorf("exit code %d: %+v\n%s", code, d, stderr)
	}
}

// Lifeline never touches what is its own: here, everything.
func TestCutSparesLifeline(t *testing.T) {
	near, _, ends := wired(t, 3)
	stdout, stderr, code := lifeline(t, "cut", "--netns", near.Path(), "--rate", "max", "--yes")
	if code != exitWell || !strings.Contains(stdout, "No connection is like that.") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	for _, c := range ends {
		if err := readError(c, time.Millisecond); err != nil {
			t.Errorf("it was cut: %v", err)
		}
	}
}

// Without the right nothing is cut, and it says which right that is.
func TestUnprivilegedCut(t *testing.T) {
	l, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, args := range [][]string{
		{"cut", "--peer", "127.77.0.1", "--netns", "self", "--yes"},
		{"poke", "127.77.0.1", "--netns", "self"},
	} {
		stdout, stderr, code := nobody(t, args...)
		if code != exitBlind || !strings.Contains(stderr, "lifeline "+args[0]+": cannot "+args[0]+": ") || !strings.Contains(stderr, "; needs CAP_") {
			t.Errorf("%v: exit code %d:\n%s%s", args, code, stdout, stderr)
		}
	}
	if err := readError(c, time.Millisecond); err != nil {
		t.Errorf("it was cut: %v", err)
	}
}
