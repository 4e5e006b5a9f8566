//go:build linux

package guard

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/audit"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/bound"
)

// The Outcome of an act that has begun, and of one that must not.
const (
	underWay  = "under way"
	unwritten = "not done, because it could not be written down"
)

// tellEvery is how often is published how far an act is.
const tellEvery = 500 * time.Millisecond

// book is what was done, as it is published and as it is written down.
type book struct {
	mu     sync.Mutex
	log    *audit.Log  // nil until something may be done
	acts   []state.Act // newest first
	tally  []state.Tally
	blind  []state.Blind // what the rights do not allow
	failed error         // why nothing can be written down, and so nothing is done
	said   time.Time     // when the progress of an act was published
	tell   sync.Mutex
	show   sync.Mutex // held by who publishes, so that what is newer comes later
}

func (b *book) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.log == nil {
		return nil
	}
	err := b.log.Close()
	b.log = nil
	return err
}

// open opens the log where it is not open yet.
func (b *book) open(path string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.log != nil {
		return nil
	}
	log, err := audit.Open(path)
	if err == nil {
		b.log = log
	}
	return err
}

// put makes an act the one with its ID, or the newest.
func (b *book) put(a state.Act) {
	if i := slices.IndexFunc(b.acts, func(o state.Act) bool { return o.ID == a.ID }); i >= 0 {
		b.acts[i] = a
		return
	}
	b.acts = slices.Insert(b.acts, 0, a)
	b.acts = b.acts[:min(len(b.acts), state.MostActs)]
}

// count counts an act that has ended.
func (b *book) count(a *state.Act, outcome state.Outcome) {
	i := slices.IndexFunc(b.tally, func(t state.Tally) bool { return t.Act == a.Act && t.Outcome == outcome })
	if i < 0 {
		i = len(b.tally)
		b.tally = append(b.tally, state.Tally{Act: a.Act, Outcome: outcome})
	}
	b.tally[i].Count++
	b.tally[i].Connections += a.Done
}

// prepare says what a policy allows that cannot be done here.
func (g *Guard) prepare(p *policy.Policy) {
	var failed error
	if allowsAny(p) {
		failed = g.book.open(g.options.Audit)
	}
	g.book.mu.Lock()
	g.book.blind, g.book.failed = append(lacking(p), cutShort(p, time.Duration(g.waits.Load()))...), failed
	g.book.mu.Unlock()
	g.publish()
}

func allowsAny(p *policy.Policy) bool { return p.Cut != nil || len(p.Tune) > 0 || p.Evac != nil }

// lacking are the rights that acts of a policy need and this process has not.
func lacking(p *policy.Policy) (blind []state.Blind) {
	for _, need := range []struct {
		allowed bool
		act     string
		names   string
		rights  []uint
	}{
		{p.Cut != nil, "cut", "CAP_NET_ADMIN", []uint{unix.CAP_NET_ADMIN}},
		{len(p.Tune) > 0, "tune", "CAP_BPF and CAP_NET_ADMIN", []uint{unix.CAP_BPF, unix.CAP_NET_ADMIN}},
		{p.Evac != nil, "evac", "CAP_NET_ADMIN and CAP_NET_RAW", []uint{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}},
	} {
		if need.allowed && slices.ContainsFunc(need.rights, func(c uint) bool { return !capability.Held(c) }) {
			blind = append(blind, state.Blind{Source: "acts", Error: noRight(need.act), Needs: &need.names})
		}
	}
	return blind
}

func noRight(act string) string {
	return fmt.Sprintf("the policy allows %s, and this agent has not the right to do it", act)
}

// cutShort is that systemd, where it is known how long it waits, does not wait
// for an evac that is spread over more.
func cutShort(p *policy.Policy, waits time.Duration) []state.Blind {
	if p.Evac == nil || waits == 0 || p.Evac.Within+evacSpare <= waits {
		return nil
	}
	needs := fmt.Sprintf("InhibitDelayMaxSec=%d in a file of /etc/systemd/logind.conf.d", int((p.Evac.Within+evacSpare+time.Second-1)/time.Second))
	return []state.Blind{{Source: "acts", Error: fmt.Sprintf("the policy spreads an evac over %s, and systemd waits no longer than %s at a shutdown: it would be cut short",
		bound.Format(p.Evac.Within), bound.Format(waits)), Needs: &needs}}
}

// byHand says whether cut, the one act that a person can ask for, may be: no is
// why nobody can ask. Who calls it holds mu.
func (b *book) byHand(p *policy.Policy, no string) state.ByHand {
	h := state.ByHand{Act: "cut", On: []string{}}
	if p.Cut == nil {
		h.Why = notAllowed("a finding", "S001")
		return h
	}
	h.On = slices.Clone(p.Cut.On)
	switch right := noRight(h.Act); {
	case no != "":
		h.Why = no
	case slices.ContainsFunc(b.blind, func(o state.Blind) bool { return o.Error == right }):
		h.Why = right
	case b.failed != nil:
		h.Why = nothingDone + b.failed.Error()
	}
	return h
}

// nothingDone is what is said of acts that cannot be written down, with why.
const nothingDone = "nothing is done: "

// publish tells the agent what was done, and what may and what cannot be.
func (g *Guard) publish() {
	b := &g.book
	b.show.Lock()
	defer b.show.Unlock()
	b.mu.Lock()
	now := state.Doings{Acts: slices.Clone(b.acts), Tally: slices.Clone(b.tally), Blind: slices.Clone(b.blind),
		ByHand: []state.ByHand{b.byHand(g.policy.Load(), g.options.NoHand)}}
	if b.failed != nil {
		now.Blind = append(now.Blind, state.Blind{Source: "acts", Error: nothingDone + b.failed.Error()})
	}
	b.mu.Unlock()
	g.options.Agent.SetActs(now)
}

func (g *Guard) told(a state.Act) {
	g.publish()
	if g.options.Told != nil {
		g.book.tell.Lock()
		defer g.book.tell.Unlock()
		g.options.Told(a)
	}
}

// begin writes down that an act begins. With an error it must not: that is
// told, as an act that was not done, and once, however often it is tried.
func (g *Guard) begin(a state.Act) (state.Act, error) {
	a.ID, a.Time, a.Outcome = newID(), time.Now(), underWay
	b := &g.book
	err := b.open(g.options.Audit)
	b.mu.Lock()
	if err == nil {
		err = b.log.Begin(a)
	}
	b.failed = err
	known := false
	if err != nil {
		a.Ended, a.Outcome, a.Error = new(time.Now()), unwritten, err.Error()
		i := slices.IndexFunc(b.acts, func(o state.Act) bool { return o.Outcome == unwritten && o.Act == a.Act && o.Why == a.Why })
		if known = i >= 0; known {
			a.ID, a.Time = b.acts[i].ID, b.acts[i].Time
		} else {
			b.count(&a, state.Failed)
		}
	}
	b.put(a)
	b.mu.Unlock()
	if known {
		g.publish()
	} else {
		g.told(a)
	}
	return a, err
}

// progress tells how far an act is.
func (g *Guard) progress(a state.Act) {
	b := &g.book
	b.mu.Lock()
	b.put(a)
	due := time.Since(b.said) >= tellEvery
	if due {
		b.said = time.Now()
	}
	b.mu.Unlock()
	if due {
		g.publish()
	}
}

// end writes down what came of an act that was begun.
func (g *Guard) end(a state.Act, outcome string, err error) state.Act {
	if err != nil {
		a.Error = err.Error()
	}
	return g.enter(a, outcome, err, state.OutcomeOf(&a))
}

// enter is end, with the outcome that is counted.
func (g *Guard) enter(a state.Act, outcome string, err error, as state.Outcome) state.Act {
	now := time.Now()
	a.Ended, a.Outcome = &now, outcome
	g.book.mu.Lock()
	g.book.count(&a, as)
	failed := errors.New("it is closed")
	if g.book.log != nil {
		failed = g.book.log.End(a)
	}
	if failed != nil {
		a.Error = errors.Join(err, fmt.Errorf("what came of it is not written down yet: %w", failed)).Error()
	}
	g.book.put(a)
	g.book.mu.Unlock()
	g.told(a)
	return a
}

// leave tells of an act that the policy allows and that was left out, and why.
func (g *Guard) leave(a state.Act, why string) state.Act {
	a.ID, a.Time = newID(), time.Now()
	if g.book.open(g.options.Audit) != nil {
		a.Outcome = why
		now := a.Time
		a.Ended = &now
		g.book.mu.Lock()
		g.book.count(&a, state.LeftAlone)
		g.book.put(a)
		g.book.mu.Unlock()
		g.told(a)
		return a
	}
	return g.enter(a, why, nil, state.LeftAlone)
}
