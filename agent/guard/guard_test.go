//go:build linux

package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

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
	if got := s.watcher.tally(); !slices.Equal(got, []string{"cut done 1 300"}) {
		t.Errorf("counted: %q", got)
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
	if got := s.watcher.tally(); !slices.Equal(got, []string{"cut left_alone 2 0"}) {
		t.Errorf("counted: %q", got)
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
	blind := func() string {
		s.watcher.mu.Lock()
		defer s.watcher.mu.Unlock()
		return fmt.Sprint(s.watcher.Blind)
	}
	if text := blind(); !strings.Contains(text, "nothing is done") {
		t.Errorf("blind: %s", text)
	}
	s.watcher.publish(s.silent())
	a := s.ended()
	if a.Done != 0 || a.Left != 5 || !strings.Contains(a.Error, "audit log") || s.alive() != 5 {
		t.Errorf("%+v", a)
	}
	again, err := s.guard.begin(state.Act{Act: "cut", By: "policy", Why: a.Why})
	if err == nil || again.ID != a.ID || len(s.guard.Acts()) != 1 || len(s.told) != 0 {
		t.Errorf("tried again, it is said again: %+v, %v", s.guard.Acts(), err)
	}
	if err := os.Remove(s.audit); err != nil {
		t.Fatal(err)
	}
	s.guard.SetPolicy(may(0))
	if a := s.ended(); a.Done != 5 || strings.Contains(blind(), "nothing is done") {
		t.Errorf("it could be written down by then: %+v, blind: %s", a, blind())
	}
	if got := s.watcher.tally(); !slices.Equal(got, []string{"cut failed 1 0", "cut done 1 5"}) {
		t.Errorf("counted: %q", got)
	}
}

// What was tried while a cut took its time is not tried again after it.
func TestTriedOnce(t *testing.T) {
	t.Parallel()
	s := set(t, 100)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	s.guard.SetPolicy(may(100))
	other := func(f *state.Finding) { f.ID = "S001 peer=10.77.1.9" }
	s.watcher.publish(s.silent(), s.silent(other, func(f *state.Finding) { f.Severity = verdict.Warn }))
	for len(s.guard.Acts()) == 0 {
		time.Sleep(time.Millisecond)
	}
	s.watcher.publish(s.silent(), s.silent(other, func(f *state.Finding) { f.Flapping, f.Times = true, 3 }))
	if a := s.ended(); a.Done != 100 {
		t.Errorf("%+v", a)
	}
	if a := s.ended(); !strings.Contains(a.Outcome, "comes and goes") {
		t.Errorf("%+v", a)
	}
	s.quiet()
}

// However acts end beside each other, what is published last has them all.
func TestPublishedInOrder(t *testing.T) {
	w, entered, goOn := newWatcher(), make(chan struct{}, 1), make(chan struct{})
	g := New(Options{Agent: w, Audit: filepath.Join(t.TempDir(), "audit.jsonl")})
	defer g.Close()
	var later atomic.Bool
	w.slow = func([]state.Act) {
		if !later.Swap(true) {
			entered <- struct{}{}
			<-goOn
		}
	}
	var parts sync.WaitGroup
	parts.Go(g.publish)
	<-entered
	parts.Go(func() { g.leave(state.Act{Act: "cut"}, "left alone") })
	time.Sleep(100 * time.Millisecond) // it would be through by then
	close(goOn)
	parts.Wait()
	if len(w.Acts) != 1 {
		t.Errorf("published last: %+v", w.Acts)
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
