//go:build linux

package guard

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/audit"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
)

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
	for s.guard.Acts()[0].Done == 0 {
		time.Sleep(time.Millisecond)
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
	if got := s.watcher.tally(); len(got) != 2 || !strings.HasPrefix(got[0], "cut partly 1 ") || !strings.HasPrefix(got[1], "cut done 1 ") {
		t.Errorf("counted: %q", got)
	}
}

// What a policy comes to leave out while it is cut is not touched, and an order
// that was planned before is refused.
func TestPolicyLeavesOut(t *testing.T) {
	t.Parallel()
	s := set(t, 200)
	s.far.Unplug()
	time.Sleep(250 * time.Millisecond)
	s.guard.SetPolicy(may(50))
	s.watcher.publish(s.silent())
	for a := <-s.told; a.Ended != nil; a = <-s.told {
	}
	plan, err := s.guard.Plan(t.Context(), "cut", "S001 peer=10.77.1.2")
	if err != nil {
		t.Fatal(err)
	}
	without := may(50)
	without.Ignore.Processes = []string{"guard.test"}
	s.guard.SetPolicy(without)
	if a := s.ended(); a.Left == 0 || a.Error != errForbidden.Error() {
		t.Errorf("%+v", a)
	}
	var refused *state.Refusal
	if _, err := s.guard.Do(t.Context(), plan.ID); !errors.As(err, &refused) || !refused.Stale || !strings.Contains(refused.Why, "the policy has changed") {
		t.Errorf("%v", err)
	}
	s.quiet()
}

// Who holds a connection may not be known: it is touched only where the policy
// names no process.
func TestUnknownHolder(t *testing.T) {
	m := &fact.Machine{Processes: []fact.Process{{PID: 7, Name: "nginx"}}}
	held := func(pids ...int32) *fact.Socket {
		s := &fact.Socket{Remote: netip.MustParseAddrPort("10.77.1.2:443")}
		for _, pid := range pids {
			s.Owners = append(s.Owners, fact.Owner{PID: pid})
		}
		return s
	}
	ignoring, watching := may(0), may(0)
	ignoring.Ignore.Processes, watching.Watch.Processes = []string{"backup"}, []string{"nginx"}
	for _, c := range []struct {
		p    *policy.Policy
		s    *fact.Socket
		want bool
	}{
		{may(0), held(), true}, {may(0), held(8), true},
		{ignoring, held(), false}, {ignoring, held(8), false}, {ignoring, held(7), true}, {ignoring, held(7, 8), false},
		{watching, held(), false}, {watching, held(8), false}, {watching, held(7), true}, {watching, held(7, 8), false},
	} {
		if got := touches(c.p, m, c.s); got != c.want {
			t.Errorf("watch %v, ignore %v, held by %v: %v", c.p.Watch.Processes, c.p.Ignore.Processes, c.s.Owners, got)
		}
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
