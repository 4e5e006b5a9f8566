//go:build !linux && !darwin && !windows

package sockopt

import (
	"errors"
	"syscall"
	"time"
)

// SetGiveUp returns [errors.ErrUnsupported].
func SetGiveUp(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }

// SetLongestRetry returns [errors.ErrUnsupported].
func SetLongestRetry(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }

// LongestRetryIsKnown reports whether [SetLongestRetry] is to be had.
func LongestRetryIsKnown() bool { return false }

// KeepAlive returns [errors.ErrUnsupported].
func KeepAlive(syscall.RawConn) (on bool, idle, interval time.Duration, err error) {
	return false, 0, 0, errors.ErrUnsupported
}
