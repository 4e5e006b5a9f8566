// Package leakcheck fails a test binary that leaves goroutines, file
// descriptors or sockets behind.
package leakcheck

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"
)

// patience is how long goroutines and descriptors get to go away after the
// last test: closing is often asynchronous, leaking is for ever.
const patience = 3 * time.Second

// Main runs the tests of m and exits. Every test binary must call it, or give
// a [Checked] to what runs its tests, from TestMain; the architecture test holds
// that.
func Main(m *testing.M) { os.Exit(Checked{m}.Run()) }

// Checked is something that runs tests, and checks what they leave behind.
type Checked struct{ Tests interface{ Run() int } }

// Run runs the tests and returns the exit code: that of the tests, or 1 when
// they passed and left something behind.
func (c Checked) Run() int {
	before := descriptors()
	if code := c.Tests.Run(); code != 0 {
		return code
	}
	return report(before)
}

func report(before map[string]string) int {
	var left []string
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left = append(goroutines(), opened(before, descriptors())...)
		if len(left) == 0 {
			return 0
		}
		if time.Now().After(deadline) {
			break
		}
		runtime.GC() // finalizers of os.File and exec.Cmd close what tests merely dropped
	}
	fmt.Fprintf(os.Stderr, "leakcheck: left behind %v after the last test:\n\n%s\n", patience, strings.Join(left, "\n\n"))
	return 1
}

// goroutines returns the stacks of those that are neither the runtime's, nor
// the testing package's, nor this one.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 || strings.Contains(stack, "testing.(*M).") || strings.Contains(stack, "os/signal.signal_recv") ||
			strings.Contains(stack, "os/signal.loop") || strings.Contains(stack, "runtime.ensureSigM") ||
			strings.Contains(stack, "runtime/pprof.profileWriter") {
			continue
		}
		left = append(left, stack)
	}
	return left
}

// opened returns the descriptors of after that before does not have.
func opened(before, after map[string]string) []string {
	var left []string
	for fd, target := range after {
		if before[fd] != target {
			left = append(left, "file descriptor "+fd+": "+target)
		}
	}
	sort.Strings(left)
	return left
}
