//go:build linux

package notice

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab/logind"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const patience = 30 * time.Second

// listener runs a Logind until the test ends.
type listener struct {
	going   chan time.Duration // a notice came
	goOn    chan struct{}      // what must be done is done
	said    chan error
	waits   chan time.Duration
	changed chan struct{}
	end     func() // tells it to end
}

func listenTo(t *testing.T, socket string, wanted func() bool) *listener {
	l := &listener{going: make(chan time.Duration, 16), goOn: make(chan struct{}), said: make(chan error, 16), waits: make(chan time.Duration, 16), changed: make(chan struct{}, 1)}
	l1 := &Logind{Address: "unix:path=" + socket, Said: func(err error) { l.said <- err }, Waits: func(most time.Duration) { l.waits <- most },
		Going: func(ctx context.Context, most time.Duration) {
			l.going <- most
			select {
			case <-l.goOn:
			case <-ctx.Done():
			}
		}}
	ctx, cancel := context.WithCancel(context.Background())
	l.end = cancel
	ended := make(chan error, 1)
	go func() { ended <- l1.Run(ctx, wanted, l.changed) }()
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
	logind.StartBus(t, socket)
	m := logind.Start(t, socket, &logind.Manager{})
	l := listenTo(t, socket, always)
	lock := m.Lock()
	if err := next(t, l.said); err != nil {
		t.Errorf("%v", err)
	}
	if most := next(t, l.waits); most != 3*time.Second {
		t.Errorf("before a shutdown it is said that systemd would wait %v", most)
	}
	m.Say(true)
	if most := next(t, l.going); most != 3*time.Second {
		t.Errorf("systemd is said to wait %v", most)
	}
	lock.Held(t)
	l.goOn <- struct{}{}
	lock.Released(t)
	m.Say(false)
	m.Lock()
}

// Where systemd waits for ever there is time enough.
func TestShutdownWaitsForEver(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	logind.StartBus(t, socket)
	m := logind.Start(t, socket, &logind.Manager{Delay: -1})
	l := listenTo(t, socket, always)
	lock := m.Lock()
	m.Say(true)
	if most := next(t, l.going); most < time.Hour {
		t.Fatalf("systemd is said to wait %v", most)
	}
	l.goOn <- struct{}{}
	lock.Released(t)
}

// What hangs does not keep the machine from going.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	logind.StartBus(t, socket)
	m := logind.Start(t, socket, &logind.Manager{})
	l := listenTo(t, socket, always)
	lock := m.Lock()
	m.Say(true)
	next(t, l.going)
	lock.Released(t) // nobody says that it is done
}

// A lock that comes when the agent has been told to end is given back.
func TestLockComesLate(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	logind.StartBus(t, socket)
	var l *listener
	started := make(chan struct{})
	m := logind.Start(t, socket, &logind.Manager{Before: func() { <-started; l.end(); time.Sleep(10 * time.Millisecond) }})
	l = listenTo(t, socket, always)
	close(started)
	m.Lock().Released(t)
}

// The bus is started later, restarted, and logind too.
func TestBusRestarts(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	l := listenTo(t, socket, always)
	if err := next(t, l.said); err == nil || !strings.Contains(err.Error(), "no notice") {
		t.Errorf("without a bus: %v", err)
	}
	end := logind.StartBus(t, socket)
	m := logind.Start(t, socket, &logind.Manager{})
	first := m.Lock()
	if err := next(t, l.said); err != nil {
		t.Errorf("%v", err)
	}
	m.Disown()
	m.Own()
	second := m.Lock()
	first.Released(t)
	end()
	second.Released(t)
	if err := next(t, l.said); err == nil {
		t.Error("the end of the bus is not told")
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	logind.StartBus(t, socket)
	m = logind.Start(t, socket, &logind.Manager{})
	m.Lock()
	m.Say(true)
	next(t, l.going)
	l.goOn <- struct{}{}
}

// A shutdown that began before the agent listens is one.
func TestShutdownUnderWay(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	logind.StartBus(t, socket)
	m := logind.Start(t, socket, &logind.Manager{Going: true})
	l := listenTo(t, socket, always)
	lock := m.Lock()
	next(t, l.going)
	l.goOn <- struct{}{}
	lock.Released(t)
}

// Without the lock there is still a notice; and nothing is asked of systemd while
// a notice would be of no use.
func TestRefusedAndUnwanted(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "bus")
	logind.StartBus(t, socket)
	m := logind.Start(t, socket, &logind.Manager{Refuse: true})
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
	m.Say(true)
	next(t, l.going)
	l.goOn <- struct{}{}
	want <- false
	l.changed <- struct{}{}
	if len(m.Locks) != 0 {
		t.Error("a lock was taken")
	}
}
