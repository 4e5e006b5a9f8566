package sockopt

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpRTOMaxMS is TCP_RTO_MAX_MS of include/uapi/linux/tcp.h.
const tcpRTOMaxMS = 44

// SetLongestRetry bounds the time between two attempts of the kernel to get an
// answer: retransmissions of data, and probes of a closed window. It is
// TCP_RTO_MAX_MS, which Linux has since 6.15 and which takes 1 s to 120 s.
// Before, 120 s is fixed.
func SetLongestRetry(conn syscall.RawConn, d time.Duration) error {
	return control(conn, func(fd uintptr) error {
		return named(unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpRTOMaxMS, int(d/time.Millisecond)))
	})
}

// KeepAlive returns whether keepalive is on, after how long an idle time it asks
// the peer, and how long it waits between two probes.
func KeepAlive(conn syscall.RawConn) (on bool, idle, interval time.Duration, err error) {
	err = control(conn, func(fd uintptr) error {
		flag, failed := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		first, failed1 := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		next, failed2 := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)
		on, idle, interval = flag != 0, time.Duration(first)*time.Second, time.Duration(next)*time.Second
		return errors.Join(failed, failed1, failed2)
	})
	return on, idle, interval, err
}

// LongestRetryIsKnown reports whether this kernel has what [SetLongestRetry]
// sets. It asks a socket of its own, once.
var LongestRetryIsKnown = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, tcpRTOMaxMS)
	return err == nil
})

func named(err error) error {
	if errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("TCP_RTO_MAX_MS needs Linux 6.15: %w", errors.ErrUnsupported)
	}
	return err
}

// SetGiveUp is for systems where nothing better than a timeout of the kernel's
// own can bound unacknowledged data. Linux's, TCP_USER_TIMEOUT, is not set: it
// ends connections to peers that answer and do not read.
func SetGiveUp(syscall.RawConn, time.Duration) error { return errors.ErrUnsupported }
