package sockopt

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetGiveUp bounds how long data is sent again before the kernel gives up, in
// whole seconds: TCP_RXT_CONNDROPTIME.
func SetGiveUp(conn syscall.RawConn, d time.Duration) error {
	return control(conn, func(fd uintptr) error {
		return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RXT_CONNDROPTIME, int(d/time.Second))
	})
}

// SetLongestRetry returns [errors.ErrUnsupported].
func SetLongestRetry(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }

// LongestRetryIsKnown reports whether [SetLongestRetry] is to be had.
func LongestRetryIsKnown() bool { return false }

// KeepAlive returns [errors.ErrUnsupported].
func KeepAlive(syscall.RawConn) (on bool, idle, interval time.Duration, err error) {
	return false, 0, 0, errors.ErrUnsupported
}
