//go:build linux

package lab

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asksNames) != "":
		lookNamesUp()
		return
	case os.Getenv(playsNames) != "":
		playNames(os.Getenv(playsNames))
		return
	}
	// These tests wait for the kernel's timers; more of them than there are
	// processors can do that at once.
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err)
	}
	leakcheck.Main(m)
}

// two returns a lab of two hosts with IPv4 and IPv6 between them.
func two(t *testing.T) (a, b *Host) {
	t.Helper()
	l := New(t)
	a, b = l.Host("a"), l.Host("b")
	l.Wire(a, "10.77.1.1/24", b, "10.77.1.2/24")
	l.Wire(a, "fd77::1/64", b, "fd77::2/64")
	return a, b
}

func TestHostsReachEachOther(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	for _, addr := range []string{"10.77.1.2:80", "[fd77::2]:80"} {
		ln := b.Listen("tcp", addr)
		conn := a.Dial("tcp", addr)
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		got, err := io.ReadAll(accepted)
		accepted.Close()
		if err != nil || string(got) != "hello" {
			t.Errorf("%s: got %q, %v", addr, got, err)
		}
	}
}

func TestRouter(t *testing.T) {
	t.Parallel()
	l := New(t)
	client, router, server := l.Host("client"), l.Host("router"), l.Host("server")
	l.Wire(client, "10.77.1.2/24", router, "10.77.1.1/24")
	l.Wire(server, "10.77.2.2/24", router, "10.77.2.1/24")
	client.Route("default", "10.77.1.1")
	server.Route("10.77.1.0/24", "10.77.2.1")
	router.Sysctl("net.ipv4.ip_forward", "1")
	server.Listen("tcp", "10.77.2.2:80")
	client.Dial("tcp", "10.77.2.2:80")
}

func TestUnplugIsSilent(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	ln := b.Listen("tcp", "10.77.1.2:80")
	conn := a.Dial("tcp", "10.77.1.2:80")
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()

	b.Unplug()
	if err := a.Do(func() error { return running("eth0", "eth1") }); err != nil {
		t.Errorf("the peer was told: %v", err)
	}
	if _, err := conn.Write([]byte("lost")); err != nil {
		t.Errorf("write to a dead host: %v, want none: nobody knows yet", err)
	}
	got := make([]byte, 4)
	_ = accepted.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := accepted.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an unplugged host read %q, %v", got[:n], err)
	}

	b.Plug()
	_ = accepted.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(accepted, got); err != nil || string(got) != "lost" {
		t.Errorf("after Plug: got %q, %v; want the retransmission", got, err)
	}
}

// Every socket must be made in its host's namespace, whatever thread package
// net chose, and the main thread, which is what /proc/self shows, must never be
// moved.
func TestSocketsAreWhereTheyBelong(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			addr := fmt.Sprintf("10.77.1.2:%d", 8000+i)
			checkNetns(t, b.Listen("tcp", addr).(*net.TCPListener), b)
			checkNetns(t, a.Dial("tcp", addr).(*net.TCPConn), a)
			err := a.Do(func() error {
				if unix.Gettid() == unix.Getpid() {
					return errors.New("Do runs on the main thread")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("the main thread went from %s to %s, %v", before, after, err)
	}
}

func checkNetns(t *testing.T, c interface {
	File() (*os.File, error)
}, h *Host) {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	ns, err := unix.IoctlRetInt(int(f.Fd()), unix.SIOCGSKNS)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(ns)
	var st unix.Stat_t
	if err := unix.Fstat(ns, &st); err != nil || uint32(st.Ino) != h.Netns() {
		t.Errorf("socket in namespace %d, %v; want %d", st.Ino, err, h.Netns())
	}
}

func TestDoReturns(t *testing.T) {
	t.Parallel()
	h := New(t).Host("a")
	broken := errors.New("broken")
	if err := h.Do(func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the function's own error", err)
	}
	if err := h.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("a function that never returned gave no error")
	}
	if err := (&Host{netns: "lifeline-no-such"}).Do(func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such namespace: got %v", err)
	}
}

func TestRunAndSysctl(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	a.Sysctl("net.ipv4.tcp_retries2", "3")
	for h, want := range map[*Host]string{a: "3", b: "15"} {
		if got := strings.TrimSpace(h.Run("cat", "/proc/sys/net/ipv4/tcp_retries2")); got != want {
			t.Errorf("%s: tcp_retries2 is %s, want %s", h.name, got, want)
		}
	}
}

// A crash leaves namespaces and processes in them behind; the next lab removes
// both, and leaves those of labs that are alive alone.
func TestLeftoversAreRemoved(t *testing.T) {
	l := New(t)
	alive := l.Host("alive")

	owner := exec.Command("sleep", "600") // stands for the lab's process
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	left := fmt.Sprintf("%s%d-1-left", prefix, owner.Process.Pid)
	l.ip(nil, "netns", "add", left)
	orphan := exec.Command("nsenter", "--net="+namespaces+left, "sleep", "600")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pids, err := exec.Command("ip", "netns", "pids", left).Output()
		if err == nil && len(pids) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("sleep never came up in %s: %v", left, err)
		}
	}

	New(t)
	if _, err := os.Stat(namespaces + left); err != nil {
		t.Errorf("a live lab's host was removed: %v", err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()

	New(t)
	var signal *exec.ExitError
	if err := orphan.Wait(); !errors.As(err, &signal) {
		t.Errorf("the process left behind ended with %v, want killed", err)
	}
	if _, err := os.Stat(namespaces + left); !os.IsNotExist(err) {
		t.Errorf("%s: %v, want gone", left, err)
	}
	if _, err := os.Stat(alive.Path()); err != nil {
		t.Errorf("a live lab's host was removed: %v", err)
	}
}
