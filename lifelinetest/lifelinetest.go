// Package lifelinetest is for tests of programs that use the network. It fails
// those that leave something open, and says which line opened it; and it has a
// network in memory whose faults a test chooses ([Network]).
//
//	func TestBuild(t *testing.T) {
//		lifelinetest.NoLeaks(t) // first, so that it looks last
//		…
//	}
//
//	func TestMain(m *testing.M) { lifelinetest.Main(m) } // the same once for all tests of a package
//
// NoLeaks looks at what the test itself opened, so tests may be parallel: it
// tells goroutines apart by a profiler label, which each goroutine hands down to
// those that it starts, and connections of package lifeline by the goroutine that
// opened them. File descriptors carry no such mark, so it looks at them only when
// no other test ran beside; Main looks at all of them.
//
// Of a connection of package lifeline it tells who asked for it, also where a
// client dialed it in a goroutine of its own, as net/http does, because whoever
// asks waits meanwhile. Of other goroutines that is known when the test binary
// runs with GODEBUG=tracebackancestors=10.
package lifelinetest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ledger"
)

// patience is how long goroutines and sockets get to go away after a test:
// closing is often asynchronous, leaking is for ever.
const patience = 3 * time.Second

// label is the profiler label of the goroutines of a test.
const label = "lifelinetest"

// NoLeaks fails the test if connections, goroutines or file descriptors that it
// opened are still there 3 s after its end, which is after all that it gave to
// t.Cleanup later than this call. A test that has failed is not looked at.
func NoLeaks(t testing.TB) { Check{}.NoLeaks(t) }

// Main runs the tests and exits: with 1 when they passed, and left something
// open that was not there before.
func Main(m *testing.M) { os.Exit(Check{}.Run(m)) }

// Check is how to look for leaks. The zero value is the recommended way.
type Check struct {
	// Ignore names functions, with their package path. Goroutines that have one of
	// them on their stack are not looked at. It is for what a library starts once
	// and never ends.
	Ignore []string
}

var tests atomic.Int64

// NoLeaks is [NoLeaks] as the check says.
func (c Check) NoLeaks(t testing.TB) {
	t.Helper()
	name := t.Name() + "#" + strconv.FormatInt(tests.Add(1), 10)
	before, own := look()
	stop := follow(1)
	files, alone := descriptors(), alone(before, own)
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(label, name)))
	t.Cleanup(func() {
		t.Helper()
		defer stop()
		defer pprof.SetGoroutineLabels(context.Background())
		if t.Failed() {
			return
		}
		left := wait(func() []leak {
			now, self := look()
			left := connections(func(o origin) bool { return o.test == name })
			for _, g := range now {
				if g.test == name && g.id != self && !g.runsTests() && !c.ignores(g) {
					left = append(left, leak{goroutine: g})
				}
			}
			if alone && len(left) == 0 {
				left = append(left, opened(files)...)
			}
			return left
		})
		if len(left) > 0 {
			t.Errorf("%s left open, %v after its end:\n\n%s", t.Name(), patience, report(left))
		}
	})
}

// Run is [Main] for those who exit by themselves: it runs the tests, and returns
// the exit code.
func (c Check) Run(m interface{ Run() int }) int {
	if bench := flag.Lookup("test.bench"); bench == nil || bench.Value.String() == "" {
		defer follow(0)()
	}
	files := descriptors()
	if code := m.Run(); code != 0 {
		return code
	}
	left := wait(func() []leak {
		now, self := look()
		left := connections(func(origin) bool { return true })
		for _, g := range now {
			if g.id != self && !g.runsTests() && !c.ignores(g) {
				left = append(left, leak{goroutine: g})
			}
		}
		return append(left, opened(files)...)
	})
	if len(left) == 0 {
		return 0
	}
	fmt.Fprintf(os.Stderr, "lifelinetest: left open, %v after the last test:\n\n%s\n", patience, report(left))
	return 1
}

// A leak is one thing that was left open: a connection of package lifeline, a
// goroutine, or a file descriptor.
type leak struct {
	entry     *ledger.Entry
	origin    origin
	goroutine *goroutine
	file      string
}

// ignores reports whether a goroutine is nobody's leak.
func (c Check) ignores(g *goroutine) bool {
	for _, f := range g.frames {
		for _, name := range append(c.Ignore, everlasting...) {
			if f.Function == name {
				return true
			}
		}
	}
	return strings.Contains(g.text, "runtime.ensureSigM")
}

// everlasting are goroutines that something starts for whoever comes first, and
// that serve all.
var everlasting = []string{
	"os/signal.loop", "os/signal.signal_recv", "runtime/pprof.profileWriter",
	"github.com/lifeline-go/lifeline.(*watcher).run", // ends when there is nothing to watch, of any test
}
