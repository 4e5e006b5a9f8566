//go:build !windows

package lifeline

import (
	"errors"
	"syscall"
)

// errSilent is what the system says of a peer that does not answer.
const errSilent = syscall.ETIMEDOUT

// isExhausted reports whether the process, or the system, may open no more files.
func isExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// kindOf returns what an error of an open connection is about, nil for the end
// of the stream, deadlines, and the like.
//
// Where the kernel has learned on the way why it gets no answer, it says that
// instead of ETIMEDOUT: sk_err_soft in tcp_write_err of net/ipv4/tcp_timer.c.
func kindOf(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return nil
	}
	switch errno {
	case syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN:
		return ErrSilent
	case syscall.ECONNRESET:
		return ErrReset
	case syscall.ECONNABORTED: // tcp_abort of net/ipv4/tcp.c
		return ErrCut
	}
	return nil
}
