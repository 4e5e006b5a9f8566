package pidfd

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/bound"
)

// read asks a TCP socket for what decides its bound.
func read(fd int) (bound.Options, error) {
	var value [5]int
	for i, option := range [...]struct{ level, name int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	} {
		var err error
		if value[i], err = unix.GetsockoptInt(fd, option.level, option.name); err != nil {
			return bound.Options{}, err
		}
	}
	return bound.Options{
		KeepAlive:   value[0] != 0,
		Idle:        time.Duration(value[1]) * time.Second,
		Interval:    time.Duration(value[2]) * time.Second,
		Count:       value[3],
		UserTimeout: time.Duration(value[4]) * time.Millisecond,
	}, nil
}
