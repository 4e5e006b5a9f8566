//go:build linux

package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/audit"
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
	mu    sync.Mutex
	now   *state.State
	next  chan struct{}
	blind []state.Blind
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

func (w *watcher) SetActs(_ []state.Act, blind []state.Blind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blind = blind
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
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			n++
		} else if !errors.Is(err, unix.ECONNABORTED) {
			s.t.Fatalf("a connection ended with %v", err)
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

// What is silent is cut at the pace of the policy, once, and both is written down.
func TestCut(t *testing.T) {
	t.Parallel()
	s := set(t, 300)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond) // what was acknowledged last is older than the finding
	s.guard.SetPolicy(may(200))
	start := time.Now()
	s.watcher.publish(s.silent())
	a := s.ended()
	if a.Done != 300 || a.Left != 0 || a.Error != "" || a.By != "policy" || a.Why != "S001 peer=10.77.1.2" || !strings.HasPrefix(a.Target, "300 connections to 10.77.1.2 of guard.test") {
		t.Errorf("%+v", a)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("300 at 200 a second took %v", took)
	}
	if n := s.alive(); n > 0 {
		t.Errorf("%d were not cut", n)
	}
	if w := s.written(); !slices.Equal(w, []string{"begins cut policy", "ended cut policy"}) {
		t.Errorf("written: %q", w)
	}
	s.conns, s.theirs = nil, nil
	s.watcher.publish(s.silent())
	s.watcher.publish()
	s.watcher.publish(s.silent())
	s.quiet() // not twice for the same
}

// The first sign of life ends it.
func TestSignOfLife(t *testing.T) {
	t.Parallel()
	s := set(t, 200)
	s.guard.SetPolicy(may(100))
	time.Sleep(250 * time.Millisecond)
	s.watcher.publish(s.silent())
	if a := <-s.told; a.Ended != nil {
		t.Fatalf("it did not begin: %+v", a)
	}
	for s.guard.Acts()[0].Done == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.theirs[199].Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if a := s.ended(); a.Done == 0 || a.Done >= 200 || a.Done+a.Left != 200 || !strings.Contains(a.Error, "sign of life") {
		t.Errorf("%+v", a)
	}
}

// What does not stand by itself, is not sure, comes and goes, or is not allowed is
// left alone.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	s := set(t, 5)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	end := time.Now()
	for name, change := range map[string]func(*state.Finding){
		"explained": func(f *state.Finding) { f.Cause = "S005" },
		"unsure":    func(f *state.Finding) { f.Severity = verdict.Warn },
		"over":      func(f *state.Finding) { f.Resolved = &end },
		"another":   func(f *state.Finding) { f.Code = "S002" },
	} {
		s.guard.SetPolicy(may(0))
		s.watcher.publish(s.silent(change))
		if s.quiet(); s.alive() != 5 {
			t.Errorf("%s: it was cut", name)
		}
	}
	s.guard.SetPolicy(&policy.Policy{})
	s.watcher.publish(s.silent())
	s.quiet()
	s.guard.SetPolicy(may(0))
	flapping := func(f *state.Finding) { f.Flapping, f.Times = true, 3 }
	s.watcher.publish(s.silent(flapping))
	if a := s.ended(); a.Done != 0 || a.Left != 5 || !strings.Contains(a.Outcome, "comes and goes") {
		t.Errorf("flapping: %+v", a)
	}
	s.watcher.publish(s.silent(flapping))
	s.watcher.publish(s.silent(flapping, func(f *state.Finding) { f.Times++ }))
	s.quiet() // it is said once
	s.watcher.publish(s.silent(func(f *state.Finding) {
		f.Subject = append(f.Subject, verdict.Value{Key: "port", V: 8080})
	}))
	if a := s.ended(); a.Done != 0 || !strings.Contains(a.Outcome, "not about one peer") || s.alive() != 5 {
		t.Errorf("clients of a port: %+v", a)
	}
}

// Connections of programs that the policy leaves out are not touched.
func TestOnlyWhatIsWatched(t *testing.T) {
	t.Parallel()
	s := set(t, 5)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	for _, change := range []func(*policy.Policy){
		func(p *policy.Policy) { p.Ignore.Processes = []string{"guard.test"} },
		func(p *policy.Policy) { p.Watch.Processes = []string{"nginx"} },
	} {
		p := may(0)
		change(p)
		s.guard.SetPolicy(p)
		s.watcher.publish(s.silent(func(f *state.Finding) { f.Times = int(s.watcher.State().Seq) }))
		s.quiet()
	}
	if s.alive() != 5 {
		t.Error("it was cut")
	}
}

// When nobody answers it may be this machine's own link: nothing is cut until
// another peer answers.
func TestOwnLink(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	s := &stage{t: t, near: l.Host("near"), far: l.Host("far"), watcher: newWatcher(), audit: filepath.Join(t.TempDir(), "audit.jsonl"), told: make(chan state.Act, 1000)}
	other := l.Host("other")
	l.Wire(s.near, "10.77.1.1/24", s.far, "10.77.1.2/24")
	l.Wire(s.near, "10.77.3.1/24", other, "10.77.3.2/24")
	for _, dev := range []string{"eth0", "eth1"} { // else the second is not found, and its connections have an error
		s.near.Sysctl("net.ipv4.neigh."+dev+".base_reachable_time_ms", "600000")
	}
	s.conns, _ = connect(t, s.near, s.far, "10.77.1.2:8080", 5)
	_, back := connect(t, s.near, other, "10.77.3.2:8080", 1)
	s.begin()
	s.far.Unplug()
	other.Unplug()
	time.Sleep(250 * time.Millisecond)
	s.guard.SetPolicy(may(0))
	s.watcher.publish(s.silent())
	if a := s.ended(); a.Done != 0 || a.Left != 5 || !strings.Contains(a.Outcome, node.ErrOwnLink.Error()) {
		t.Errorf("%+v", a)
	}
	other.Plug()
	if _, err := back[0].Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if a := s.ended(); a.Done != 5 || a.Error != "" {
		t.Errorf("it is not cut when another answers: %+v", a)
	}
}

// What cannot be written down is not done, and that is said.
func TestNothingUnwritten(t *testing.T) {
	t.Parallel()
	s := set(t, 5)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	if err := os.Mkdir(s.audit, 0o700); err != nil { // no file can be there
		t.Fatal(err)
	}
	s.guard.SetPolicy(may(0))
	s.watcher.mu.Lock()
	blind := fmt.Sprint(s.watcher.blind)
	s.watcher.mu.Unlock()
	if !strings.Contains(blind, "nothing is done") {
		t.Errorf("blind: %s", blind)
	}
	s.watcher.publish(s.silent())
	if a := s.ended(); a.Done != 0 || a.Left != 5 || !strings.Contains(a.Error, "audit log") || s.alive() != 5 {
		t.Errorf("%+v", a)
	}
}

// A policy that takes its word back ends a cut that is under way, and that of an
// agent that was killed is known.
func TestPolicyChanges(t *testing.T) {
	t.Parallel()
	s := set(t, 200)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	s.guard.SetPolicy(may(50))
	s.watcher.publish(s.silent())
	for a := <-s.told; a.Ended != nil; a = <-s.told {
	}
	if acts, err := audit.Read(s.audit); err != nil || len(acts) != 1 || acts[0].Outcome != audit.Interrupted { // as if it had been killed now
		t.Errorf("%+v, %v", acts, err)
	}
	s.guard.SetPolicy(&policy.Policy{})
	if a := s.ended(); a.Left == 0 || a.Done+a.Left != 200 || a.Error != errForbidden.Error() {
		t.Errorf("%+v", a)
	}
	s.guard.SetPolicy(may(1000))
	s.watcher.publish(s.silent())
	if a := s.ended(); a.Error != "" || a.Left != 0 || s.alive() != 0 {
		t.Errorf("%+v", a)
	}
}

// By hand it takes two steps, of which the second works once.
func TestPlan(t *testing.T) {
	t.Parallel()
	s := set(t, 50)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	held := func(f *state.Finding) { f.Flapping, f.Times = true, 3 } // so that the policy does not do it by itself
	f := s.silent(held)
	var refused *state.Refusal
	if _, err := s.guard.Plan(t.Context(), "cut", f.ID); err == nil || errors.As(err, &refused) {
		t.Errorf("no such finding: %v", err)
	}
	s.watcher.publish(f)
	if _, err := s.guard.Plan(t.Context(), "cut", f.ID); !errors.As(err, &refused) || refused.Stale {
		t.Errorf("without a policy: %v", err)
	}
	s.guard.SetPolicy(may(1000))
	s.watcher.publish(f)
	if a := s.ended(); !strings.Contains(a.Outcome, "comes and goes") {
		t.Fatalf("%+v", a)
	}
	if _, err := s.guard.Plan(t.Context(), "evac", f.ID); err == nil {
		t.Error("any act can be asked for")
	}
	one, err := s.guard.Plan(t.Context(), "cut", f.ID)
	if err != nil || one.Count != 50 || !strings.Contains(one.Text, "Would cut 50 connections to 10.77.1.2 of guard.test, at 1000/s, in 50 ms.") {
		t.Fatalf("%+v, %v", one, err)
	}
	s.guard.SetPolicy(&policy.Policy{})
	if _, err := s.guard.Do(t.Context(), one.ID); !errors.As(err, &refused) || refused.Stale || s.alive() != 50 {
		t.Errorf("the policy does not allow it any more: %v", err)
	}
	s.guard.SetPolicy(may(1000))
	two, err := s.guard.Plan(t.Context(), "cut", f.ID)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.guard.Do(t.Context(), two.ID)
	if err != nil || a.Done != 50 || a.By != "page" || a.Ended == nil || s.alive() != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, id := range []string{two.ID, one.ID, "", "x"} {
		if _, err := s.guard.Do(t.Context(), id); !errors.As(err, &refused) || !refused.Stale {
			t.Errorf("done again: %v", err)
		}
	}
	if w := s.written(); !slices.Equal(w[len(w)-2:], []string{"begins cut page", "ended cut page"}) {
		t.Errorf("%q", w)
	}
}

// A plan is of no use when its time or its finding is over.
func TestStalePlan(t *testing.T) {
	t.Parallel()
	s := set(t, 5)
	var refused *state.Refusal
	held := func(f *state.Finding) { f.Flapping, f.Times = true, 3 }
	s.guard.SetPolicy(may(0))
	for name, spoil := range map[string]func(*planned){
		"late":       func(p *planned) { p.Expires = time.Now().Add(-time.Second) },
		"over":       func(*planned) { s.watcher.publish() },
		"came again": func(*planned) { s.watcher.publish(s.silent(held, func(f *state.Finding) { f.Times++ })) },
	} {
		s.watcher.publish(s.silent(held))
		p, err := s.guard.Plan(t.Context(), "cut", "S001 peer=10.77.1.2")
		if err != nil {
			t.Fatal(err)
		}
		s.guard.plans.mu.Lock()
		spoil(&s.guard.plans.all[len(s.guard.plans.all)-1])
		s.guard.plans.mu.Unlock()
		if _, err := s.guard.Do(t.Context(), p.ID); !errors.As(err, &refused) || !refused.Stale || s.alive() != 5 {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.watcher.publish(s.silent(held))
	first := ""
	for range mostPlans + 1 {
		p, err := s.guard.Plan(t.Context(), "cut", "S001 peer=10.77.1.2")
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = p.ID
		}
	}
	if _, err := s.guard.Do(t.Context(), first); err == nil || len(s.guard.plans.all) != mostPlans {
		t.Errorf("%d plans are kept", len(s.guard.plans.all))
	}
}

// Without a policy that allows it no notice moves anything.
func TestNoEvac(t *testing.T) {
	t.Parallel()
	w := newWatcher()
	g := New(Options{Agent: w, Audit: filepath.Join(t.TempDir(), "audit.jsonl")})
	defer g.Close()
	if _, err := g.Evac(t.Context(), "a test", 0); !errors.Is(err, ErrNoEvac) || g.MayEvac() || len(g.Acts()) > 0 {
		t.Errorf("%v", err)
	}
}
