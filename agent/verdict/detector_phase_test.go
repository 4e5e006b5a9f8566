package verdict

import (
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// inPhase is idle connections that were opened together, so that all are probed
// within a breath of each other, 10 s after the start.
func inPhase(conns int, breath time.Duration) *idlers {
	l := newIdlers(1, 0, conns)
	for i := range l.conns {
		l.conns[i].next = burst + breath*time.Duration(i)/time.Duration(conns)
	}
	return l
}

const burst = 10 * time.Second

// eventful watches as who is told of probes does: it looks seldom, a moment after
// a burst of probes, and often for as long as something is suspicious.
func (l *idlers) eventful(d *Detector, from, to, first time.Duration, each func(at time.Duration, changes []Change) (end bool)) {
	const seldom = 10 * time.Second
	looked, planned := from, seldom
	for at := from; at < to; {
		l.advance(at)
		if each(at, d.Look(l.look(), planned)) {
			return
		}
		looked, planned = at, seldom
		if d.Suspicious() || len(d.Asking()) > 0 {
			planned = step / 2
		}
		at = looked + planned
		if looked < burst && at > burst {
			at = burst + first
		}
	}
}

// Part of a burst of probes is lost, on this machine even, while all others are
// answered, and then nobody asks for 15 s: that says nothing of the peer, however
// the looks fall.
func TestDetectorSparesABurst(t *testing.T) {
	t.Parallel()
	const conns, lost = 200, 40
	for name, which := range map[string]func(i int) bool{
		"here and there": func(i int) bool { return i%(conns/lost) == 0 },
		"the last":       func(i int) bool { return i >= conns-lost },
		"the first":      func(i int) bool { return i < lost },
	} {
		for _, breath := range []time.Duration{time.Millisecond, 90 * time.Millisecond} {
			for first := time.Duration(0); first < 250*time.Millisecond; first += 30 * time.Millisecond {
				l, d := inPhase(conns, breath), Detector{}
				l.lose = which
				pokes := 0
				l.eventful(&d, 9*time.Second, 24*time.Second, first, func(at time.Duration, changes []Change) bool {
					if len(changes) > 0 {
						t.Errorf("%s of a burst of %v are lost, first look %v after it began: after %v %+v", name, breath, first, at, changes)
					}
					pokes += len(d.Suspects())
					return len(changes) > 0
				})
				if pokes == 0 && name != "the first" { // those were sent before the peer was heard
					t.Errorf("%s: nobody asks how the peer is", name)
				}
			}
		}
	}
}

// A peer whose connections are all probed at once, and that died since, is found
// by a poke: looking alone cannot tell this from a burst that was lost.
func TestDetectorFindsTheDeadInPhase(t *testing.T) {
	t.Parallel()
	for first := 10 * time.Millisecond; first < 250*time.Millisecond; first += 60 * time.Millisecond {
		l, d := inPhase(4224, 20*time.Millisecond), Detector{}
		l.loss = 1
		var poked, fell time.Duration
		l.eventful(&d, 9*time.Second, 24*time.Second, first, func(at time.Duration, changes []Change) bool {
			if s := d.Suspects(); poked == 0 && len(s) > 0 {
				poked = at
			}
			if poked > 0 && at-poked >= simShortest+simWait {
				d.Hear(Answer{Netns: 1, Addr: simPeer, Began: scenarioTime.Add(poked), Silent: true, Exchanges: 18})
			}
			for _, c := range changes {
				if c.Verdict != Silent || c.Count != 4224 {
					t.Errorf("after %v: %+v", at, c)
				}
				fell = at - burst
			}
			return fell > 0
		})
		if fell == 0 || fell > 2500*time.Millisecond {
			t.Errorf("first look %v after the burst: silent after %v", first, fell)
		}
	}
}

// A probe that was sent just before a look is nothing to be excited about, and is
// named for who can look at one socket alone.
func TestSuspicionTakesAMoment(t *testing.T) {
	t.Parallel()
	l, d := newIdlers(1, 0, 3000), Detector{}
	for at := step; at < 20*time.Second; at += step {
		l.advance(at)
		m := l.look()
		waiting := int(at/step)%len(m.Sockets) + 1
		m.Sockets[waiting].Conn.Probes, m.Sockets[waiting].Conn.LastAck = 1, 15*time.Second // its answer is under way
		if d.Look(m, step); at == step {
			continue
		}
		if d.Suspicious() || len(d.Suspects()) > 0 {
			t.Fatalf("after %v: suspicious for one probe", at)
		}
		if a := d.Asking(); len(a) != 1 || a[0].Cookie != m.Sockets[waiting].Cookie {
			t.Fatalf("after %v: asks: %+v", at, a)
		}
	}
	l.loss = 1
	suspicious := time.Duration(0)
	for at := 20 * time.Second; suspicious == 0; at += step {
		l.advance(at)
		if d.Look(l.look(), step); d.Suspicious() {
			suspicious = at - 20*time.Second
		}
	}
	if suspicious > 2*step {
		t.Errorf("suspicious only after %v", suspicious)
	}
}

// Where looks are late again and again, pokes go on, and the first look in time
// says what they found.
func TestDetectorHearsWhileLooksAreLate(t *testing.T) {
	t.Parallel()
	var d Detector
	d.Look(dead(0, 0, true), step)
	at, slow := time.Duration(0), step+2*lateness
	var began time.Duration
	for range 8 {
		at += slow
		if changes := d.Look(dead(at, at, false), step); len(changes) > 0 {
			t.Fatalf("judged by a look that was late: %+v", changes)
		}
		if began == 0 && len(d.Suspects()) > 0 {
			began = at
		}
		if at-began > 2*time.Second && began > 0 {
			d.Hear(Answer{Netns: 1, Addr: simPeer, Began: scenarioTime.Add(began), Silent: true, Exchanges: 18})
			break
		}
	}
	at += step
	if changes := d.Look(dead(at, at, false), step); len(changes) != 1 || changes[0].Verdict != Silent {
		t.Errorf("a poke was left unanswered: %+v, suspects %+v", changes, d.Suspects())
	}
	// One answer since takes it all back.
	var again Detector
	again.Look(dead(0, 0, true), step)
	again.Hear(Answer{Netns: 1, Addr: simPeer, Began: scenarioTime, Silent: true, Exchanges: 18})
	again.Look(dead(slow, 0, true), step)
	if changes := again.Look(dead(slow+step, step, false), step); len(changes) > 0 {
		t.Errorf("it was heard after the poke: %+v", changes)
	}
}

// What ends between two looks takes its signs of life along, so a probe that may
// have been sent long before it was seen is not counted.
func TestDetectorCountsOnlyCloseLooks(t *testing.T) {
	t.Parallel()
	probing := func(at time.Duration, probes uint8) *fact.Machine {
		m := dead(at, at+20*time.Second, false)
		for i := range m.Sockets {
			s := &m.Sockets[i]
			s.Conn.Life = fact.Life{LastAck: at + 20*time.Second, RTO: lossyRTO, Probes: probes}
			s.Timer = fact.TimerKeepAlive
		}
		return m
	}
	for apart, want := range map[time.Duration]bool{step: true, closeLooks + step: false} {
		var d Detector
		d.Look(probing(step/2, 0), 0)
		d.Look(probing(step, 0), step)
		fell := false
		for at := step + apart; at < step+apart+3*time.Second; at += step {
			fell = fell || len(d.Look(probing(at, 1), apart)) > 0
		}
		if fell != want {
			t.Errorf("looks %v apart: silent %v, want %v", apart, fell, want)
		}
	}
}
