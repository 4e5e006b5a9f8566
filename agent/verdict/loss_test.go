package verdict

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// lossy plays connections with a living peer over a path that loses packets at
// random, each way alike: every connection sends a segment a second and backs
// off as TCP does. Its snapshots are what a look would see.
type lossy struct {
	random *rand.Rand
	loss   float64
	now    time.Duration
	conns  []lossyConn
}

type lossyConn struct {
	lastAck, lastSent time.Duration
	waiting           bool // for an acknowledgement
	retransmits       int
	next              time.Duration // retransmission, or the next segment
	out, again        uint32
}

const lossyRTO = 200 * time.Millisecond

func newLossy(seed uint64, loss float64, conns int) *lossy {
	l := &lossy{random: rand.New(rand.NewPCG(seed, 1)), loss: loss, conns: make([]lossyConn, conns)}
	for i := range l.conns {
		l.conns[i].next = time.Duration(l.random.Int64N(int64(time.Second)))
	}
	return l
}

func (l *lossy) passes() bool { return l.random.Float64() > l.loss }

// advance plays until a moment. A connection that has had enough is opened anew.
func (l *lossy) advance(to time.Duration) {
	for i := range l.conns {
		for c := &l.conns[i]; c.next <= to; {
			if c.retransmits >= 15 {
				*c = lossyConn{lastAck: c.next, next: c.next + time.Second}
				continue
			}
			if c.waiting {
				c.retransmits++
				c.again++
			}
			c.out++
			c.lastSent, c.waiting = c.next, true
			there, back := l.passes(), l.passes()
			if there && back {
				*c = lossyConn{lastAck: c.next, lastSent: c.next, next: c.next + time.Second, out: c.out, again: c.again}
				continue
			}
			c.next += min(lossyRTO<<c.retransmits, 120*time.Second)
		}
	}
	l.now = to
}

func (l *lossy) look() *fact.Machine {
	m := &fact.Machine{Time: scenarioTime.Add(l.now), Namespaces: []fact.Namespace{{Inode: 1, Sysctl: fact.Seen(bound.Sysctl{})}}}
	for i := range l.conns {
		c := &l.conns[i]
		s := fact.Socket{
			Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Netns: 1, Cookie: uint64(i + 1),
			Local:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), uint16(30000+i)),
			Remote:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), 443),
			Options: fact.Seen(bound.Options{KeepAlive: true}),
			Conn:    &fact.Conn{},
		}
		s.Conn.LastAck, s.Conn.LastSent, s.Conn.LastReceived = l.now-c.lastAck, l.now-c.lastSent, l.now-c.lastAck
		s.Conn.SegmentsOut, s.Conn.TotalRetransmit = fact.Seen(c.out), c.again
		s.Conn.RTO = lossyRTO
		if c.waiting {
			s.Conn.Unacked, s.Conn.Retransmits, s.Conn.Backoff = 1, uint8(c.retransmits), uint8(c.retransmits)
			s.Conn.RTO = min(lossyRTO<<c.retransmits, 120*time.Second)
			s.Timer, s.TimerLeft = fact.TimerResend, c.next-l.now
		}
		m.Sockets = append(m.Sockets, s)
	}
	return m
}

// peerVerdict is the severity of S001 in a look, -1 without.
func peerVerdict(m *fact.Machine) int {
	for _, f := range Judge(m) {
		if f.Code == silentPeer.Code {
			return int(f.Severity)
		}
	}
	return -1
}

// TestLivingPeer looks every second at connections that lose much: the peer is
// never said to be silent, and at 5 % not even suspected.
func TestLivingPeer(t *testing.T) {
	t.Parallel()
	for _, loss := range []float64{0.05, 0.2, 0.4} {
		for _, conns := range []int{1, 2, 3, 10, 30} {
			unsure := 0
			for seed := range 2 * *rounds {
				l := newLossy(seed, loss, conns)
				var before *fact.Machine
				for at := time.Second; at < 3*time.Minute; at += time.Second {
					l.advance(at)
					m := l.look()
					m.Earlier = before
					switch peerVerdict(m) {
					case int(Fail):
						t.Fatalf("%d connections under %.0f %% loss each way, seed %d, after %v: said to be silent", conns, loss*100, seed, at)
					case int(Warn):
						unsure++
					}
					before, m.Earlier = m, nil
				}
			}
			if unsure > 0 && loss < 0.1 {
				t.Errorf("%d connections under %.0f %% loss each way were suspected %d times", conns, loss*100, unsure)
			}
		}
	}
}

// TestDyingPeer takes the path away from connections that send once a second
// and lost 1 % before, and counts the seconds until the verdict.
func TestDyingPeer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conns  int
		within time.Duration
	}{{1, 30 * time.Second}, {3, 18 * time.Second}, {10, 18 * time.Second}, {30, 6 * time.Second}, {1000, 6 * time.Second}} {
		l := newLossy(1, 0.01, test.conns)
		const death = 3 * time.Minute
		l.advance(death)
		l.loss = 1
		before := l.look()
		at := death
		for verdict := -1; verdict != int(Fail); {
			if at += time.Second; at > death+5*time.Minute {
				t.Fatalf("%d connections: never noticed", test.conns)
			}
			l.advance(at)
			m := l.look()
			m.Earlier = before
			verdict = peerVerdict(m)
			before, m.Earlier = m, nil
		}
		if took := at - death; took > test.within {
			t.Errorf("%d connections: silent after %v, want %v", test.conns, took, test.within)
		} else {
			t.Logf("%d connections: silent after %v", test.conns, took)
		}
	}
}
