package daemon

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	callsEvery = 10 * time.Second
	callsRare  = 5 * time.Minute

	// callsGlimpse is for how long goroutines are looked at.
	callsGlimpse = 2 * time.Second

	// callsMost is at how many programs one look is had. The largest take a tenth of
	// a second of a processor.
	callsMost = 16

	// callsSoon is how far apart censuses are at the least that goroutines which
	// wait ask for.
	callsSoon = time.Minute

	// callsSlack is for how long what was seen of a program counts, beside the time
	// that two looks are apart: who waits is looked at each time.
	callsSlack = 30 * time.Second
)

// callLook is what one look at goroutines leaves for the next.
type callLook struct {
	last   map[int32]time.Time // when a process was looked at, or passed over as no Go program
	parked map[int32]fact.Goroutines
	pace   time.Duration // until the next look
	told   time.Time     // when a census was asked for
	purse  purse
}

// lookCalls looks at the goroutines of Go programs that opened connections: of
// those that wait for an answer each time, of the others in turn. The census
// joins them with the sockets, and judges both.
func (d *Daemon) lookCalls(l *callLook) func(context.Context, *node.Node) (time.Duration, error) {
	return func(ctx context.Context, n *node.Node) (time.Duration, error) {
		d.mu.Lock()
		callers, waiting := d.known.callers, d.known.counts.waits
		d.mu.Unlock()
		seen, err := n.Goroutines(ctx, callsGlimpse, l.turns(callers, waiting), callsMost)
		if err != nil {
			return 0, err
		}
		news := slices.ContainsFunc(seen.Programs, func(g fact.Goroutines) bool { return prompt(&g) && !l.urgent(g.PID, nil) })
		now := time.Now()
		l.pace = l.purse.pay(now, seen.Worked, callsRest, callsEvery, callsRare)
		parked := l.remember(now, callers, seen.Programs)
		d.take(func(k *known) {
			k.parked = parked
			k.found(now, fromCalls, nil, seen.Blind)
		})
		if news && now.Sub(l.told) >= callsSoon { // it judges them
			l.told = now
			d.hurry(fromCensus)
		}
		return l.pace, nil
	}
}

// turns puts the processes into the order in which they are looked at.
func (l *callLook) turns(callers []int32, waiting map[int32]bool) []int32 {
	return slices.SortedFunc(slices.Values(callers), func(a, b int32) int {
		return cmp.Or(truth(l.urgent(b, waiting))-truth(l.urgent(a, waiting)), l.last[a].Compare(l.last[b]), cmp.Compare(a, b))
	})
}

// urgent says that a process waits for an answer, by its sockets or by what its
// goroutines did when last seen.
func (l *callLook) urgent(pid int32, waiting map[int32]bool) bool {
	g, seen := l.parked[pid]
	return waiting[pid] || seen && prompt(&g)
}

// prompt says that a goroutine waits for an answer of the kind that comes at once.
func prompt(g *fact.Goroutines) bool {
	return slices.ContainsFunc(verdict.Waiters(g), func(w verdict.Waiter) bool { return w.Prompt })
}

// remember adds a look, forgets who is no caller any more, and returns what is
// known of all, by PID.
func (l *callLook) remember(now time.Time, callers []int32, list []fact.Goroutines) []fact.Goroutines {
	last, parked := make(map[int32]time.Time, len(callers)), make(map[int32]fact.Goroutines, len(list))
	for _, pid := range callers {
		last[pid] = l.last[pid]
		if g, known := l.parked[pid]; known && now.Sub(l.last[pid]) <= l.pace+callsSlack {
			parked[pid] = g
		}
	}
	for _, g := range list {
		last[g.PID], parked[g.PID] = now, g
	}
	l.last, l.parked = last, parked
	return slices.SortedFunc(maps.Values(parked), func(a, b fact.Goroutines) int { return cmp.Compare(a.PID, b.PID) })
}

// ofThose are what is known of processes that a look saw.
func ofThose(m *fact.Machine, all []fact.Goroutines) []fact.Goroutines {
	return slices.DeleteFunc(slices.Clone(all), func(g fact.Goroutines) bool { return m.Process(g.PID) == nil })
}
