//go:build linux

package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/act/evac"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	// evacMost is how long an evac may take where neither the policy nor who gave
	// notice says: its resets, and its patience with those that do not answer.
	evacMost = 20 * time.Second

	// evacSpare is kept of the time that there is, for what comes after.
	evacSpare = 500 * time.Millisecond
)

// ErrNoEvac is why an evac that was asked for is not done.
var ErrNoEvac = errors.New("the policy allows no evac: it takes acts: evac: {on: shutdown} in the file of --policy")

// evacuation is the evac under way. Who gives notice meanwhile waits for the same.
type evacuation struct {
	mu      sync.Mutex
	running sync.WaitGroup
	ended   chan struct{} // nil when none is
	latest  state.Act
}

// MayEvac says whether the policy allows an evac.
func (g *Guard) MayEvac() bool { return g.policy.Load().Evac != nil }

// Evac resets what this machine forwards, because it is about to go: who says
// so. It returns when that is done, and within most, 0 meaning the policy's time;
// the evac has no other end, whatever becomes of ctx: who waits no longer gets
// its error. Whoever calls while one is under way waits for the same. Without a
// policy that allows it the error is [ErrNoEvac].
func (g *Guard) Evac(ctx context.Context, who string, most time.Duration) (state.Act, error) {
	p := g.policy.Load().Evac
	if p == nil {
		return state.Act{}, ErrNoEvac
	}
	e := &g.evac
	e.mu.Lock()
	ended := e.ended
	if ended == nil {
		ended = make(chan struct{})
		e.ended = ended
		e.running.Go(func() {
			a := g.evacuate(context.WithoutCancel(ctx), p, who, most)
			e.mu.Lock()
			defer e.mu.Unlock()
			e.latest, e.ended = a, nil
			close(ended)
		})
	}
	e.mu.Unlock()
	select {
	case <-ended:
	case <-ctx.Done():
		return state.Act{}, context.Cause(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.latest, nil
}

// evacuate is one evac, within its time.
func (g *Guard) evacuate(ctx context.Context, p *policy.Evac, who string, most time.Duration) state.Act {
	o := evac.Options{Within: p.Within, Only: p.Only}
	bounded := p.Within + evacMost
	if most > 0 {
		bounded = max(most-evacSpare, most/2)
		if o.Within > 0 {
			o.Within = min(o.Within, bounded)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bounded, errors.New("the time was up"))
	defer cancel()
	a := state.Act{Act: "evac", By: "shutdown", Why: who}
	plan, err := evac.Look(o)
	a.Left = len(plan.Flows)
	a.Target = forwarded(a.Left)
	a, failed := g.begin(a)
	if failed != nil {
		return a
	}
	if err != nil {
		return g.end(a, "nothing was reset", err)
	}
	start := time.Now()
	o.Progress = func(at evac.Progress) {
		a.Done, a.Left = at.Begun, at.Flows-at.Begun
		g.progress(a)
	}
	r, err := evac.Run(ctx, o)
	a.Target = forwarded(len(r.Flows))
	a.Left = len(r.Flows) - r.Begun + r.Unanswered
	a.Done = len(r.Flows) - a.Left
	text := fmt.Sprintf("%s of %s reset in %s", verdict.Number(a.Done), forwarded(len(r.Flows)), bound.Format(time.Since(start)))
	if len(r.Flows) == 0 {
		text = "this machine forwards no connection"
	}
	if r.Unanswered > 0 {
		text += fmt.Sprintf(", %s had an end that did not answer", verdict.Number(r.Unanswered))
	}
	if r.Offloaded > 0 {
		text += fmt.Sprintf(", %s pass by a flowtable and cannot be", verdict.Number(r.Offloaded))
	}
	return g.end(a, text, err)
}

func forwarded(n int) string {
	if n == 1 {
		return "1 forwarded connection"
	}
	return verdict.Number(n) + " forwarded connections"
}
