//go:build unix

package ssh_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// relay is this test binary as a program that connects its input and output to
// an address: there is none that is everywhere.
func relay(t *testing.T, addr string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `"$0"; exit $?`, self) // sh stays, so that there are two to kill
	cmd.Env = append(os.Environ(), "LIFELINE_RELAY="+addr)
	cmd.Stderr = os.Stderr
	return cmd
}

// listening serves one connection of TCP.
func listening(t *testing.T, f fault) (addr string, served chan *faulty) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	served = make(chan *faulty, 1)
	go func() {
		if conn, err := ln.Accept(); err == nil {
			served <- serve(t, conn, f)
		}
	}()
	return ln.Addr().String(), served
}

// gone waits until no process of a group runs.
func gone(t *testing.T, group int) {
	t.Helper()
	for deadline := time.Now().Add(5 * s); runs(group); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the program is still there")
		}
	}
}

// runs reports whether a process of the group runs. Orphans that have ended and
// that nobody has buried do not: in a container the first process may be one that
// never does.
func runs(group int) bool {
	if errors.Is(unix.Kill(-group, 0), unix.ESRCH) {
		return false
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		stat, _ := os.ReadFile(file)
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 2 && fields[0] != "Z" && fields[2] == strconv.Itoa(group) {
			return true
		}
	}
	return len(stats) == 0 // not Linux: the kernel's word must do
}

func TestProgram(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		then func(program *exec.Cmd)
		is   error
	}{
		"closed": {is: ssh.ErrClosed},
		"frozen": {then: func(p *exec.Cmd) { _ = unix.Kill(-p.Process.Pid, unix.SIGSTOP) }, is: ssh.ErrSilent},
		"killed": {then: func(p *exec.Cmd) { _ = unix.Kill(-p.Process.Pid, unix.SIGKILL) }, is: ssh.ErrDisconnected},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := listening(t, fault{})
			program := relay(t, addr)
			c := config()
			c.Liveness.Silence = 2 * s
			client, err := ssh.DialProgram(t.Context(), program, "behind", c)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := client.Command("echo hello").Output(t.Context()); err != nil || string(out) != "hello\n" {
				t.Errorf("%q, %v", out, err)
			}
			began := time.Now()
			if row.then != nil {
				row.then(program)
				if err := client.Command("say part").Run(t.Context()); !errors.Is(err, row.is) {
					t.Error(err)
				}
			}
			_ = client.Close()
			if took := time.Since(began); took > client.Bound().Silence+20*s {
				t.Errorf("after %v", took)
			}
			if err := client.Err(); !errors.Is(err, row.is) {
				t.Error(err)
			}
			gone(t, program.Process.Pid)
		})
	}
}

func TestProgramFaults(t *testing.T) {
	t.Parallel()
	_, err := ssh.DialProgram(t.Context(), exec.Command(filepath.Join(t.TempDir(), "none")), "behind", config())
	var e *ssh.Error
	if !errors.As(err, &e) || e.Phase != ssh.Connect || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "starting") {
		t.Error(err)
	}
	_, err = ssh.DialProgram(t.Context(), exec.Command("/bin/sh", "-c", "exit 1"), "behind", config())
	if !errors.As(err, &e) || e.Phase != ssh.Handshake || !errors.Is(err, ssh.ErrDisconnected) {
		t.Error(err)
	}
	c := config()
	c.Budgets.Handshake = s / 2
	silent := exec.Command("/bin/sh", "-c", "sleep 100; :")
	_, err = ssh.DialProgram(t.Context(), silent, "behind", c)
	if !errors.As(err, &e) || e.Phase != ssh.Handshake || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	gone(t, silent.Process.Pid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ssh.DialProgram(ctx, exec.Command("/bin/sh"), "behind", c); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := ssh.DialProgram(t.Context(), exec.Command("/bin/sh"), "behind", ssh.Config{HostKey: xssh.InsecureIgnoreHostKey()}); err == nil {
		t.Error("no user")
	}
}
