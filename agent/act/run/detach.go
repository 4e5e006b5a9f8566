//go:build linux

package run

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

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
