//go:build linux

package guard

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	planFor   = 60 * time.Second // a plan is kept
	mostPlans = 16               // at a time; the oldest goes first

	// byPage is who asks by hand, on the page or by the API.
	byPage = "page"

	// answerWithin is how long who asked waits for an act to end. It goes on.
	answerWithin = 5 * time.Second
)

// plans are those that wait to be done.
type plans struct {
	mu  sync.Mutex
	all []planned
}

type planned struct {
	state.Plan
	target *target
}

// Plan says what an act that the policy allows would do: a dry run. It is kept
// for a minute, for [Guard.Do]. The error is a [*state.Refusal] when it is not
// allowed.
func (g *Guard) Plan(ctx context.Context, act, finding string) (state.Plan, error) {
	if act != "cut" {
		return state.Plan{}, fmt.Errorf("%q is no act that can be asked for: cut is one", act)
	}
	f := g.current(finding)
	if f == nil {
		return state.Plan{}, fmt.Errorf("no open finding has the ID %q", finding)
	}
	p := g.policy.Load()
	if err := allowed(mayCut(p, f), f); err != nil {
		return state.Plan{}, err
	}
	t, err := g.aim(ctx, p, f)
	if err != nil {
		return state.Plan{}, err
	}
	if len(t.sockets) == 0 {
		return state.Plan{}, &state.Refusal{Why: "no connection is left that the policy lets the agent touch", Stale: true}
	}
	n := planned{target: t, Plan: state.Plan{ID: newID(), Act: act, Target: t.inWords(), Count: len(t.sockets), Expires: time.Now().Add(planFor)}}
	n.Text = fmt.Sprintf("Would cut %s, at %s, in %s. It stops at the first sign of life, and cannot be undone.", n.Target, t.rate, bound.Format(t.rate.Duration(n.Count)))
	if why := t.ownLink(ctx); why != nil {
		n.Text += " Mind: " + why.Error() + "."
	}
	g.plans.put(n)
	return n.Plan, nil
}

func allowed(yes bool, f *state.Finding) error {
	if yes {
		return nil
	}
	return &state.Refusal{Why: notAllowed(f.Code, f.Code)}
}

// notAllowed says that nobody may cut for something, and what would allow it.
func notAllowed(of, code string) string {
	return fmt.Sprintf("the policy does not allow to cut on %s: it takes acts: cut: {on: [%s]} in the file of --policy", of, code)
}

func (p *plans) put(n planned) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.all = slices.DeleteFunc(p.all, func(o planned) bool { return now.After(o.Expires) })
	if len(p.all) == mostPlans {
		p.all = slices.Delete(p.all, 0, 1)
	}
	p.all = append(p.all, n)
}

// take returns a plan that is good, once.
func (p *plans) take(id string) (planned, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.all, func(o planned) bool { return o.ID == id })
	if i < 0 {
		return planned{}, &state.Refusal{Why: "there is no such plan: it was done, or is older than a minute; ask for another", Stale: true}
	}
	n := p.all[i]
	p.all = slices.Delete(p.all, i, i+1)
	if time.Now().After(n.Expires) {
		return planned{}, &state.Refusal{Why: "the plan is older than a minute: ask for another", Stale: true}
	}
	return n, nil
}

// Do does what a plan said, to the connections that it counted and no others. It
// returns what came of it, or within 5 s how far it is: it goes on then, whether
// or not ctx does. A plan is done once.
func (g *Guard) Do(ctx context.Context, plan string) (state.Act, error) {
	n, err := g.plans.take(plan)
	if err != nil {
		return state.Act{}, err
	}
	f := g.current(n.target.finding.ID)
	if f == nil || f.Times != n.target.finding.Times {
		return state.Act{}, &state.Refusal{Why: "the finding is over: nothing is done", Stale: true}
	}
	if err := allowed(mayCut(g.policy.Load(), f), f); err != nil {
		return state.Act{}, err
	}
	if g.forbidden(n.target, n.target.sockets) != nil {
		return state.Act{}, &state.Refusal{Why: "the policy has changed, and does not let the agent touch all of them: ask for another plan", Stale: true}
	}
	var now latest
	now.set(state.Act{Act: n.Act, By: byPage, Why: f.ID, Target: n.Target, Left: n.Count, Outcome: "waits for another cut to end: the pace is that of all"})
	ended := make(chan error, 1)
	if !g.hands.start(func() { ended <- g.byHand(context.WithoutCancel(ctx), n.target, now.set) }) {
		return state.Act{}, &state.Refusal{Why: "the agent ends: nothing is done", Stale: true}
	}
	late := time.NewTimer(answerWithin)
	defer late.Stop()
	select {
	case err := <-ended:
		if a := now.get(); a.ID != "" {
			return a, nil
		}
		return state.Act{}, err
	case <-late.C:
	case <-ctx.Done():
	}
	return now.get(), nil
}

// byHand does what a person asked for, who was shown it, until the agent ends.
func (g *Guard) byHand(ctx context.Context, t *target, shown func(state.Act)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-g.closing:
			cancel()
		case <-stopped:
		}
	}()
	return g.cut(ctx, t, state.Act{By: byPage, Why: t.finding.ID}, shown)
}

// hands are the acts that were asked for by hand.
type hands struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// start begins one, unless none may begin any more.
func (h *hands) start(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.running.Go(f)
	}
	return !h.closed
}

// wait lets no more begin, and waits for those that have.
func (h *hands) wait() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.running.Wait()
}

// latest is how an act stands.
type latest struct {
	mu sync.Mutex
	a  state.Act
}

func (l *latest) set(a state.Act) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.a = a
}

func (l *latest) get() state.Act {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.a
}

// Acts are the latest, newest first.
func (g *Guard) Acts() []state.Act {
	g.book.mu.Lock()
	defer g.book.mu.Unlock()
	return slices.Clone(g.book.acts)
}
