//go:build linux

// Package signals deals with signals that are for a program, in the processes beside
// it, and with what package os/signal cannot do about them.
package signals

import (
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The signals that a program may expect from others: those that end a Go program
// which has not asked for them, those that stop it, those that do neither, and those
// of POSIX.1b. SIGURG is not one of them: the Go runtime sends it to itself.
var (
	Ends   = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}
	Stops  = []os.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	Others = []os.Signal{
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGPROF,
		unix.SIGWINCH, unix.SIGIO, unix.SIGPWR,
	}
	RealTime = func() (all []os.Signal) {
		for s := unix.Signal(34); s <= 64; s++ { // SIGRTMIN and on
			all = append(all, s)
		}
		return all
	}()
)

// Listen has signals sent to a channel. Those that are ignored, as by nohup, stay
// so, for the program too. Each takes two switches of threads in the Go runtime, and
// so would each of signal.Reset, which is why this process must not have asked for
// any before.
func Listen(to chan os.Signal, some ...os.Signal) {
	for _, s := range some {
		if !signal.Ignored(s) {
			signal.Notify(to, s)
		}
	}
}

// Drop has the kernel ignore signals, at the price of a system call for each: the
// runtime is not told, as it would be by signal.Ignore. What this process starts has
// those of [Ends] as they were (clearSignalHandlers in runtime/signal_unix.go).
func Drop(some []os.Signal) {
	const ignore = 1 // SIG_IGN
	for _, s := range some {
		Dispose(s.(unix.Signal), &Action{ignore})
	}
}

// Deaf makes a process that serves others ignore what may be sent to it: it goes
// when they do.
func Deaf() {
	for _, some := range [][]os.Signal{Ends, Stops, Others, RealTime} {
		Drop(some)
	}
}

// Action is struct sigaction, with room to spare.
type Action [8]uint64

// Usual gives a signal back to the kernel and returns what was done with it. The
// runtime does not: it has handlers that do nothing for those it was told to
// forget.
func Usual(s unix.Signal) *Action { return Dispose(s, new(Action)) }

// Dispose has the kernel do something with a signal, and returns what it did before.
func Dispose(s unix.Signal, new *Action) *Action {
	old := &Action{}
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(new)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return old
}
