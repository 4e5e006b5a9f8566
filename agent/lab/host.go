//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds Dial: paths in a lab have no latency of their own.
const dialTimeout = 10 * time.Second

// Host is a network namespace. Where a method has no error to return, a
// failure ends the test.
type Host struct {
	lab   *Lab
	name  string
	netns string
	ports []string // of the switches in the lab's room, one for each interface
}

// Path returns where the namespace can be entered: a file of /run/netns.
func (h *Host) Path() string { return namespaces + h.netns }

// Netns returns the inode of the namespace, the number that the kernel shows
// in /proc/PID/ns/net and in sock_diag's cookies of a namespace.
func (h *Host) Netns() uint32 {
	h.lab.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(h.Path(), &st); err != nil {
		h.lab.t.Fatalf("lab: %s: %v", h.Path(), err)
	}
	return uint32(st.Ino)
}

// Route sends packets to dst, a prefix or "default", by way of the address via.
func (h *Host) Route(dst, via string) {
	h.lab.t.Helper()
	h.lab.ip(h, "route", "add", dst, "via", via)
}

// Sysctl sets a kernel setting of the namespace, such as net.ipv4.tcp_retries2.
func (h *Host) Sysctl(key, value string) {
	h.lab.t.Helper()
	err := h.Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0)
	})
	if err != nil {
		h.lab.t.Fatalf("lab: %s: %s=%s: %v", h.name, key, value, err)
	}
}

// Command returns a command that will run on this host. It is killed when the
// lab is taken apart; the caller must Wait for what it starts.
//
// A crash leaves it to the next lab to kill it: Pdeathsig would end it with the
// thread that started it, which may be one that Do throws away.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + h.Path(), "--", name}, args...)...)
}

// Run runs a command on this host to its end and returns what it printed. The
// test ends when the command fails.
func (h *Host) Run(name string, args ...string) string {
	h.lab.t.Helper()
	out, err := h.Command(name, args...).CombinedOutput()
	if err != nil {
		h.lab.t.Fatalf("lab: %s: %s %s: %v: %s", h.name, name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Do calls f on a thread that is in this host's namespace: sockets and files of
// /proc/sys and /proc/thread-self/net that f opens are the host's. Goroutines
// that f starts are not on that thread. The thread is thrown away afterwards.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		ns, err := os.Open(h.Path())
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering %s: %w", h.Path(), err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own that ends with it, and that is not
// the main thread: /proc/self is what the main thread sees, and the runtime
// parks that one instead of ending it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("left by runtime.Goexit") // by t.Fatal, say
		defer func() { done <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			err = onThread(f) // cannot come here again: this goroutine keeps the main thread
			return
		}
		err = f()
	}()
	return <-done
}

// Listen listens on this host until the test ends.
//
// Like Dial it relies on package net to make the socket on the thread of its
// caller, which it does for addresses that need no look-up.
func (h *Host) Listen(network, addr string) net.Listener {
	h.lab.t.Helper()
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = net.Listen(network, addr)
		return err
	})
	if err != nil {
		h.lab.t.Fatalf("lab: %s: %v", h.name, err)
	}
	h.lab.t.Cleanup(func() { ln.Close() })
	return ln
}

// Dial connects from this host; the connection is closed when the test ends.
// The address must be a literal IP address with a port.
func (h *Host) Dial(network, addr string) net.Conn {
	h.lab.t.Helper()
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: dialTimeout}).Dial(network, addr)
		return err
	})
	if err != nil {
		h.lab.t.Fatalf("lab: %s: %v", h.name, err)
	}
	h.lab.t.Cleanup(func() { conn.Close() })
	return conn
}
