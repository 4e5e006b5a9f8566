//go:build linux

// Package lab builds hosts out of network namespaces, wires them together,
// kills them without a word, and takes them apart, even those of a run that
// crashed. It needs root and the programs ip and nsenter. Tests begin with New,
// programs with Run.
//
// Everything happens in namespaces of its own; the machine's own interfaces,
// routes and rules are never touched. Names in /run/netns are
// lifeline-PID-LAB-HOST, so one may look around with `ip netns exec`.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/lifeline-go/lifeline/internal/need"
	"golang.org/x/sys/unix"
)

const (
	namespaces  = "/run/netns/"
	directories = "/run/"
	prefix      = "lifeline-"
)

// T is who hears that something could not be built: a testing.TB, or a program
// that called Run. Fatalf and Skipf must not return.
type T interface {
	need.T
	Cleanup(func())
}

// Lab is some hosts and the wires between them. Its methods and those of its
// hosts that return no error end the test, or the function that Run was given,
// when they fail; they must be called on its goroutine.
type Lab struct {
	t     T
	name  string // prefix of the names of its namespaces
	room  *Host  // where the switches stand; nil until there is a wire
	dir   string // of Dir; empty until there is one
	wires int
	etcs  int
}

// labs counts the labs of this process, so that tests may run in parallel.
var labs atomic.Int64

// programs is what every lab is built with.
var programs = []string{"ip", "nsenter"}

// New returns an empty lab that is taken apart when the test ends. It skips
// the test where namespaces cannot be made. What labs of dead processes left
// behind is removed first.
func New(t T) *Lab {
	t.Helper()
	need.Root(t)
	for _, name := range programs {
		need.Program(t, name)
	}
	return empty(t)
}

func empty(t T) *Lab {
	t.Helper()
	if err := removeLeftovers(); err != nil {
		t.Fatalf("lab: leftovers of an earlier run: %v", err)
	}
	return &Lab{t: t, name: fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), labs.Add(1))}
}

// Host returns a new host of which only the loopback interface is there, and
// up. The name need only be unique in this lab.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	h := &Host{lab: l, name: name, netns: l.name + name}
	l.t.Cleanup(func() {
		if err := remove(h.netns); err != nil {
			l.t.Fatalf("lab: %v", err)
		}
	})
	l.ip(nil, "netns", "add", h.netns)
	l.ip(h, "link", "set", "lo", "up")
	return h
}

// ip runs the program ip on h, or where we are when h is nil. It is not ip -n,
// which fails where / is not a mount point, as in a chroot.
func (l *Lab) ip(h *Host, args ...string) {
	l.t.Helper()
	cmd := exec.Command("ip", args...)
	if h != nil {
		cmd = h.Command("ip", args...)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("lab: ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// removeLeftovers removes the namespaces and directories of labs whose process
// is gone. A process of another PID namespace looks gone too; labs that share
// /run/netns must share that.
func removeLeftovers() error {
	if err := leftovers(namespaces, remove); err != nil {
		return err
	}
	return leftovers(directories, func(name string) error { return os.RemoveAll(directories + name) })
}

// leftovers calls remove for what is in a directory and of a dead process.
func leftovers(in string, remove func(name string) error) error {
	entries, err := os.ReadDir(in)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		rest, ours := strings.CutPrefix(entry.Name(), prefix)
		owner, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(owner)
		if !ours || err != nil || pid <= 0 || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		if err := remove(entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

// remove ends the processes in a namespace, which would keep it alive, and
// removes it. One that is gone already is none to complain about: another test
// binary may clean up at the same time.
func remove(netns string) error {
	pids, _ := processes(netns) // an error says that it is gone
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	out, err := exec.Command("ip", "netns", "del", netns).CombinedOutput()
	if _, gone := os.Lstat(namespaces + netns); err != nil && !os.IsNotExist(gone) {
		return fmt.Errorf("ip netns del %s: %w: %s", netns, err, out)
	}
	return nil
}
