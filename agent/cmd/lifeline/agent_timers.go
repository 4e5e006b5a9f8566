package main

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/cmd/lifeline/early"
)

// timerSlack is how late the kernel may end the agent's waits, in nanoseconds. By
// itself it is 50 µs, and the thread on which the runtime watches over the others
// wakes so often that this takes a sixth of what the agent does. Nothing here is
// timed more finely.
const timerSlack = 1_000_000

// unhurried has the agent begin anew with that slack where it has less: the runtime
// made that thread before anything here runs, and a thread has the slack of the one
// that made it, PR_SET_TIMERSLACK in prctl(2). The unit of the package sets it
// beforehand. Where it cannot be had the agent runs without.
func unhurried() {
	runtime.LockOSThread() // the slack is that of the thread
	defer runtime.UnlockOSThread()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || slack >= timerSlack {
		return
	}
	own, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil {
		return
	}
	_ = unix.Exec(own, os.Args, os.Environ()) // its file may be gone by now
}

// watches reports that a command is the agent, and none of those about it.
func watches(args []string) bool {
	i := early.CommandAt(args)
	return i < len(args) && args[i] == agentName && (i+1 == len(args) || strings.HasPrefix(args[i+1], "-"))
}
