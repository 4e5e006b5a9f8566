package lifeline

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline/internal/tcpinfo"
)

// A patient stands for a connection.
type patient struct {
	policy    Policy
	condemned chan time.Duration

	mu      sync.Mutex
	settled bool
	closed  bool
	asks    bool // keepalive is on
	state   tcpinfo.Info
	acked   time.Time // state.LastAck is computed from it
	looks   int
}

func newPatient(state tcpinfo.Info) *patient {
	return &patient{state: state, acked: time.Now(), condemned: make(chan time.Duration, 1)}
}

func (p *patient) gone() bool                  { return false }
func (p *patient) condemn(quiet time.Duration) { p.condemned <- quiet }

// change changes what the next look sees.
func (p *patient) change(f func(p *patient)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *patient) settle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.settled
}

func (p *patient) kept(time.Duration) bool { return p.asks }

func (p *patient) look() (tcpinfo.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	if p.closed {
		return tcpinfo.Info{}, errors.New("closed")
	}
	info := p.state
	info.LastAck = time.Since(p.acked)
	return info, nil
}

func (p *patient) looked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.looks
}

// lost is a connection whose data is lost, as the kernel sees it.
var lost = tcpinfo.Info{Unacked: 1, Window: 65535, Retransmits: 5}

// idle is a connection with nothing to wait for.
var idle = tcpinfo.Info{Window: 65535}

// watching runs a test with a watcher in a bubble, where the time is exact, and
// checks that the watcher's goroutine ends when nothing is left to watch.
func watching(t *testing.T, test func(t *testing.T, w *watcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		test(t, &w)
		time.Sleep(seldom + tick) // in which the last patients are looked at, and found settled
		if !w.ended() {
			t.Fatal("the watcher goes on with nothing to watch")
		}
	})
}

func (w *watcher) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.running
}

// The watcher gives a peer up within Silence of its last answer, by its
// own clock to the tick, whatever the policy.
func TestWatcherNotices(t *testing.T) {
	for _, within := range []time.Duration{0, 6 * time.Second, 7 * time.Second, 30 * time.Second, 10 * time.Minute} {
		watching(t, func(t *testing.T, w *watcher) {
			p := newPatient(lost)
			p.policy.Silence = within
			w.add(p, p.policy.rule())
			began := time.Now()
			quiet := <-p.condemned
			bound := p.policy.settled().Silence
			if took := time.Since(began); took > bound || quiet > bound || took < bound*3/4 {
				t.Errorf("noticed %v after %v, the bound is %v", quiet, took, bound)
			}
		})
	}
}

// Every case is a peer that answered last when the test began, at second 0.
func TestWatcherIsJust(t *testing.T) {
	for name, test := range map[string]struct {
		state tcpinfo.Info
		later func(p *patient) // at second 10
		dies  time.Duration    // 0 when it must live for an hour
	}{
		"data unanswered":                         {state: lost, dies: 20 * time.Second},
		"data answered in time":                   {state: lost, later: func(p *patient) { p.acked = time.Now() }, dies: 30 * time.Second},
		"window closed, probes answered":          {state: tcpinfo.Info{Retransmits: 9}},
		"window closed, one probe unanswered":     {state: tcpinfo.Info{Probes: 1}},
		"window closed, two probes unanswered":    {state: tcpinfo.Info{Probes: 2}, dies: 20 * time.Second},
		"window taken back, not asked":            {state: tcpinfo.Info{Unacked: 3, Retransmits: 3, Resent: 7}},
		"window taken back, asked and unanswered": {state: tcpinfo.Info{Unacked: 3, Retransmits: 3, Resent: 7}, later: func(p *patient) { p.state.Resent++ }, dies: 20 * time.Second},
		"sent once, kernel has not asked again":   {state: tcpinfo.Info{Unacked: 1, Window: 1}},
		"all acknowledged while it is written to": {state: tcpinfo.Info{Window: 1, Retransmits: 9}},
		"idle, and keepalive cannot ask":          {state: idle, later: func(p *patient) { p.asks = true }, dies: 20 * time.Second},
		"idle, and keepalive could ask once":      {state: tcpinfo.Info{Window: 1, Probes: 1}, later: func(p *patient) { p.asks = true }, dies: 20 * time.Second},
		"idle, without keepalive":                 {state: idle},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, func(t *testing.T, w *watcher) {
				p := newPatient(test.state)
				began := time.Now()
				w.add(p, p.policy.rule())
				time.Sleep(10 * time.Second)
				if test.later != nil {
					p.change(test.later)
				}
				select {
				case <-p.condemned:
					if took := time.Since(began); test.dies == 0 || took > test.dies || took < test.dies-2*time.Second {
						t.Errorf("given up after %v, want %v", took, test.dies)
					}
				case <-time.After(time.Hour):
					if test.dies > 0 {
						t.Error("not given up")
					}
					p.change(func(p *patient) { p.settled, p.state = true, tcpinfo.Info{} })
				}
			})
		})
	}
}

// An idle time in which keepalive would have noticed is not silence: nobody
// listened.
func TestWatcherAfterLongIdleTime(t *testing.T) {
	watching(t, func(t *testing.T, w *watcher) {
		p := newPatient(lost)
		time.Sleep(time.Hour)
		began := time.Now()
		w.add(p, p.policy.rule())
		<-p.condemned
		if took := time.Since(began); took < 18*time.Second || took > 20*time.Second {
			t.Errorf("given up after %v", took)
		}
	})
}

// A silence that keepalive had begun to notice goes on.
func TestWatcherAddsToKeepAlive(t *testing.T) {
	watching(t, func(t *testing.T, w *watcher) {
		p := newPatient(lost)
		time.Sleep(17 * time.Second)
		w.add(p, p.policy.rule())
		<-p.condemned
		if quiet := time.Since(p.acked); quiet > 20*time.Second {
			t.Errorf("silent for %v", quiet)
		}
	})
}

// A peer that answers is looked at seldom, and still noticed in time when it
// stops: idle and waiting for room, which is what many connections do at once.
func TestWatcherLooksSeldom(t *testing.T) {
	for _, silence := range []time.Duration{6 * time.Second, 20 * time.Second, 10 * time.Minute} {
		for name, state := range map[string]tcpinfo.Info{"idle": idle, "stalled": {Unsent: 1}} {
			t.Run(name+" "+silence.String(), func(t *testing.T) {
				watching(t, func(t *testing.T, w *watcher) {
					const lives = time.Hour
					p := newPatient(state)
					p.asks, p.policy.Silence = true, silence
					w.add(p, p.policy.rule())
					for began := time.Now(); time.Since(began) < lives; time.Sleep(silence / 10) { // as answers to keepalive come
						p.change(func(p *patient) { p.acked = time.Now() })
					}
					if most := int(lives / min(silence/2, seldom)); p.looked() > most {
						t.Errorf("looked %d times in %v, want %d", p.looked(), lives, most)
					}
					died := time.Now()
					if state.Unsent > 0 {
						p.change(func(p *patient) { p.state.Probes = 2 })
					}
					<-p.condemned
					if took := time.Since(died); took > silence || took < silence*3/4 {
						t.Errorf("noticed after %v", took)
					}
				})
			})
		}
	}
}

// After a pause of the machine, in which nobody could listen, peers have their
// time to answer.
func TestWatcherAfterPause(t *testing.T) {
	watching(t, func(t *testing.T, w *watcher) {
		p := newPatient(idle)
		p.asks = true
		p.acked = p.acked.Add(-time.Hour)
		w.add(p, p.policy.rule())
		time.Sleep(15 * time.Second)
		if n := len(p.condemned); n > 0 {
			t.Error("given up before it could answer")
		}
		p.change(func(p *patient) { p.settled = true })
	})
}

// The goroutine is there only while there is something to watch.
func TestWatcherEnds(t *testing.T) {
	watching(t, func(t *testing.T, w *watcher) {
		for range 3 {
			settles, closes, lives := newPatient(lost), newPatient(lost), newPatient(tcpinfo.Info{})
			settles.settled, settles.state, closes.closed = true, tcpinfo.Info{}, true
			for _, p := range []*patient{settles, closes, lives} {
				w.add(p, p.policy.rule())
			}
			time.Sleep(10 * time.Second)
			if n := settles.looked(); n != 1 {
				t.Errorf("looked %d times at what had settled", n)
			}
			if n := closes.looked(); n != 1 {
				t.Errorf("looked %d times at what was closed", n)
			}
			if n := lives.looked(); n != 1 {
				t.Errorf("looked %d times in 10 s", n)
			}
			if w.ended() {
				t.Error("ended with a connection to watch")
			}
			lives.change(func(p *patient) { p.settled = true })
			time.Sleep(seldom + tick)
			if !w.ended() {
				t.Error("goes on with nothing to watch")
			}
		}
	})
}
