package names

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// leastPatience is how long an answer is waited for at least before the next
	// way or server is asked too: more than a round trip within a country, and
	// little beside what a user notices.
	leastPatience = 30 * time.Millisecond

	// One that did not answer is asked again after firstPause, and each time after
	// twice as long, up to longestPause: beside the others, so that nobody waits.
	firstPause   = time.Second
	longestPause = 30 * time.Second

	// crowd is how many questions at a time a way of the system is asked before those
	// who could as well be asked get their turn first: each costs the C library many
	// times what a question costs here, and the processors are soon busy with that.
	crowd = 16
)

// errSilent is the error of whoever did not answer before another did.
var errSilent = errors.New("no answer yet when another gave one, or time ran out")

// Health is how a way has done.
type Health struct {
	Way      string        // its name
	System   bool          // it speaks for the operating system; else it is a file, or a server that the system would ask
	Smoothed time.Duration // how long its answers take, smoothed; 0 when there was none
	Answered time.Time     // when it last answered
	Err      error         // the last that went wrong; nil when nothing did
	Failed   time.Time     // when that was
	Dead     bool          // it did not answer when it was asked last, and is asked after the others
}

// health remembers how a way or a server does. The zero value knows nothing and
// is taken as well.
type health struct {
	mu       sync.Mutex
	smoothed time.Duration
	answered time.Time
	err      error
	failed   time.Time
	missed   int       // 0 = it answers; else how often it was asked again
	pause    time.Time // when it is asked again

	busy atomic.Int32 // questions that it has not answered
}

// did notes an answer, a no among them, that took so long. What it missed before
// is forgotten.
func (h *health) did(took time.Duration) {
	const weight = 8 // of what is known beside one more time, as of TCP's round trips, RFC 6298
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.smoothed == 0 {
		h.smoothed = took
	} else {
		h.smoothed += (took - h.smoothed) / weight
	}
	h.answered, h.missed = time.Now(), 0
}

// failedBy notes an error that it reported itself, and that it therefore did not
// keep anybody waiting.
func (h *health) failedBy(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err, h.failed = err, time.Now()
}

// miss notes that what was asked at began was not answered. That is held against
// it when it had the time, and answered nobody else since.
func (h *health) miss(began time.Time) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(began) < h.patienceLocked() || h.answered.After(began) {
		return
	}
	h.err, h.failed = errSilent, now
	if h.missed == 0 {
		h.missed, h.pause = 1, now.Add(firstPause)
	}
}

// dead reports that it did not answer, and has not since: it is asked after the
// others.
func (h *health) dead() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.missed > 0
}

// crowded reports that it has enough to do.
func (h *health) crowded() bool { return h.busy.Load() >= crowd }

// due reports whether it is time to ask one that is dead whether it is back. It
// says so once.
func (h *health) due() bool {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.missed == 0 || now.Before(h.pause) {
		return false
	}
	h.pause = now.Add(min(firstPause<<min(h.missed, 5), longestPause))
	h.missed++
	return true
}

// patience is how long to wait for it before somebody else is asked too.
func (h *health) patience() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.patienceLocked()
}

func (h *health) patienceLocked() time.Duration { return max(leastPatience, 2*h.smoothed) }

// report tells what is known.
func (h *health) report(way string, system bool) Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Health{
		Way: way, System: system, Smoothed: h.smoothed, Answered: h.answered, Err: h.err, Failed: h.failed,
		Dead: h.missed > 0,
	}
}
