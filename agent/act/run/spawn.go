//go:build linux

package run

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
)

// spawn starts a keeper at the other end of a wire. It inherits all that this
// process has inherited, also descriptors, since the program must. Apart puts it
// into a process group of its own, out of the way of signals for the program.
func spawn(keeper, args, env []string, w *wire, apart bool) (pid int, err error) {
	// Not by ExtraFiles: the program may have been given a descriptor 3.
	fd, err := unix.FcntlInt(uintptr(w.fd), unix.F_DUPFD, 3)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	defer unix.Close(fd)
	argv := slices.Concat([]string{"lifeline"}, keeper[1:], []string{strconv.Itoa(fd), "--"}, args)
	pid, err = syscall.ForkExec(keeper[0], argv, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: apart}})
	return pid, os.NewSyscallError("exec", err)
}

// inherited returns the end of the wire that spawn has given this process, and
// the program's arguments, from those that it added.
func inherited(added []string) (*wire, []string, error) {
	if len(added) < 2 {
		return nil, nil, errNoOrder
	}
	fd, err := strconv.Atoi(added[0])
	if err != nil {
		return nil, nil, errNoOrder
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, nil, errNoOrder
	}
	unix.CloseOnExec(fd)
	return &wire{fd}, added[2:], nil
}

// start starts the program in a process group, with a filter on it when
// there is one, and returns a descriptor that stands for it. Serve is called when
// there is a listener, before the program begins: its execve(2) may be the first
// call that is told of.
func start(p Program, group int, filter *notify.Filter, serve func(*notify.Listener) error) (pid int, process *os.File, err error) {
	pidfd := -1
	attr := &syscall.ProcAttr{Env: p.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setpgid: group != 0, Pgid: group}}
	err = thread(func() error {
		if filter != nil {
			listener, err := filter.Install()
			if err != nil {
				return &UnsupportedError{err}
			}
			if err := serve(listener); err != nil {
				return err
			}
		}
		if pid, err = syscall.ForkExec(p.Path, p.Args, attr); err != nil {
			return &StartError{p.Path, err}
		}
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	if pidfd < 0 { // before Linux 5.4
		return pid, nil, errors.ErrUnsupported
	}
	return pid, os.NewFile(uintptr(pidfd), "process"), nil
}

// thread calls f on a thread that ends with it, and with it the filter that f
// put on it. The runtime does not start others from a locked one (newm in
// runtime/proc.go), and does not end the first one.
func thread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			result <- thread(f) // cannot come here again: this goroutine keeps the first thread
			return
		}
		result <- f()
	}()
	return <-result
}

// detach lets go of all that was inherited for the program, so that whoever reads
// what it writes hears of its end, and no directory is kept in use.
func detach(keepErrors bool) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		last := 2
		if keepErrors {
			last = 1
		}
		for fd := 0; fd <= last; fd++ {
			_ = unix.Dup3(null, fd, 0)
		}
		unix.Close(null)
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd < 3 {
			continue
		}
		// Our own all close on exec.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	_ = unix.Chdir("/")
}
