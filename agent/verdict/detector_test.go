package verdict

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// step is how far apart the looks of these tests are.
const step = 250 * time.Millisecond

// bare is a look as a watch takes it: the options of sockets are not in it.
func bare(m *fact.Machine) *fact.Machine {
	for i := range m.Sockets {
		m.Sockets[i].Options = fact.Known[bound.Options]{}
	}
	return m
}

// TestDetectorSparesTheLiving watches connections that lose much: whenever it
// began, the peer is never said to be silent.
func TestDetectorSparesTheLiving(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conns  int
		seeds  uint64
		length time.Duration
	}{{1, 10, 5 * time.Minute}, {3, 10, 5 * time.Minute}, {10, 2, 3 * time.Minute}, {20, 2, 3 * time.Minute}, {1000, 1, 25 * time.Second}} {
		for _, loss := range []float64{0.05, 0.2, 0.4} {
			t.Run(fmt.Sprintf("%d connections under %.0f %% loss each way", test.conns, loss*100), func(t *testing.T) {
				t.Parallel()
				for seed := range test.seeds * *rounds {
					var d Detector
					l := newLossy(seed, loss, test.conns)
					for at := step; at < test.length; at += step {
						l.advance(at)
						if changes := d.Look(bare(l.look()), step); len(changes) > 0 {
							t.Errorf("seed %d, after %v: %+v", seed, at, changes)
							break
						}
					}
				}
			})
		}
	}
}

// TestDetectorSparesALossThatBegins has the loss begin on a path that was good
// for hours, so that nothing warns of it. With one or two connections, 40 %
// that begin cannot be told from a death by looking: there a poke must confirm.
func TestDetectorSparesALossThatBegins(t *testing.T) {
	t.Parallel()
	tries := 25 * *rounds
	for _, test := range []struct {
		conns int
		loss  float64
		most  int // times of 100 tries
	}{{1, 0.2, 2}, {3, 0.2, 0}, {3, 0.4, 2}, {10, 0.4, 0}, {20, 0.2, 0}, {20, 0.4, 0}} {
		t.Run(fmt.Sprintf("%d connections, %.0f %% loss", test.conns, test.loss*100), func(t *testing.T) {
			t.Parallel()
			wrong := 0
			for seed := range tries {
				var d Detector
				l := newLossy(seed, 0, test.conns)
				for i := range l.conns {
					l.conns[i].out = 10_000
				}
				l.advance(10 * time.Second)
				l.loss = test.loss
				for at := 10 * time.Second; at < 2*time.Minute; at += step {
					l.advance(at)
					if changes := d.Look(bare(l.look()), step); len(changes) > 0 {
						wrong++
						break
					}
				}
			}
			if wrong > (test.most*int(*rounds)+3)/4 {
				t.Errorf("%d of %d times said to be silent when loss began", wrong, tries)
			}
		})
	}
}

// TestDetectorFindsTheDead takes the path away, and gives it back: the verdict
// falls in time, once, and is lifted.
func TestDetectorFindsTheDead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conns  int
		within time.Duration
	}{{1, 16 * time.Second}, {3, 9 * time.Second}, {19, 6 * time.Second}, {20, 1500 * time.Millisecond}, {200, 1250 * time.Millisecond}, {1000, 1250 * time.Millisecond}} {
		for seed := range uint64(max(1, 3-test.conns/100)) {
			var d Detector
			l := newLossy(seed, 0.01, test.conns)
			const death = 100 * time.Second
			back := death + 20*time.Second
			var fell, lifted time.Duration
			for at := death - 2*time.Second; at < back+20*time.Second; at += step {
				l.advance(at)
				l.loss = 0.01
				if at >= death && at < back {
					l.loss = 1
				}
				if lifted > 0 && at > back+lifted+2*time.Second {
					break
				}
				for _, c := range d.Look(bare(l.look()), step) {
					switch {
					case c.Verdict == Silent && fell == 0:
						fell = at - death
					case c.Verdict == Alive && lifted == 0:
						lifted = at - back
					default:
						t.Errorf("%d connections: unexpected %+v", test.conns, c)
					}
				}
			}
			if fell <= 0 || fell > test.within || lifted <= 0 {
				t.Errorf("%d connections: silent after %v, want %v; lifted after %v", test.conns, fell, test.within, lifted)
			}
			t.Logf("%d connections: silent after %v, lifted %v after the path was back", test.conns, fell, lifted)
		}
	}
}

// idlers are connections on which nobody sends but keepalive, 15 s apart.
type idlers struct {
	random *rand.Rand
	loss   float64
	now    time.Duration
	conns  []idler
	lose   func(i int) bool // of these, every probe
}

type idler struct {
	lastAck, next time.Duration
	probes        int
}

const probeEvery = 15 * time.Second

func newIdlers(seed uint64, loss float64, conns int) *idlers {
	l := &idlers{random: rand.New(rand.NewPCG(seed, 2)), loss: loss, conns: make([]idler, conns)}
	for i := range l.conns {
		l.conns[i].next = time.Duration(l.random.Int64N(int64(probeEvery)))
	}
	return l
}

func (l *idlers) advance(to time.Duration) {
	for i := range l.conns {
		for c := &l.conns[i]; c.next <= to; c.next += probeEvery {
			probe, answer := l.random.Float64(), l.random.Float64()
			if probe >= l.loss && answer >= l.loss && (l.lose == nil || !l.lose(i)) {
				c.probes, c.lastAck = 0, c.next
			} else if c.probes++; c.probes > 9 {
				*c = idler{lastAck: c.next, next: c.next} // ended, and dialled anew
			}
		}
	}
	l.now = to
}

func (l *idlers) look() *fact.Machine {
	m := &fact.Machine{Time: scenarioTime.Add(l.now)}
	for i := range l.conns {
		c := &l.conns[i]
		age := l.now - c.lastAck
		m.Sockets = append(m.Sockets, fact.Socket{
			Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Netns: 1, Cookie: uint64(i + 1),
			Local:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), uint16(30000+i)),
			Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 2}), 443),
			Timer:  fact.TimerKeepAlive, TimerLeft: c.next - l.now,
			Conn: &fact.Conn{Life: fact.Life{LastAck: age, RTO: lossyRTO, Probes: uint8(c.probes)},
				Exchange: fact.Exchange{LastSent: age, LastReceived: age, SegmentsOut: fact.Seen(uint32(200))}},
		})
	}
	return m
}

func TestDetectorWatchesTheIdle(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conns  int
		within time.Duration
	}{{20, 15 * time.Second}, {200, 4 * time.Second}, {1000, 1250 * time.Millisecond}} {
		var d Detector
		l := newIdlers(1, 0.05, test.conns)
		const death = time.Minute
		fell := time.Duration(0)
		for at := death - 10*time.Second; fell == 0 && at < 2*death; at += step {
			if at > death {
				l.loss = 1
			}
			l.advance(at)
			for _, c := range d.Look(l.look(), step) {
				if c.Verdict != Silent || at <= death || c.Count != test.conns {
					t.Fatalf("%d connections, after %v: %+v", test.conns, at, c)
				}
				fell = at - death
			}
		}
		if fell == 0 || fell > test.within {
			t.Errorf("%d idle connections: silent after %v, want %v", test.conns, fell, test.within)
		}
		t.Logf("%d idle connections: silent after %v", test.conns, fell)
	}
	for _, loss := range []float64{0.05, 0.2, 0.4} {
		for _, conns := range []int{1, 3, 20, 200} {
			for seed := range uint64(4 - conns/100) {
				var d Detector
				l := newIdlers(seed, loss, conns)
				for at := step; at < 2*time.Minute; at += step {
					l.advance(at)
					if changes := d.Look(l.look(), step); len(changes) > 0 {
						t.Fatalf("%d idle connections under %.0f %% loss, seed %d, after %v: %+v", conns, loss*100, seed, at, changes)
					}
				}
			}
		}
	}
}

// A pause of the path in the moment in which all idle connections are probed is
// no death.
func TestDetectorSparesAPause(t *testing.T) {
	t.Parallel()
	l := newIdlers(1, 0, 100)
	for i := range l.conns {
		l.conns[i].next = 10*time.Second + 100*time.Millisecond
		l.conns[i].lastAck = 0
	}
	var d Detector
	for at := step; at < 30*time.Second; at += step {
		l.advance(at)
		m := l.look()
		if probed := 10*time.Second + 100*time.Millisecond; at > probed && at < probed+500*time.Millisecond {
			for i := range m.Sockets {
				m.Sockets[i].Conn.Probes, m.Sockets[i].Conn.LastAck = 1, at
			}
		}
		if changes := d.Look(m, step); len(changes) > 0 {
			t.Fatalf("after %v: %+v", at, changes)
		}
	}
}

// dead is a peer that has not answered for so long, on many sockets that
// retransmit; closed says that it shows a closed window and answers probes.
func dead(at, silence time.Duration, closed bool) *fact.Machine {
	m := &fact.Machine{Time: scenarioTime.Add(at)}
	for i := range 100 {
		s := fact.Socket{Protocol: fact.TCP, State: fact.Established, Netns: 1, Cookie: uint64(i + 1),
			Local:  netip.MustParseAddrPort("10.0.0.1:40000"),
			Remote: netip.MustParseAddrPort("10.0.0.2:443"),
			Conn:   &fact.Conn{Life: fact.Life{LastAck: silence, RTO: 4 * lossyRTO, Unacked: 1, Retransmits: 2, Backoff: 2}, Exchange: fact.Exchange{LastReceived: silence}}}
		s.Conn.LastSent, s.Timer, s.TimerLeft = silence, fact.TimerResend, 600*time.Millisecond
		if closed {
			s.Conn.Life = fact.Life{LastAck: silence, RTO: lossyRTO, NotSent: 1 << 16, Probes: 1, SendWindow: fact.Seen(uint32(0))}
			s.Timer = fact.TimerProbe
		}
		m.Sockets = append(m.Sockets, s)
	}
	return m
}

// A peer that does not read has a closed window. It answers the probes of it,
// more and more rarely, and is alive.
func TestDetectorSparesAClosedWindow(t *testing.T) {
	t.Parallel()
	var d Detector
	answered, wait := time.Duration(0), lossyRTO
	for at := step; at < time.Minute; at += step {
		if at-answered > wait {
			answered, wait = at, 2*wait
		}
		if changes := d.Look(dead(at, at-answered, true), step); len(changes) > 0 {
			t.Fatalf("after %v: %+v", at, changes)
		}
	}
}

// A watcher that did not run, or a machine that stood still, proves nothing:
// silences begin anew with the look after.
func TestDetectorDoesNotJudgeAGap(t *testing.T) {
	t.Parallel()
	for name, gap := range map[string]time.Duration{"starved": time.Second, "stood still": time.Hour} {
		var d Detector
		at := time.Duration(0)
		for range 8 { // well
			at += step
			d.Look(dead(at, 10*time.Millisecond, true), step)
		}
		at += gap
		if changes := d.Look(dead(at, gap, false), step); len(changes) > 0 {
			t.Errorf("%s: judged by the gap: %+v", name, changes)
		}
		if !d.Suspicious() {
			t.Errorf("%s: after a gap the next look is worth its cost", name)
		}
		took := time.Duration(0)
		for len(d.Look(dead(at+took, gap+took, false), step)) == 0 && took < time.Minute {
			took += step
		}
		if took < watchedLargePeer || took > 2*watchedLargePeer {
			t.Errorf("%s: then silent after %v", name, took)
		}
	}
}

// A path that was quiet often and lived must be quiet for longer.
func TestDetectorLearns(t *testing.T) {
	t.Parallel()
	var d Detector
	d.peers = map[peerKey]*memory{}
	for at := step; at < 2*time.Second; at += step {
		d.Look(dead(at, 0, true), step)
	}
	key := keyOf(&dead(0, 0, false).Sockets[0])
	d.peers[key] = &memory{survived: 500, survivedAt: scenarioTime, heard: scenarioTime}
	if changes := d.Look(dead(2*time.Second, 1500*time.Millisecond, false), step); len(changes) > 0 {
		t.Errorf("it has left 500 exchanges unanswered before: %+v", changes)
	}
	for at := 2*time.Second + step; at < remembered+time.Minute; at += step {
		d.Look(dead(at, 0, true), step)
	}
	if len(d.peers) > 0 {
		t.Errorf("still remembered: %+v", d.peers[key])
	}
}

// A verdict whose connections are all gone is lifted as unsure.
func TestDetectorWithoutConnections(t *testing.T) {
	t.Parallel()
	var d Detector
	var all []Change
	for at := step; at < 3*time.Second; at += step {
		m := dead(at, at, false)
		if at > 2*time.Second {
			m.Sockets = nil
		}
		all = append(all, d.Look(m, step)...)
	}
	if len(all) != 2 || all[0].Verdict != Silent || all[1].Verdict != Unsure || all[1].Count != 0 || all[1].Addr != all[0].Addr || len(d.peers) != 0 {
		t.Errorf("got %+v", all)
	}
}

func BenchmarkDetector(b *testing.B) {
	for _, troubled := range []int{0, 1, 4224} {
		b.Run(fmt.Sprintf("troubled=%d", troubled), func(b *testing.B) {
			m, _, err := parse(fmt.Sprintf("socket %dx tcp estab 10.0.0.1:443 10.77.1.2:20000+ ack=14s unacked=1 retrans=5 out=40\nsocket 15000x tcp estab 10.0.0.1:443 10.20.0.1+:40000 ack=9s out=40", max(troubled, 1)))
			if err != nil {
				b.Fatal(err)
			}
			if troubled == 0 {
				m.Sockets = m.Sockets[1:]
			}
			var d Detector
			for b.Loop() {
				m.Time = m.Time.Add(step)
				d.Look(m, step)
			}
		})
	}
}
