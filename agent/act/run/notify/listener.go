//go:build linux

// Package notify lets a process decide on some system calls of others: seccomp
// user notification, seccomp_unotify(2). It needs no right. The kernel stops the
// thread that makes a call which the [Filter] names, and goes on with it as the
// [Listener] says.
//
// It is a way to help programs and not one to confine them: by the time that the
// kernel reads what an argument points to, another thread can have changed it.
package notify

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of the listener, include/uapi/linux/seccomp.h.
const (
	ioctlRecv     = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlValid    = 0x40082102
	ioctlAddFD    = 0x40182103
	ioctlSetFlags = 0x40082104

	flagSyncWakeUp = 1 // of ioctlSetFlags, Linux 6.6
	flagContinue   = 1 // of an answer, Linux 5.5
	flagSetFD      = 1 // of ioctlAddFD, Linux 5.9
)

// Call is a system call that waits: struct seccomp_notif.
type Call struct {
	ID    uint64 // of the call; they go up by one
	TID   uint32 // of the thread that made it
	Flags uint32
	Nr    int32
	Arch  uint32
	IP    uint64 // of the code that made it
	Args  [6]uint64
}

// Listener is told of system calls. Several processes can have it; a call is
// told to one of them, and any can answer. When no process has it any more,
// calls that the filter names fail with ENOSYS.
type Listener struct{ fd int }

// NewListener returns a listener that another process has sent.
func NewListener(fd int) *Listener { return &Listener{fd: fd} }

// FD returns its descriptor.
func (l *Listener) FD() int { return l.fd }

// Close gives the listener up.
func (l *Listener) Close() error { return unix.Close(l.fd) }

// ioctl is for requests that the kernel answers at once, so that Go's scheduler
// need not hear of them.
func (l *Listener) ioctl(request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l.fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// Receive waits for the next call. It cannot be interrupted.
func (l *Listener) Receive(c *Call) error {
	for {
		*c = Call{} // or the kernel refuses it
		// ENOENT: whoever made the call was killed, or interrupted by a signal.
		_, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), ioctlRecv, uintptr(unsafe.Pointer(c)))
		if err == 0 {
			return nil
		}
		if err == unix.EINTR || err == unix.ENOENT && !l.Unused() {
			continue
		}
		return os.NewSyscallError("SECCOMP_IOCTL_NOTIF_RECV", err)
	}
}

// Valid reports that the call still waits, and so that the thread which made it
// is still what has this number.
func (l *Listener) Valid(id uint64) bool { return l.ioctl(ioctlValid, unsafe.Pointer(&id)) == nil }

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// Return ends a call: it returns 0, or fails with errno. Whether it still waits
// is not for the caller to care.
func (l *Listener) Return(id uint64, errno unix.Errno) {
	_ = l.ioctl(ioctlSend, unsafe.Pointer(&answer{id: id, errno: -int32(errno)}))
}

// Continue lets the kernel do what was asked for.
func (l *Listener) Continue(id uint64) {
	_ = l.ioctl(ioctlSend, unsafe.Pointer(&answer{id: id, flags: flagContinue}))
}

// Replace puts a copy of fd in the place of the descriptor target of whoever
// made the call, with close-on-exec as told. Linux 5.9.
func (l *Listener) Replace(id uint64, target, fd int, closeOnExec bool) error {
	request := struct {
		id                         uint64
		flags, from, to, withFlags uint32
	}{id: id, flags: flagSetFD, from: uint32(fd), to: uint32(target)}
	if closeOnExec {
		request.withFlags = unix.O_CLOEXEC
	}
	return os.NewSyscallError("SECCOMP_IOCTL_NOTIF_ADDFD", l.ioctl(ioctlAddFD, unsafe.Pointer(&request)))
}

// Hasten makes the kernel wake the listener on the processor of whoever makes a
// call, which takes a few microseconds in place of tens. Without it, before Linux
// 6.6, all works too.
func (l *Listener) Hasten() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), ioctlSetFlags, flagSyncWakeUp)
	if errno != 0 {
		return errno
	}
	return nil
}

// WaitUnused returns when no process has the filter any more: nobody is left who
// could make a call.
func (l *Listener) WaitUnused() error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(l.fd)}}, -1) // POLLHUP comes unasked, Linux 5.9
		if err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
}

// Unused reports that no process has the filter any more.
func (l *Listener) Unused() bool {
	fds := []unix.PollFd{{Fd: int32(l.fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
