//go:build linux

package tune

import (
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// Planned is what a tune would do, by what a look saw.
type Planned struct {
	Set     bound.Options  // what connections would get; UserTimeout only where it is asked for
	Tune    []*fact.Socket // would get it
	Tight   []*fact.Socket // would be left alone: noticed within the time already
	Unknown []*fact.Socket // of what is in Tune: options that the look did not show

	// The longest bounds of what is in Tune and known, before and after.
	IdleBefore, IdleAfter       bound.Bound
	SendingBefore, SendingAfter bound.Bound
	StalledAfter                bound.Bound

	Late int // of Tune: a user timeout, its own or that asked for, makes it later than asked

	// Probes a second while all that is in Tune is idle.
	ProbesBefore, ProbesAfter float64
}

// Plan says what [Run] would do to sockets, connections of m. It touches nothing.
func Plan(m *fact.Machine, sockets []*fact.Socket, o Options) (p Planned, err error) {
	target, within, err := o.options()
	if err != nil {
		return p, err
	}
	p.Set = target
	seen := make(map[bound.Conn]bool)
	for _, s := range sockets {
		if !tunable(s) {
			continue
		}
		before, ok := m.BoundConn(s)
		if !ok {
			p.Tune, p.Unknown = append(p.Tune, s), append(p.Unknown, s)
			p.ProbesAfter += perSecond(target)
			continue
		}
		effective := before.Options.In(before.Sysctl)
		to, tight := aim(valuesOf(effective), target, within)
		if tight {
			p.Tight = append(p.Tight, s)
			continue
		}
		after := before
		after.Options = to.options()
		p.Tune = append(p.Tune, s)
		p.ProbesBefore += perSecond(effective)
		p.ProbesAfter += perSecond(after.Options)
		if seen[before] && before.UserTimeout == 0 && o.UserTimeout == 0 { // most are alike
			continue
		}
		if idle := after.Idle(); idle.Latest > within {
			p.Late++
		}
		p.widen(before, after, len(seen) == 0)
		seen[before] = true
	}
	return p, nil
}

// widen takes the bounds of one connection into account.
func (p *Planned) widen(before, after bound.Conn, first bool) {
	for _, w := range []struct {
		longest *bound.Bound
		b       bound.Bound
	}{
		{&p.IdleBefore, before.Idle()}, {&p.IdleAfter, after.Idle()},
		{&p.SendingBefore, before.Sending()}, {&p.SendingAfter, after.Sending()},
		{&p.StalledAfter, after.Stalled()},
	} {
		if first || bound.Compare(w.b, *w.longest) > 0 {
			*w.longest = w.b
		}
	}
}

// perSecond is how many probes an idle connection sends whose peer answers.
func perSecond(o bound.Options) float64 {
	if !o.KeepAlive || o.Idle <= 0 {
		return 0
	}
	return float64(time.Second) / float64(o.Idle)
}
