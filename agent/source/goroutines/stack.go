package goroutines

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	chunkSize = 64       // goroutines whose stacks are read together
	mostTop   = 16 << 10 // of each stack at first; most stacks are shorter
	mostCalls = 100      // of each stack
)

// walker reads stacks.
type walker struct {
	t     *Target
	alike map[string]*trace // by their program counters
	key   []byte
	times timeline
	conns *connections
	found int // goroutines, so far
}

// trace is a stack in words.
type trace struct {
	state string
	calls []fact.Call
	cut   bool
	own   bool // it is one of the runtime's own goroutines
}

// chunk reads the stacks of some goroutines and then looks at the goroutines
// again: one that ran meanwhile has left a stack that is torn.
func (w *walker) chunk(records []record) ([]fact.Goroutine, error) {
	var waits []record
	for _, r := range records {
		if r.waits() {
			waits = append(waits, r)
		}
	}
	if len(waits) == 0 {
		return nil, nil
	}
	pointers := make([]uint64, len(waits))
	traces := make([]*trace, len(waits))
	words := make([][]uint64, len(waits))
	sockets := make([]fact.Known[uint32], len(waits))
	for i := range waits {
		pointers[i], traces[i] = waits[i].g, w.read(&waits[i], w.walk(&waits[i]))
		words[i], sockets[i] = w.conns.see(&waits[i], traces[i])
	}
	now := time.Now()
	again, err := w.t.records(pointers)
	if err != nil {
		return nil, err
	}
	clock := w.t.clock()
	var all []fact.Goroutine
	for i := range waits {
		if !waits[i].same(&again[i]) || waits[i].hi != again[i].hi {
			continue
		}
		trace := traces[i]
		if trace.own {
			continue
		}
		g := fact.Goroutine{ID: waits[i].id, State: trace.state, Since: now.Sub(w.t.first), Looked: true, Stack: trace.calls, Cut: trace.cut}
		if begin := w.times.after(again[i].since); begin > 0 && clock-time.Duration(begin) > g.Since {
			g.Since, g.Looked = clock-time.Duration(begin), false
		}
		g.Created, g.Socket = w.created(waits[i].created), sockets[i]
		if words[i] != nil {
			w.conns.waiters = append(w.conns.waiters, waiter{w.found, words[i]})
		}
		w.found++
		all = append(all, g)
	}
	return all, nil
}

// clock is the time as the process sees it, runtime.nanotime.
func (t *Target) clock() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano()) + t.behind
}

// walk follows the frame pointers of a stack and returns its program counters:
// where it stopped, then return addresses. At a frame pointer lies the caller's,
// and after it the return address (runtime.fpTracebackPCs).
func (w *walker) walk(r *record) []uint64 {
	counters := []uint64{r.pc}
	top := make([]uint64, min(r.hi-r.sp, mostTop)/8)
	if len(top) == 0 || w.t.read(unsafe.Slice((*byte)(unsafe.Pointer(&top[0])), 8*len(top)), []uint64{r.sp}, 8*len(top)) != nil {
		return counters
	}
	for frame := r.bp; len(counters) <= mostCalls; {
		if frame < r.sp || frame+16 > r.hi || frame%8 != 0 {
			break
		}
		var pair []uint64
		if i := (frame - r.sp) / 8; i+1 < uint64(len(top)) {
			pair = top[i : i+2]
		} else if words, err := w.t.words(frame, 2); err == nil {
			pair = words
		} else {
			break
		}
		if pair[1] == 0 {
			break
		}
		counters = append(counters, pair[1])
		if pair[0] <= frame { // callers lie above
			break
		}
		frame = pair[0]
	}
	return counters
}

// read puts a stack into words. Thousands of goroutines wait in a few places, so
// those that are alike share them.
func (w *walker) read(r *record, counters []uint64) *trace {
	w.key = append(w.key[:0], r.status)
	for _, pc := range counters {
		w.key = order.AppendUint64(w.key, pc)
	}
	if t, found := w.alike[string(w.key)]; found {
		return t
	}
	t := &trace{cut: len(counters) > mostCalls}
	var calls []fact.Call
	for _, pc := range counters {
		for _, f := range w.t.table.Lookup(pc - 1) {
			if !f.Wrapper {
				calls = append(calls, fact.Call{Func: f.Func, File: f.File, Line: f.Line})
			}
		}
	}
	t.state = stateOf(r.status, calls)
	t.own = ownOf(w.t.table.Lookup(r.start), calls)
	t.calls = withoutRuntime(calls)
	w.alike[string(w.key)] = t
	return t
}

func (w *walker) created(pc uint64) fact.Call {
	if frames := w.t.table.Lookup(pc - 1); pc != 0 && len(frames) > 0 {
		f := frames[0]
		return fact.Call{Func: f.Func, File: f.File, Line: f.Line}
	}
	return fact.Call{}
}
