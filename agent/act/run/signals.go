//go:build linux

package run

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/signals"
)

// ofTerminal are those that a terminal sends to all of a process group.
var ofTerminal = []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH}

// stopSelf stops this process as another was stopped by a signal.
func stopSelf(s unix.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer signals.Dispose(s, signals.Usual(s))
	// Sent to this very thread, it takes effect before the call returns.
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), s)
}

// Mirror ends this process as the program ended: with its exit code, or of the
// same signal, without a core of its own.
func (s Status) Mirror(exit func(code int)) {
	if s.Signal == 0 {
		exit(s.Code)
	}
	runtime.LockOSThread()
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	signals.Usual(s.Signal)
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), s.Signal)
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL) // where the signal is blocked here
	exit(128 + int(s.Signal))
}

// stopped reports that a process does not run because of a signal.
func stopped(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(text, []byte(") ")) // the name before may have anything in it
	if i := bytes.LastIndex(text, []byte(") ")); i >= 0 {
		rest = text[i+2:]
	}
	return ok && len(rest) > 0 && (rest[0] == 'T' || rest[0] == 't')
}

// hears reports that a terminal's signals reach the process group of this
// process, and so the program without help.
func hears() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(tty)
	return true
}

// pass sends a signal to the program. Together says that it is in the process
// group of this process.
func pass(s os.Signal, process *os.File, pid int, together bool) {
	if together && slices.Contains(ofTerminal, s) && hears() {
		return
	}
	if s == unix.SIGCONT && !stopped(pid) { // it was the keeper's: the program goes on already
		return
	}
	_ = unix.PidfdSendSignal(int(process.Fd()), s.(unix.Signal), nil, 0)
}
