package act

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// ErrGone means that no process has the socket any more.
var ErrGone = errors.New("it is gone")

var (
	errNoOwner   = errors.New("no process holds it, or none that can be seen")
	errMultipath = fmt.Errorf("%w: it is a Multipath TCP connection", errors.ErrUnsupported)
)

// Borrow calls do with a copy of the descriptor of s, taken from one of the
// processes that own it, pidfd_getfd(2), and gives it back at once: should a
// process close the socket during the loan, the close takes effect when the
// loan ends.
//
// It needs Linux 5.6 and the right to trace the owner. The error is ErrGone
// when no owner has the socket any more; an owner that refuses counts for more,
// as it may still have it.
func Borrow(s *fact.Socket, do func(fd int) error) error {
	failed := errNoOwner
	for _, owner := range s.Owners {
		err := borrowFrom(owner, s, do)
		switch {
		case err == nil || !errors.Is(err, ErrGone) && !errors.Is(err, unix.EPERM):
			return err
		case failed == errNoOwner || errors.Is(err, unix.EPERM):
			failed = err
		}
	}
	return failed
}

func borrowFrom(owner fact.Owner, s *fact.Socket, do func(fd int) error) error {
	process, err := unix.PidfdOpen(int(owner.PID), 0)
	if err == unix.ESRCH {
		return ErrGone
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, int(owner.FD), 0)
	if err == unix.EBADF || err == unix.ESRCH {
		return ErrGone
	}
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	defer unix.Close(fd)
	if err := same(fd, s); err != nil {
		return err
	}
	return do(fd)
}

// same returns an error unless fd is the socket s. A descriptor of a Multipath
// TCP connection has the inode of its subflows and a cookie of its own.
func same(fd int, s *fact.Socket) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK || uint32(stat.Ino) != s.Inode {
		return ErrGone
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if protocol == unix.IPPROTO_MPTCP {
		return errMultipath
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if cookie != s.Cookie {
		return ErrGone
	}
	return nil
}

// Borrowing returns the [Error] of an act that was refused a loan.
func Borrowing(act string, err error) *Error {
	e := &Error{Act: act, Err: err}
	switch {
	case err == errNoOwner && !capability.Held(unix.CAP_SYS_PTRACE):
		e.Needs = "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
	case errors.Is(err, unix.EPERM):
		e.Needs = capability.Missing("CAP_SYS_PTRACE and CAP_NET_ADMIN", unix.CAP_SYS_PTRACE, unix.CAP_NET_ADMIN)
	case errors.Is(err, unix.ENOSYS):
		e.Err, e.Needs = fmt.Errorf("%w: %v", errors.ErrUnsupported, err), "Linux 5.6"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		e.Needs = "a higher limit of open files"
	}
	return e
}
