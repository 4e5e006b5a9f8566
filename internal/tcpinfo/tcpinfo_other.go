//go:build !linux

package tcpinfo

import (
	"errors"
	"syscall"
)

// Read returns an error that is [errors.ErrUnsupported].
func Read(syscall.RawConn) (Info, error) { return Info{}, errors.ErrUnsupported }

// Unacknowledged returns an error that is [errors.ErrUnsupported].
func Unacknowledged(syscall.RawConn) (int, error) { return 0, errors.ErrUnsupported }

// Supported reports whether this system has what the package reads.
func Supported() bool { return false }
