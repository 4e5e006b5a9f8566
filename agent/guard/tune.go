//go:build linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/act/tune"
	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	// cgroupsEvery is how often is looked whether a named cgroup is there, and
	// still the same: a service that is restarted gets another.
	cgroupsEvery = 5 * time.Second

	// untuned is how long is waited after a tune that failed, unheldEvery where new
	// connections must be looked for, because the kernel cannot tune them.
	untuned     = 5 * time.Minute
	unheldEvery = 30 * time.Second
)

// tended is a cgroup that is kept tuned.
type tended struct {
	policy.Tune
	id    uint64     // of the cgroup; 0 = it was not there
	asked bool       // the kernel was, to tune new connections of it
	held  *tune.Held // it does; nil: they are looked for again and again
	tuned bool       // those that were there are, as far as they can be
	next  time.Time
}

// followCgroups keeps the cgroups of the policy tuned until ctx ends. What is
// tuned stays tuned then, as after lifeline tune.
func (g *Guard) followCgroups(ctx context.Context) {
	tends := make(map[string]*tended)
	tick := time.NewTicker(cgroupsEvery)
	defer tick.Stop()
	defer func() {
		for _, t := range tends {
			t.close()
		}
	}()
	for {
		p := g.policy.Load()
		for name, t := range tends {
			if !slices.Contains(p.Tune, t.Tune) {
				delete(tends, name)
				g.release(ctx, t)
			}
		}
		for _, t := range p.Tune {
			if tends[t.Cgroup] == nil {
				tends[t.Cgroup] = &tended{Tune: t}
			}
			g.tend(ctx, tends[t.Cgroup])
		}
		select {
		case <-ctx.Done():
			return
		case <-g.changed:
		case <-tick.C:
		}
	}
}

// close lets go of a hold that ends with this process.
func (t *tended) close() {
	if t.held != nil {
		_ = t.held.Close() // the links end with the process anyhow
		t.held = nil
	}
}

// tend tunes a cgroup that came, or is another than before. One that the kernel
// keeps tuned costs no more than to look whether it is still there.
func (g *Guard) tend(ctx context.Context, t *tended) {
	if ctx.Err() != nil || time.Now().Before(t.next) {
		return
	}
	c, err := tune.FindCgroup(t.Cgroup)
	if err != nil {
		t.close()
		t.id = 0 // it is not there: its service may be started later
		return
	}
	if c.ID != t.id {
		t.close()
		t.id, t.asked, t.tuned = c.ID, false, false
	}
	if t.held != nil && t.tuned {
		return
	}
	err = g.tune(ctx, t, c)
	switch {
	case err != nil:
		t.next = time.Now().Add(untuned)
	case t.held == nil:
		t.next = time.Now().Add(unheldEvery)
	}
}

// tune tunes the connections of a cgroup, and has the kernel tune new ones, which
// is asked for once.
func (g *Guard) tune(ctx context.Context, t *tended, c *tune.Cgroup) error {
	o := tune.Options{Within: t.Within}
	m, chosen, err := g.ofCgroup(ctx, c)
	if err != nil {
		return err
	}
	plan, err := tune.Plan(m, chosen, o)
	if err != nil || t.asked && len(plan.Tune) == 0 {
		t.tuned = err == nil
		return err
	}
	a, err := g.begin(state.Act{Act: "tune", By: "policy", Why: "cgroup " + t.Cgroup, Left: len(plan.Tune),
		Target: fmt.Sprintf("%s of cgroup %s, and new ones", connections(len(plan.Tune)), fact.Printable(t.Cgroup)),
		Undo:   "lifeline tune --undo --cgroup " + t.Cgroup + " --yes"})
	if err != nil {
		return err
	}
	var unheld error
	if !t.asked { // first, so that no connection begins between the look and this
		t.asked = true
		if t.held, unheld = tune.Hold(ctx, c, o, tune.HoldOptions{}); unheld == nil {
			if m, chosen, err = g.ofCgroup(ctx, c); err != nil {
				g.end(a, "new connections are tuned by the kernel, those that are there are not yet", err)
				return err
			}
		}
	}
	r, err := tune.Run(ctx, m, chosen, o)
	t.tuned = err == nil // what failed of them would fail again
	a.Done, a.Left = len(r.Tuned), len(r.Left)+len(r.Failed)+len(r.Changed)
	text := fmt.Sprintf("%s tuned, %s noticed soon enough before", connections(a.Done), verdict.Number(len(r.Tight)))
	switch {
	case t.held == nil:
		text += fmt.Sprintf("; new ones are looked for every %v", unheldEvery)
	case t.held.Pinned:
		text += "; new ones are tuned by the kernel, until the undo"
	default:
		text += "; new ones are tuned by the kernel, until the agent ends"
	}
	if err == nil && len(r.Failed) > 0 {
		err = r.Failed[0].Err
	}
	g.end(a, text, errors.Join(err, unheld))
	return err
}

// ofCgroup looks at the connections of a cgroup.
func (g *Guard) ofCgroup(ctx context.Context, c *tune.Cgroup) (*fact.Machine, []*fact.Socket, error) {
	n := node.New()
	defer n.Close()
	m, err := n.Look(ctx, node.Want{Sockets: sockdiag.Want{TCP: true}, Namespaces: g.options.Of})
	if err != nil {
		return nil, nil, err
	}
	chosen := act.Select(m, census.Filter{}, g.self)
	return m, slices.DeleteFunc(chosen, func(s *fact.Socket) bool { return !c.Has(s) }), nil
}

// release takes back what the policy does not ask for any more.
func (g *Guard) release(ctx context.Context, t *tended) {
	defer t.close()
	if t.id == 0 {
		return
	}
	a, err := g.begin(state.Act{Act: "tune", By: "policy", Why: "the policy does not ask for it any more", Target: "cgroup " + fact.Printable(t.Cgroup)})
	if err != nil {
		return
	}
	t.close()
	errs := []error{tune.Release(ctx, t.id, tune.HoldOptions{})}
	c, err := tune.FindCgroup(t.Cgroup)
	if err != nil { // its connections went with it
		g.end(a, "it is gone", errors.Join(errs...))
		return
	}
	m, _, err := g.ofCgroup(ctx, c)
	if err == nil {
		var r tune.UndoReport
		r, err = tune.Undo(ctx, m, tune.UndoOptions{Only: c.Has})
		a.Done, a.Left = len(r.Restored), len(r.Failed)
	}
	g.end(a, fmt.Sprintf("%s have their old options again; new ones are left as they are", connections(a.Done)), errors.Join(append(errs, err)...))
}
