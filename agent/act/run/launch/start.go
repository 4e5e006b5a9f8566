//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// StartError is the error of a program that could not be started.
type StartError struct {
	Path string
	Err  error
}

func (e *StartError) Error() string { return fmt.Sprintf("cannot run %s: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// UnsupportedError says why a program cannot be helped in the way that was asked
// for.
type UnsupportedError struct{ Err error }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("seccomp user notification is not to be had: %v", e.Err)
}

// Unwrap returns the cause.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Program is one that runs.
type Program struct {
	PID      int
	Process  *os.File         // stands for it
	Listener *notify.Listener // is told of its calls; nil without a filter
}

// Start starts a program in a process group, with a filter on it when there is one.
// Serve is called when there is a listener, before the program begins: its execve(2)
// may be the first call that is told of. The error is a [*StartError], an
// [*UnsupportedError], or that of serve.
func Start(path string, args, env []string, group int, filter *notify.Filter, serve func(*notify.Listener) error) (*Program, error) {
	pidfd := -1
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{PidFD: &pidfd, Setpgid: group != 0, Pgid: group}}
	p := new(Program)
	err := thread(func() (err error) {
		if filter != nil {
			if p.Listener, err = filter.Install(); err != nil {
				return &UnsupportedError{err}
			}
			if err := serve(p.Listener); err != nil {
				return err
			}
		}
		if p.PID, err = syscall.ForkExec(path, args, attr); err != nil {
			return &StartError{path, err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if pidfd < 0 { // before Linux 5.4
		return nil, errors.ErrUnsupported
	}
	p.Process = os.NewFile(uintptr(pidfd), "process")
	return p, nil
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

// Possible returns why programs that this process starts cannot be helped by
// answering their system calls; nil when they can, as far as is known before.
func Possible() error {
	var name unix.Utsname
	var major, minor int
	if err := unix.Uname(&name); err == nil {
		if n, _ := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); n == 2 && (major < 5 || major == 5 && minor < 9) {
			return fmt.Errorf("this is Linux %d.%d, and it takes 5.9: %w", major, minor, errors.ErrUnsupported)
		}
	}
	if err := readSelf(); err != nil {
		return fmt.Errorf("the memory of programs cannot be read: %w", err)
	}
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err == nil && strings.TrimSpace(string(scope)) > "1" && !capability.Held(unix.CAP_SYS_PTRACE) {
		return fmt.Errorf("the memory of programs cannot be read: kernel.yama.ptrace_scope is %s", strings.TrimSpace(string(scope)))
	}
	return nil
}

// readSelf reads memory of this process as that of another would be read.
func readSelf() error {
	var from, to byte
	local := []unix.Iovec{{Base: &to, Len: 1}}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&from)), Len: 1}}
	_, err := unix.ProcessVMReadv(os.Getpid(), local, remote, 0)
	return os.NewSyscallError("process_vm_readv", err)
}
