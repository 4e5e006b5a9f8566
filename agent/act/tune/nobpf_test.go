package tune

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/internal/need"
)

// without runs f on a thread, thrown away afterwards, that lacks capabilities.
func without(t *testing.T, f func(), capabilities ...uint) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error = errors.New("it did not return")
		defer func() { done <- err }()
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err = unix.Capget(&header, &data[0]); err != nil {
			return
		}
		for _, c := range capabilities {
			data[c/32].Effective &^= 1 << (c % 32)
		}
		if err = unix.Capset(&header, &data[0]); err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Where BPF is refused, sockets are borrowed, and it is said why.
func TestWithoutBPF(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 3)
	m := look(t, true, near)
	dir := place(t)
	no := []uint{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}
	var r Report
	var u UndoReport
	var err, undo, only error
	var tuned values
	without(t, func() {
		_, only = Run(t.Context(), m, established(m), Options{Dir: dir, Way: ByBPF})
		r, err = Run(t.Context(), m, established(m), Options{Dir: dir})
		tuned = optionsOf(t, links[0].near)
		u, undo = Undo(t.Context(), m, UndoOptions{Dir: dir})
	}, no...)
	var needs *act.Error
	if !errors.As(only, &needs) || !errors.Is(only, fs.ErrPermission) || needs.Needs != capabilities {
		t.Errorf("by BPF alone: %v", only)
	}
	if err != nil || len(r.Tuned) != 3 || r.Way != ByLoan || !errors.Is(r.NoBPF, fs.ErrPermission) || tuned != (values{1, 1, 1, 4, 0}) {
		t.Errorf("%v: %v: %+v", tuned, err, r)
	}
	if undo != nil || len(u.Restored) != 3 || u.Way != ByLoan || u.NoBPF == nil {
		t.Errorf("%v: %+v", undo, u)
	}
	if got := optionsOf(t, links[0].near); got != (values{1, 15, 15, 9, 0}) {
		t.Errorf("after the undo: %v", got)
	}
}

// A kernel that will not is told apart from a missing right.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err, is error
		needs   string
	}{
		{unix.EPERM, fs.ErrPermission, "allows it"},
		{fs.ErrNotExist, errors.ErrUnsupported, "Linux 6.1"},
		{unix.ENOMEM, unix.ENOMEM, ""},
	} {
		err := explain(test.err)
		var e *act.Error
		if !errors.Is(err, test.is) || !errors.As(err, &e) || !strings.Contains(e.Needs, test.needs) {
			t.Errorf("%v: %v", test.err, err)
		}
	}
}

// A Multipath TCP connection is left alone, and that is said.
func TestMultipath(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	need.Feature(t, "Multipath TCP", near.Do(func() error { _, err := os.Stat("/proc/sys/net/mptcp/enabled"); return err }))
	ln := far.Listen("tcp", "10.77.1.2:80")
	err := near.Do(func() error {
		dialer := net.Dialer{Timeout: 10 * time.Second}
		dialer.SetMultipathTCP(true)
		c, err := dialer.Dial("tcp", "10.77.1.2:80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		if multi, err := c.(*net.TCPConn).MultipathTCP(); err != nil || !multi {
			return fmt.Errorf("it speaks plain TCP: %w", err)
		}
		p, err := ln.Accept()
		if err == nil {
			t.Cleanup(func() { p.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		m := look(t, false, near, far)
		r, err := Run(t.Context(), m, established(m), Options{Dir: place(t), Way: way})
		if err != nil || len(r.Failed) != 2 || !errors.Is(r.Failed[0].Err, errors.ErrUnsupported) || !strings.Contains(r.Failed[0].Err.Error(), "Multipath") {
			t.Errorf("%v: %v: %+v", way, err, r)
		}
	}
}
