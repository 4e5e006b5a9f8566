package lifelinetest

import (
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/ledger"
)

// An origin is who opened a connection of package lifeline.
type origin struct {
	test   string
	askers [][]frame // stacks of the goroutines that wait for it, or started one another, the next first
}

// origins are those of connections since somebody follows them.
var origins struct {
	sync.Mutex
	followers int
	tests     int // of them: those that need to know of each connection whose it is
	stop      func()
	of        map[uint64]origin // by ID of the entry
	enough    int               // so many are kept before those are dropped whose connections are closed
	began     time.Time
	read      int     // bytes of what the runtime printed of all goroutines
	pace      float64 // nanoseconds for each, where it was quickest
}

// follow keeps the origins of what is opened until stop is called.
func follow(test int) (stop func()) {
	origins.Lock()
	defer origins.Unlock()
	origins.tests += test
	if origins.followers++; origins.followers == 1 {
		origins.of, origins.enough = make(map[uint64]origin), 10_000
		origins.began, origins.read, origins.pace = time.Now(), 0, 0
		origins.stop = ledger.OnOpen(remember)
	}
	return func() {
		origins.Lock()
		defer origins.Unlock()
		origins.tests -= test
		if origins.followers--; origins.followers == 0 {
			origins.stop()
			origins.of = nil
		}
	}
}

const (
	// allowance is for how long all goroutines may be looked at before it is weighed
	// what that takes.
	allowance = 250 * time.Millisecond

	// effort is how many bytes about them may be read before it is: where much else
	// runs, even the quickest look has waited for its turn.
	effort = 4 << 20
)

// remember keeps the origin of an entry. It runs on the goroutine that opens it.
//
// To look at all goroutines takes its time. Where that has taken more than a tenth
// of all time, [allowance] and [effort], it looks at this one only, and not even that
// when nobody asks whose the connection is. All looks count as if they had been as quick as the quickest:
// on a busy machine one may wait long for its turn.
func remember(e ledger.Entry) {
	began := time.Now()
	origins.Lock()
	spent := time.Duration(float64(origins.read) * origins.pace)
	thorough, light := origins.read < effort || spent <= time.Since(origins.began)/10+allowance, origins.tests > 0
	origins.Unlock()
	var o origin
	var read int
	switch {
	case thorough:
		o, read = trace()
	case light:
		if g := parse(stacks(false)); g != nil {
			o = origin{test: g.test, askers: g.askers}
		}
	default:
		return
	}
	took := time.Since(began)
	origins.Lock()
	defer origins.Unlock()
	if read > 0 {
		pace := float64(took) / float64(read)
		if origins.read == 0 || pace < origins.pace {
			origins.pace = pace
		}
		origins.read += read
	}
	if origins.of == nil {
		return
	}
	if len(origins.of) >= origins.enough {
		forget()
	}
	origins.of[e.ID] = o
}

// forget drops the origins of what is closed. The caller holds the lock.
func forget() {
	open := make(map[uint64]bool)
	for _, e := range ledger.Open() {
		open[e.ID] = true
	}
	for id := range origins.of {
		if !open[id] {
			delete(origins.of, id)
		}
	}
	origins.enough = max(origins.enough, 2*len(origins.of))
}

// trace returns the origin of what this goroutine opens: whose it is, and the
// goroutines that wait for it. Those that have ended since are known to the
// runtime where it was told to remember them. It says how much it has read for that.
func trace() (o origin, read int) {
	all, id := look()
	byID := make(map[int]*goroutine)
	for _, g := range all {
		byID[g.id] = g
		read += len(g.text)
	}
	self := byID[id]
	if self == nil {
		return origin{}, read
	}
	o = origin{test: self.test, askers: self.askers}
	if len(o.askers) > 0 {
		return o, read
	}
	for g := self; g != nil && !g.runsTests() && len(o.askers) < 10; {
		if g = byID[g.parent]; g != nil {
			o.askers = append(o.askers, g.frames)
		}
	}
	return o, read
}

// connections returns what package lifeline has open, of the origins that count.
func connections(counts func(origin) bool) (left []leak) {
	open := ledger.Open()
	origins.Lock()
	defer origins.Unlock()
	for _, e := range open {
		if o := origins.of[e.ID]; counts(o) {
			left = append(left, leak{entry: &e, origin: o})
		}
	}
	return left
}
