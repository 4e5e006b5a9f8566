package goroutines

import (
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

// states are what a goroutine waits for, by the function of the runtime that it
// waits in, in the words of Go's own stack traces. The runtime's own numbers for
// them (waitReason) mean something else in each version; these functions have
// kept their names since Go 1.18 or have got another that is here too.
var states = map[string]string{
	"runtime.chanrecv":     "chan receive",
	"runtime.chansend":     "chan send",
	"runtime.selectgo":     "select",
	"runtime.block":        "select (no cases)",
	"runtime.netpollblock": "IO wait",
	"time.Sleep":           "sleep",

	"sync.runtime_Semacquire":               "semacquire",
	"sync.runtime_SemacquireWaitGroup":      "sync.WaitGroup.Wait",
	"sync.runtime_SemacquireMutex":          "sync.Mutex.Lock",
	"internal/sync.runtime_SemacquireMutex": "sync.Mutex.Lock",
	"sync.runtime_SemacquireRWMutexR":       "sync.RWMutex.RLock",
	"sync.runtime_SemacquireRWMutex":        "sync.RWMutex.Lock",
	"sync.runtime_notifyListWait":           "sync.Cond.Wait",
	"internal/poll.runtime_Semacquire":      "semacquire",
}

// stateOf says what a goroutine waits for.
func stateOf(status uint8, calls []fact.Call) string {
	if status == inSyscall {
		return "syscall"
	}
	for _, c := range calls[:min(len(calls), 8)] {
		if s := states[c.Func]; s != "" {
			return s
		}
	}
	return "waiting"
}

// withoutRuntime leaves out the calls within the runtime at both ends of a
// stack, as Go's own traces do.
func withoutRuntime(calls []fact.Call) []fact.Call {
	for len(calls) > 0 && strings.HasPrefix(calls[0].Func, "runtime.") {
		calls = calls[1:]
	}
	for len(calls) > 0 && strings.HasPrefix(calls[len(calls)-1].Func, "runtime.") {
		calls = calls[:len(calls)-1]
	}
	return calls
}

// ownOf reports one of the runtime's own goroutines: it was started in package
// runtime, other than the main goroutine.
func ownOf(start []gosym.Frame, calls []fact.Call) bool {
	if len(start) > 0 {
		name := start[len(start)-1].Func
		return strings.HasPrefix(name, "runtime.") && name != "runtime.main"
	}
	return len(withoutRuntime(calls)) == 0
}
