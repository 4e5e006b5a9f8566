//go:build linux

package guard

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
)

// tally is what acts came to, such as "cut done 1 300".
func (w *watcher) tally() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.Tally {
		all = append(all, fmt.Sprintf("%s %s %d %d", t.Act, t.Outcome, t.Count, t.Connections))
	}
	return all
}

// byHand is whether a person may cut, and why not.
func (w *watcher) byHand() state.ByHand {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ByHand[0]
}

// Who may ask by hand depends on the policy, on whether anybody can ask, and on
// whether it could be written down.
func TestByHand(t *testing.T) {
	const noToken = "acts need a token"
	w, folder := newWatcher(), t.TempDir()
	g := New(Options{Agent: w, Audit: filepath.Join(folder, "audit.jsonl"), NoHand: noToken})
	defer g.Close()
	if h := w.byHand(); h.Act != "cut" || h.On == nil || !strings.Contains(h.Why, "acts: cut: {on: [S001]}") {
		t.Errorf("without a policy: %+v", h)
	}
	g.SetPolicy(may(0))
	if h := w.byHand(); h.Why != noToken {
		t.Errorf("nobody can ask: %+v", h)
	}
	o := New(Options{Agent: w, Audit: folder}) // no file can be there
	defer o.Close()
	o.SetPolicy(may(0))
	if h := w.byHand(); !strings.HasPrefix(h.Why, nothingDone) && h.Why != noRight("cut") || !slices.Equal(h.On, []string{"S001"}) {
		t.Errorf("nothing can be written down: %+v", h)
	}
	o.SetPolicy(&policy.Policy{})
	if h := w.byHand(); !strings.Contains(h.Why, "the policy does not allow") || len(h.On) > 0 {
		t.Errorf("with another policy: %+v", h)
	}
}

// A policy that wants more time for an evac than systemd gives is told so, and what
// would give it.
func TestSystemdWaits(t *testing.T) {
	w := newWatcher()
	g := New(Options{Agent: w, Audit: filepath.Join(t.TempDir(), "audit.jsonl")})
	defer g.Close()
	blind := func() (all []string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, b := range w.Blind {
			if strings.Contains(b.Error, "systemd") {
				all = append(all, b.Error+"; "+*b.Needs)
			}
		}
		return all
	}
	g.SetPolicy(&policy.Policy{Evac: &policy.Evac{Within: 25 * time.Second}})
	if b := blind(); b != nil {
		t.Errorf("before it is known: %q", b)
	}
	g.SystemdWaits(5 * time.Second)
	const want = "the policy spreads an evac over 25 s, and systemd waits no longer than 5 s at a shutdown: it would be cut short; InhibitDelayMaxSec=26 in a file of /etc/systemd/logind.conf.d"
	if b := blind(); len(b) != 1 || b[0] != want {
		t.Errorf("%q", b)
	}
	g.SystemdWaits(30 * time.Second)
	if b := blind(); b != nil {
		t.Errorf("with time enough: %q", b)
	}
	g.SystemdWaits(5 * time.Second)
	g.SetPolicy(&policy.Policy{Evac: &policy.Evac{Within: 4 * time.Second}})
	if b := blind(); b != nil {
		t.Errorf("with a shorter evac: %q", b)
	}
}
