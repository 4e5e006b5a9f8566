//go:build linux

// Package logind is a stand-in for systemd-logind on a private bus, for tests: of
// it as much as a shutdown takes that somebody delays. The bus is a real
// dbus-daemon.
package logind

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/lifeline-go/lifeline/internal/need"
)

// T is a testing.TB.
type T interface {
	need.T
	Cleanup(func())
	Fatal(args ...any)
	Errorf(format string, args ...any)
}

// Names of logind on the bus.
const (
	name = "org.freedesktop.login1"
	path = "/org/freedesktop/login1"
	face = "org.freedesktop.login1.Manager"
)

const (
	patience     = 30 * time.Second
	defaultDelay = 3 * time.Second
)

// StartBus starts a private dbus-daemon, and returns what ends it.
func StartBus(t T, socket string) (end func()) {
	t.Helper()
	cmd := exec.Command(need.Program(t, "dbus-daemon"), "--nofork", "--session", "--nosyslog", "--print-address", "--address=unix:path="+socket)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it listens now
		t.Fatal(err)
	}
	return end
}

// Manager is a stand-in for logind: of it as much as a delayed shutdown takes.
type Manager struct {
	Refuse bool          // to give locks
	Going  bool          // the machine goes down already
	Delay  time.Duration // InhibitDelayMaxSec; 0 = 3 s, below 0 = infinity

	Before func() // runs before a lock is given; may be nil

	Locks chan *Lock // that were given
	t     T
	conn  *dbus.Conn
}

// Lock is a lock that was given: a pipe, of which who holds the lock has the write
// end too.
type Lock struct{ read, write *os.File }

// Start puts a stand-in on the bus.
func Start(t T, socket string, m *Manager) *Manager {
	t.Helper()
	conn, err := dbus.Connect("unix:path=" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m.t, m.conn, m.Locks = t, conn, make(chan *Lock, 16)
	for _, export := range []error{conn.Export(m, path, face), conn.Export(properties{m}, path, "org.freedesktop.DBus.Properties")} {
		if export != nil {
			t.Fatal(export)
		}
	}
	m.Own()
	return m
}

// Own takes logind's name on the bus.
func (m *Manager) Own() {
	m.t.Helper()
	if got, err := m.conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || got != dbus.RequestNameReplyPrimaryOwner {
		m.t.Fatalf("%v, %v", got, err)
	}
}

// Inhibit gives a lock: the write end of a pipe, as logind's is.
func (m *Manager) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	if what != "shutdown" || who != "lifeline" || why == "" || mode != "delay" {
		m.t.Errorf("Inhibit(%q, %q, %q, %q)", what, who, why, mode)
	}
	if m.Refuse {
		return 0, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"no"})
	}
	if m.Before != nil {
		m.Before()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	fd := w.Fd()
	m.Locks <- &Lock{r, w}
	return dbus.UnixFD(fd), nil
}

type properties struct{ *Manager }

// Get answers for the two properties that are asked for.
func (p properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	if name == "PreparingForShutdown" {
		return dbus.MakeVariant(p.Going), nil
	}
	if p.Delay < 0 {
		return dbus.MakeVariant(uint64(math.MaxUint64)), nil
	}
	return dbus.MakeVariant(uint64(cmp.Or(p.Delay, defaultDelay) / time.Microsecond)), nil
}

// Say tells all that the machine goes down, or that it was called off.
func (m *Manager) Say(down bool) {
	m.t.Helper()
	if err := m.conn.Emit(path, face+".PrepareForShutdown", down); err != nil {
		m.t.Fatal(err)
	}
}

// Lock waits for the next lock that is taken.
func (m *Manager) Lock() *Lock {
	m.t.Helper()
	select {
	case l := <-m.Locks:
		m.t.Cleanup(func() { l.read.Close(); l.write.Close() })
		return l
	case <-time.After(patience):
		m.t.Fatal("no lock was taken")
		return nil
	}
}

// Released waits for the end of a lock, whose other end has come over.
func (l *Lock) Released(t T) {
	t.Helper()
	l.write.Close()
	if err := l.read.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.read.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the lock is still held: %v", err)
	}
}

// Held ends the test unless the lock is held, whose other end has come over.
func (l *Lock) Held(t T) {
	t.Helper()
	l.write.Close()
	if err := l.read.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.read.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the lock is not held: %v", err)
	}
}

// Disown gives the name up, as a logind that ends.
func (m *Manager) Disown() {
	m.t.Helper()
	if _, err := m.conn.ReleaseName(name); err != nil {
		m.t.Fatal(err)
	}
}
