//go:build linux

package run

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ordinary and realTime are the signals that a program may expect from others.
// SIGURG is not one of them: the Go runtime sends it to itself.
var (
	ordinary = []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM, unix.SIGCONT,
		unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGPROF, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR,
	}
	realTime = func() (all []os.Signal) {
		for s := unix.Signal(34); s <= 64; s++ { // SIGRTMIN and on
			all = append(all, s)
		}
		return all
	}()
)

// ofTerminal are those that a terminal sends to all of a process group.
var ofTerminal = []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH}

// listen has signals sent to a channel. Those that are ignored, as by nohup, stay
// so, for the program too. Each takes two switches of threads in the Go runtime, and
// so would each of signal.Reset, which is why this process must not have asked for
// any before.
func listen(to chan os.Signal, some []os.Signal) {
	for _, s := range some {
		if !signal.Ignored(s) {
			signal.Notify(to, s)
		}
	}
}

// deaf makes a process that serves others ignore what may be sent to it: it goes
// when they do.
func deaf() {
	signal.Ignore(ordinary...)
	signal.Ignore(realTime...)
}

// stopSelf stops this process as another was stopped by a signal.
func stopSelf(s unix.Signal) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer disposition(s, usual(s))
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
	usual(s.Signal)
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), s.Signal)
	_ = unix.Kill(unix.Getpid(), unix.SIGKILL) // where the signal is blocked here
	exit(128 + int(s.Signal))
}

// action is struct sigaction, with room to spare.
type action [8]uint64

// usual gives a signal back to the kernel and returns what was done with it. The
// runtime does not: it has handlers that do nothing for those it was told to
// forget.
func usual(s unix.Signal) *action { return disposition(s, new(action)) }

func disposition(s unix.Signal, new *action) *action {
	old := &action{}
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(new)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return old
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
