package verdict

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// The terms of a poke, as package act has them in confirm.go.
const (
	simEvery    = 40 * time.Millisecond
	simLimit    = 500 * time.Millisecond // a peer answers no sooner again on one connection
	simWindow   = 540 * time.Millisecond
	simWait     = 100 * time.Millisecond
	simShortest = 1500 * time.Millisecond
)

// simPoke is a poke under way in a simulation.
type simPoke struct {
	began    time.Duration
	answered []time.Duration // on each connection, when the peer last sent an answer
	pinged   bool            // pings are answered
}

// poker plays what a watch does beside its looks: it pokes suspects over the
// same lossy path, and has the detector hear of it.
type poker struct {
	detector *Detector
	l        *lossy
	pings    bool // the peer answers pings
	known    bool // and it is known that it does
	under    *simPoke
	next     time.Duration
	rest     time.Duration
}

var simPeer = netip.AddrFrom4([4]byte{10, 0, 0, 2})

// step plays everything up to the next look, and returns what that says.
func (p *poker) step(at time.Duration) []Change {
	for now := at - step + simEvery; now <= at; now += simEvery {
		p.l.advance(now)
		p.poke(now)
	}
	p.l.advance(at)
	changes := p.detector.Look(bare(p.l.look()), step)
	if p.under == nil && at >= p.next && len(p.detector.Suspects()) > 0 && !p.detector.Suspects()[0].Silent {
		p.under = &simPoke{began: at, answered: make([]time.Duration, min(len(p.l.conns), 3))}
		for i := range p.under.answered {
			p.under.answered[i] = -time.Hour
		}
	}
	return changes
}

// poke plays one round of probes.
func (p *poker) poke(now time.Duration) {
	if p.under == nil {
		return
	}
	took := now - p.under.began
	alive := false
	for i := range p.under.answered {
		if p.l.passes() && now-p.under.answered[i] >= simLimit {
			p.under.answered[i] = now
			if p.l.passes() {
				p.l.conns[i].lastAck = now // an answer acknowledges nothing new
				alive = true
			}
		}
	}
	pings := len(p.l.conns) <= 2
	if pings && p.pings && p.l.passes() && p.l.passes() {
		p.under.pinged, p.known = true, true
	}
	exchanges, again := 0, 0
	if waited := took - simWait; waited >= 0 {
		exchanges = len(p.under.answered) * 2 * (1 + int(waited/simWindow))
		if pings && p.known && !p.under.pinged {
			exchanges += 1 + int(waited/(2*simEvery))
		}
	}
	for i := range p.under.answered {
		again += p.l.conns[i].retransmits
	}
	a := Answer{Netns: 1, Addr: simPeer, Began: scenarioTime.Add(p.under.began), Exchanges: exchanges}
	switch {
	case alive:
		a.Alive = true
		p.rest = min(max(2*p.rest, time.Second), 30*time.Second)
		p.next = now + p.rest
	case took < simShortest || exchanges+again < exchangesPoked:
		return
	case p.under.pinged:
		p.next = now + 5*time.Second
	default:
		a.Silent = true
	}
	p.under = nil
	p.detector.Hear(a)
}

// TestPokedDetectorSparesALossThatBegins has loss begin on a path that was good
// for hours, with few connections that send each second. A peer that answers
// pings is never said to be silent. Of those that do not, with a single
// connection, 40 % each way take some: see act.Confirm. (Of 4,000 each: 89 of those,
// 1 at 20 %, and none of any other.)
func TestPokedDetectorSparesALossThatBegins(t *testing.T) {
	t.Parallel()
	tries := 25 * *rounds
	for _, test := range []struct {
		conns int
		loss  float64
		pings bool
		most  float64 // share
	}{{1, 0.05, false, 0}, {1, 0.2, false, 0.01}, {1, 0.2, true, 0}, {1, 0.4, true, 0}, {1, 0.4, false, 0.08},
		{2, 0.4, true, 0}, {3, 0.2, false, 0}, {3, 0.4, false, 0.001}, {10, 0.4, false, 0}} {
		wrong := 0
		for seed := range tries {
			var d Detector
			l := newLossy(seed, 0, test.conns)
			for i := range l.conns {
				l.conns[i].out = 10_000
			}
			p := &poker{detector: &d, l: l, pings: test.pings}
			for at := 9 * time.Second; at < 40*time.Second; at += step {
				if at >= 10*time.Second {
					l.loss = test.loss
				}
				if changes := p.step(at); len(changes) > 0 {
					wrong++
					break
				}
			}
		}
		t.Logf("%d connections, %.0f %% loss each way, answers pings: %v: %d of %d said to be silent", test.conns, test.loss*100, test.pings, wrong, tries)
		if float64(wrong) > math.Ceil(test.most*float64(tries)) {
			t.Errorf("too many")
		}
	}
}

// TestPokedDetectorFindsTheDead takes the path away.
func TestPokedDetectorFindsTheDead(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 2, 3, 10, 19} {
		worst := time.Duration(0)
		for seed := range 12 * *rounds {
			var d Detector
			l := newLossy(seed, 0, conns)
			for i := range l.conns {
				l.conns[i].out = 10_000
			}
			p := &poker{detector: &d, l: l, pings: true}
			const death = 10 * time.Second
			fell := time.Duration(0)
			for at := death - time.Second; fell == 0 && at < death+time.Minute; at += step {
				if at >= death {
					l.loss = 1
				}
				for _, c := range p.step(at) {
					if c.Verdict != Silent || at < death {
						t.Fatalf("%+v", c)
					}
					fell = at - death
				}
			}
			worst = max(worst, fell)
			if fell == 0 {
				worst = time.Minute
			}
		}
		t.Logf("%d connections: silent after %v at the most", conns, worst)
		if worst > 3500*time.Millisecond {
			t.Errorf("%d connections: silent after %v", conns, worst)
		}
	}
}

// What is heard of a poke lifts nothing, and does not outlive a sign of life or
// a gap.
func TestDetectorHears(t *testing.T) {
	t.Parallel()
	idle := func(at, quiet time.Duration) *fact.Machine {
		m := dead(at, quiet, false)
		m.Sockets = m.Sockets[:3]
		for i := range m.Sockets {
			s := &m.Sockets[i]
			s.Conn.Life = fact.Life{LastAck: quiet, RTO: lossyRTO}
			s.Timer = fact.TimerNone
		}
		return m
	}
	answer := Answer{Netns: 1, Addr: simPeer, Silent: true, Exchanges: 18}
	for name, test := range map[string]struct {
		exchanges   int
		quiet, late time.Duration
		fell        bool
	}{
		"asked for long enough":  {18, 2 * time.Second, 0, true},
		"too few":                {8, 2 * time.Second, 0, false},
		"heard meanwhile":        {18, 100 * time.Millisecond, 0, false},
		"not quiet for long":     {18, 1400 * time.Millisecond, 0, false},
		"did not run in between": {18, 2 * time.Second, time.Second, false},
	} {
		var d Detector
		at := 10 * time.Second
		for ; at < 12*time.Second; at += step {
			d.Look(idle(at, at-10*time.Second), step)
		}
		a := answer
		a.Began, a.Exchanges = scenarioTime.Add(10*time.Second+300*time.Millisecond), test.exchanges
		d.Hear(a)
		at += test.late
		changes := d.Look(idle(at, test.quiet+test.late), step)
		if fell := len(changes) == 1 && changes[0].Verdict == Silent; fell != test.fell {
			t.Errorf("%s: %+v", name, changes)
		}
	}
}
