//go:build linux

package guard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
)

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

// An order that waits for another cut is answered with what it is, not with
// nothing.
func TestOrderWaits(t *testing.T) {
	t.Parallel()
	s := set(t, 5)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	s.guard.cutting <- struct{}{} // as if another were under way
	s.guard.SetPolicy(may(0))
	s.watcher.publish(s.silent(func(f *state.Finding) { f.Flapping, f.Times = true, 3 }))
	s.ended()
	plan, err := s.guard.Plan(t.Context(), "cut", "S001 peer=10.77.1.2")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if a, err := s.guard.Do(ctx, plan.ID); err != nil || a.Act != "cut" || a.Left != 5 || a.Ended != nil || !strings.Contains(a.Outcome, "waits for another cut") {
		t.Errorf("%+v, %v", a, err)
	}
	<-s.guard.cutting
	if a := s.ended(); a.Done != 5 || a.By != "page" {
		t.Errorf("%+v", a)
	}
}
