//go:build linux

package notice

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const patience = 30 * time.Second

// startBus starts a private dbus-daemon, and returns what ends it.
func startBus(t *testing.T, socket string) (end func()) {
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

// manager is a stand-in for logind: of it as much as a delayed shutdown takes.
type manager struct {
	t      *testing.T
	conn   *dbus.Conn
	locks  chan *lock // that were given
	refuse bool
	going  bool
}

// lock is a lock that was given: a pipe, of which who holds the lock has the write
// end too.
type lock struct{ read, write *os.File }

// startLogind puts a stand-in on the bus.
func startLogind(t *testing.T, socket string, m *manager) *manager {
	t.Helper()
	conn, err := dbus.Connect("unix:path=" + socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m.t, m.conn, m.locks = t, conn, make(chan *lock, 16)
	for _, export := range []error{conn.Export(m, loginPath, loginFace), conn.Export(properties{m}, loginPath, "org.freedesktop.DBus.Properties")} {
		if export != nil {
			t.Fatal(export)
		}
	}
	m.own()
	return m
}

func (m *manager) own() {
	m.t.Helper()
	if got, err := m.conn.RequestName(login1, dbus.NameFlagDoNotQueue); err != nil || got != dbus.RequestNameReplyPrimaryOwner {
		m.t.Fatalf("%v, %v", got, err)
	}
}

// Inhibit gives a lock: the write end of a pipe, as logind's is.
func (m *manager) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	if what != "shutdown" || who != "lifeline" || why == "" || mode != "delay" {
		m.t.Errorf("Inhibit(%q, %q, %q, %q)", what, who, why, mode)
	}
	if m.refuse {
		return 0, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"no"})
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	fd := w.Fd()
	m.locks <- &lock{r, w}
	return dbus.UnixFD(fd), nil
}

type properties struct{ *manager }

// Get answers for the two properties that are asked for.
func (p properties) Get(_, name string) (dbus.Variant, *dbus.Error) {
	if name == "PreparingForShutdown" {
		return dbus.MakeVariant(p.going), nil
	}
	return dbus.MakeVariant(uint64(3 * time.Second / time.Microsecond)), nil
}

func (m *manager) say(down bool) {
	m.t.Helper()
	if err := m.conn.Emit(loginPath, loginFace+"."+goingDown, down); err != nil {
		m.t.Fatal(err)
	}
}

// lock waits for the next lock that is taken.
func (m *manager) lock() *lock {
	m.t.Helper()
	select {
	case l := <-m.locks:
		m.t.Cleanup(func() { l.read.Close(); l.write.Close() })
		return l
	case <-time.After(patience):
		m.t.Fatal("no lock was taken")
		return nil
	}
}

// released waits for the end of a lock, whose other end has come over.
func (l *lock) released(t *testing.T) {
	t.Helper()
	l.write.Close()
	if err := l.read.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.read.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the lock is still held: %v", err)
	}
}

func (l *lock) held(t *testing.T) {
	t.Helper()
	l.write.Close()
	if err := l.read.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.read.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the lock is not held: %v", err)
	}
}

// listener runs a Logind until the test ends.
type listener struct {
	going   chan time.Duration // a notice came
	goOn    chan struct{}      // what must be done is done
	said    chan error
	changed chan struct{}
}

func listenTo(t *testing.T, socket string, wanted func() bool) *listener {
	l := &listener{going: make(chan time.Duration, 16), goOn: make(chan struct{}), said: make(chan error, 16), changed: make(chan struct{}, 1)}
	logind := &Logind{Address: "unix:path=" + socket, Said: func(err error) { l.said <- err },
		Going: func(ctx context.Context, most time.Duration) {
			l.going <- most
			select {
			case <-l.goOn:
			case <-ctx.Done():
			}
		}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- logind.Run(ctx, wanted, l.changed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

func always() bool { return true }

// next returns what comes on a channel within reason.
func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("it did not come")
		panic("unreachable")
	}
}

// The machine waits until what must be done is done; called off, all is as before.
func TestShutdown(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	startBus(t, socket)
	m := startLogind(t, socket, &manager{})
	l := listenTo(t, socket, always)
	lock := m.lock()
	if err := next(t, l.said); err != nil {
		t.Errorf("%v", err)
	}
	m.say(true)
	if most := next(t, l.going); most != 3*time.Second {
		t.Errorf("systemd is said to wait %v", most)
	}
	lock.held(t)
	l.goOn <- struct{}{}
	lock.released(t)
	m.say(false)
	m.lock()
}

// What hangs does not keep the machine from going.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	startBus(t, socket)
	m := startLogind(t, socket, &manager{})
	l := listenTo(t, socket, always)
	lock := m.lock()
	m.say(true)
	next(t, l.going)
	lock.released(t) // nobody says that it is done
}

// The bus is started later, restarted, and logind too.
func TestBusRestarts(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	l := listenTo(t, socket, always)
	if err := next(t, l.said); err == nil || !strings.Contains(err.Error(), "no notice") {
		t.Errorf("without a bus: %v", err)
	}
	end := startBus(t, socket)
	m := startLogind(t, socket, &manager{})
	first := m.lock()
	if err := next(t, l.said); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := m.conn.ReleaseName(login1); err != nil {
		t.Fatal(err)
	}
	m.own()
	second := m.lock()
	first.released(t)
	end()
	second.released(t)
	if err := next(t, l.said); err == nil {
		t.Error("the end of the bus is not told")
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	startBus(t, socket)
	m = startLogind(t, socket, &manager{})
	m.lock()
	m.say(true)
	next(t, l.going)
	l.goOn <- struct{}{}
}

// A shutdown that began before the agent listens is one.
func TestShutdownUnderWay(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	startBus(t, socket)
	m := startLogind(t, socket, &manager{going: true})
	l := listenTo(t, socket, always)
	lock := m.lock()
	next(t, l.going)
	l.goOn <- struct{}{}
	lock.released(t)
}

// Without the lock there is still a notice; and nothing is asked of systemd while
// a notice would be of no use.
func TestRefusedAndUnwanted(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	startBus(t, socket)
	m := startLogind(t, socket, &manager{refuse: true})
	want := make(chan bool, 1)
	want <- false
	last := false
	l := listenTo(t, socket, func() bool {
		select {
		case last = <-want:
		default:
		}
		return last
	})
	want <- true
	l.changed <- struct{}{}
	if err := next(t, l.said); err == nil || !strings.Contains(err.Error(), "does not wait") {
		t.Errorf("%v", err)
	}
	m.say(true)
	next(t, l.going)
	l.goOn <- struct{}{}
	want <- false
	l.changed <- struct{}{}
	if len(m.locks) != 0 {
		t.Error("a lock was taken")
	}
}
