package lifeline

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/internal/tcpinfo"
)

// tick is how often the watcher wakes while there is something to watch.
const tick = 250 * time.Millisecond

// blur is how far the kernel's times, which are in ticks of its clock, may be off.
const blur = 20 * time.Millisecond

// seldom is the longest time between two looks: so long a connection may be
// kept in memory that the program has forgotten.
const seldom = 10 * time.Second

// inFlight watches all connections of this process that have something
// unacknowledged, or that somebody waits for.
var inFlight watcher

// A watcher looks at connections until nothing of theirs is unacknowledged and
// nobody waits for them, or the peer has been silent for too long. It has one
// goroutine, which is there only while there is something to watch.
//
// Idle connections are keepalive's, which is enough as long as this machine can
// send. A probe that does not get through its own queues (a qdisc that drops, a
// full backlog behind a veth) does not count, and the kernel tries again twice a
// second without an end: TCP_RESOURCE_PROBE_INTERVAL in tcp_keepalive_timer of
// net/ipv4/tcp_timer.c. So those that somebody waits for are looked at too,
// once when keepalive should have heard from the peer long ago.
type watcher struct {
	mu      sync.Mutex
	fresh   []*silence // since the last pass
	running bool

	closed atomic.Bool // some connection was, since the last pass
}

// watched is what a watcher needs of a connection. No method may wait.
type watched interface {
	// gone reports whether the program has closed the connection.
	gone() bool
	// look returns what the kernel knows; an error when the connection is closed.
	look() (tcpinfo.Info, error)
	// settle is called when everything was acknowledged. It reports whether the
	// connection is to be forgotten: there is still nothing to wait for, or
	// somebody else has already added it again.
	settle() bool
	// kept reports whether keepalive would have asked twice in such a silence.
	kept(quiet time.Duration) bool
	// condemn gives the connection up.
	condemn(quiet time.Duration)
}

// A rule is [Policy.Silence] in the watcher's terms.
type rule struct {
	limit  time.Duration // of silence
	period time.Duration // between two looks, while the limit is far and it cannot be told when it will be near
	idle   time.Duration // limit of an idle connection, of which keepalive should have said so before
	probed time.Duration // the longest that a peer can be silent before keepalive gives it up
}

// near is the silence after which every look may be the last.
func (r rule) near() time.Duration { return r.limit - 2*r.period }

func (p Policy) rule() rule {
	p = p.settled()
	return rule{
		limit:  p.Silence - 4*tick, // one to the next look at it, the others for an overloaded machine
		period: min(max(p.Silence/10, 2*tick), 2*time.Second),
		idle:   p.Silence - 2*tick,
		probed: p.Silence,
	}
}

// add watches one more connection.
func (w *watcher) add(c watched, r rule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh = append(w.fresh, &silence{conn: c, rule: r})
	if !w.running {
		w.running = true
		go w.run()
	}
}

// run looks at all connections that are due, until there are none left.
func (w *watcher) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var (
		cases []*silence
		fresh []*silence
	)
	for {
		<-ticker.C
		clear(fresh)
		w.mu.Lock()
		fresh, w.fresh = w.fresh, fresh[:0]
		if len(cases)+len(fresh) == 0 {
			w.running = false
			w.fresh = nil
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		now, closed := time.Now(), w.closed.Swap(false)
		cases = slices.DeleteFunc(append(cases, fresh...), func(s *silence) bool {
			return closed && s.conn.gone() || s.over(now)
		})
	}
}

// A silence is what the watcher knows of one connection.
type silence struct {
	conn   watched
	rule   rule
	seen   time.Time // time of the last look
	due    time.Time // time of the next
	asked  time.Time // since when the peer is known to have left something unanswered; zero when it has not
	resent uint32    // segments that had been sent again when it last answered
}

// over looks at the connection if it is due and reports whether that was the
// last time.
func (s *silence) over(now time.Time) bool {
	if now.Before(s.due) {
		return false
	}
	info, err := s.conn.look()
	if err != nil || info.Closed {
		return true // closed by the program, or ended by the kernel, which tells it
	}
	if isIdle(info) && s.conn.settle() {
		return true
	}
	quiet, dead := s.judge(now, info)
	if dead {
		s.conn.condemn(quiet)
		return true
	}
	s.due = now.Add(s.wait(quiet, info))
	return false
}

// judge reports how long the peer has been silent, and whether that is too long.
//
// It is dead when it has left something unanswered, the kernel has asked again
// twice, and it was silent for the limit. On an idle connection it is enough
// that keepalive should have asked: it may have been unable to.
//
// The time since the peer's last acknowledgement counts, and with it an idle time
// before, in which keepalive was not answered either. A time longer than keepalive
// would have allowed is not silence that somebody listened to: keepalive was off,
// or the machine paused. Then the time counts from when something was first
// unanswered.
func (s *silence) judge(now time.Time, info tcpinfo.Info) (quiet time.Duration, dead bool) {
	acked := now.Add(-info.LastAck)
	if acked.After(s.seen.Add(-blur)) {
		s.asked, s.resent = time.Time{}, info.Resent
	}
	s.seen = now
	unanswered := s.unanswered(info)
	unheard := isIdle(info) && info.LastAck >= s.rule.near() && s.conn.kept(info.LastAck)
	if !unanswered && !unheard {
		s.asked = time.Time{}
		return info.LastAck, false
	}
	if s.asked.IsZero() {
		s.asked = now
	}
	since := acked
	if s.asked.Sub(acked) > s.rule.probed {
		since = s.asked
	}
	quiet = now.Sub(since)
	if unanswered && quiet >= s.rule.limit && max(info.Retransmits, info.Probes) >= 2 {
		return quiet, true
	}
	return quiet, unheard && quiet >= s.rule.idle
}

// wait returns the time until the next look. A peer that answers now is looked
// at again when its next silence may be too long, if it has begun by then.
func (s *silence) wait(quiet time.Duration, info tcpinfo.Info) time.Duration {
	left := s.rule.near() - quiet
	switch {
	case left > 0:
		return min(left, seldom)
	case s.asked.IsZero() || quiet >= s.rule.probed: // nothing to answer, or the kernel has not asked again
		return s.rule.period
	case isIdle(info):
		return max(s.rule.idle-quiet, tick)
	}
	return tick
}

// isIdle reports whether the peer has nothing to acknowledge.
func isIdle(info tcpinfo.Info) bool { return info.Unacked == 0 && info.Unsent == 0 }

// unanswered reports whether the kernel has sent something that the peer has to
// answer and has not.
//
// A peer whose window is closed owes nothing until it is asked: by a probe or,
// where it closed the window on data that was under way, by sending that data
// again (tcp_retransmit_timer in net/ipv4/tcp_timer.c). That may be up to two
// minutes after its last answer, so for a slow reader the time since then says
// nothing by itself.
func (s *silence) unanswered(info tcpinfo.Info) bool {
	if info.Probes > 0 {
		return true
	}
	return info.Unacked > 0 && (info.Window > 0 || info.Resent != s.resent)
}
