//go:build linux

package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// watcher is an agent whose findings the test makes.
type watcher struct {
	mu   sync.Mutex
	now  *state.State
	next chan struct{}
	state.Doings
	slow func([]state.Act) // called by SetActs first; nil calls nobody
}

func newWatcher() *watcher {
	return &watcher{now: &state.State{Seq: 1}, next: make(chan struct{})}
}

func (w *watcher) State() *state.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *watcher) Wait(ctx context.Context, seq uint64) (*state.State, error) {
	for {
		w.mu.Lock()
		now, next := w.now, w.next
		w.mu.Unlock()
		if now.Seq > seq {
			return now, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *watcher) SetActs(now state.Doings) {
	if slow := w.slow; slow != nil {
		slow(now.Acts)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Doings = now
}

func (w *watcher) publish(findings ...state.Finding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = &state.State{Seq: w.now.Seq + 1, Findings: findings}
	close(w.next)
	w.next = make(chan struct{})
}

// stage is a machine near whose connections to one far away the Guard may cut.
type stage struct {
	t         *testing.T
	near, far *lab.Host
	conns     []net.Conn // of near
	theirs    []net.Conn
	watcher   *watcher
	guard     *Guard
	audit     string
	told      chan state.Act
}

// set builds a stage with n connections, and no policy.
func set(t *testing.T, n int) *stage {
	t.Helper()
	l := lab.New(t)
	s := &stage{t: t, near: l.Host("near"), far: l.Host("far"), watcher: newWatcher(), audit: filepath.Join(t.TempDir(), "audit.jsonl"), told: make(chan state.Act, 1000)}
	l.Wire(s.near, "10.77.1.1/24", s.far, "10.77.1.2/24")
	s.conns, s.theirs = connect(t, s.near, s.far, "10.77.1.2:8080", n)
	s.begin()
	return s
}

// begin starts the Guard, and again one that knows only what was written down.
func (s *stage) begin() {
	of, err := node.ParseNamespaces(s.near.Path())
	if err != nil {
		s.t.Fatal(err)
	}
	s.guard = New(Options{Agent: s.watcher, Audit: s.audit, Of: of, Told: func(a state.Act) { s.told <- a }})
	s.guard.self = 0 // the connections are of this process
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	g := s.guard
	go func() { ended <- g.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, g.Close()); err != nil {
			s.t.Error(err)
		}
	})
}

func connect(t *testing.T, from, to *lab.Host, addr string, n int) (near, far []net.Conn) {
	t.Helper()
	l := to.Listen("tcp", addr)
	t.Cleanup(func() { l.Close() })
	err := from.Do(func() error {
		for range n {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			d, err := l.Accept()
			if err != nil {
				return err
			}
			t.Cleanup(func() { d.Close() })
			near, far = append(near, c), append(far, d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// silent is the finding that far is silent.
func (s *stage) silent(change ...func(*state.Finding)) state.Finding {
	var netns unix.Stat_t
	if err := unix.Stat(s.near.Path(), &netns); err != nil {
		s.t.Fatal(err)
	}
	f := state.Finding{ID: "S001 peer=10.77.1.2", Times: 1, First: time.Now(), Last: time.Now(), Count: len(s.conns),
		Finding: verdict.Finding{Code: "S001", Severity: verdict.Fail, Title: "10.77.1.2 is silent",
			Subject:  verdict.Values{{Key: "peer", V: "10.77.1.2"}, {Key: "netns", V: uint32(netns.Ino)}, {Key: "count", V: len(s.conns)}},
			Evidence: verdict.Values{{Key: "last_ack_seconds", V: 0.0}}}}
	for _, c := range change {
		c(&f)
	}
	return f
}

func may(perSecond int) *policy.Policy {
	return &policy.Policy{Cut: &policy.Cut{On: []string{"S001"}, PerSecond: perSecond}}
}

// ended waits for what came of the next act.
func (s *stage) ended() state.Act {
	s.t.Helper()
	again := time.NewTicker(500 * time.Millisecond) // States come on
	defer again.Stop()
	for late := time.After(30 * time.Second); ; {
		select {
		case a := <-s.told:
			if a.Ended != nil {
				return a
			}
		case <-again.C:
			s.watcher.publish(s.watcher.State().Findings...)
		case <-late:
			s.t.Fatal("no act came")
		}
	}
}

// quiet waits until nothing was done with the States that are there.
func (s *stage) quiet() {
	s.t.Helper()
	time.Sleep(300 * time.Millisecond) // that something never comes cannot be waited for
	if len(s.told) > 0 {
		s.t.Fatalf("an act came: %+v", <-s.told)
	}
}

// alive counts the connections of near that were not cut.
func (s *stage) alive() (n int) {
	for _, c := range s.conns {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			s.t.Fatal(err)
		}
		var said error
		if err := raw.Read(func(fd uintptr) bool {
			_, _, said = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_DONTWAIT)
			return true
		}); err != nil {
			s.t.Fatal(err)
		}
		if said == unix.EAGAIN {
			n++
		} else if said != unix.ECONNABORTED {
			s.t.Fatalf("a connection ended with %v", said)
		}
	}
	return n
}

// written are the phases in the audit log.
func (s *stage) written() (phases []string) {
	text, err := os.ReadFile(s.audit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var l struct{ Phase, Act, By string }
		if err := json.Unmarshal(line, &l); err != nil {
			s.t.Fatal(err)
		}
		phases = append(phases, l.Phase+" "+l.Act+" "+l.By)
	}
	return phases
}
