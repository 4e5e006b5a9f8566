//go:build linux

package run

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reaper is the parent of the program, and of all that it leaves behind.
type reaper struct {
	program  int
	ended    bool
	deadline time.Time // until which the program need not be a child
}

// siginfo is what waitid(2) says: the beginning of siginfo_t on both
// architectures.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

// run calls tell for each event of the program and forgets all others that end,
// except those of this process's own group, for which somebody here waits. It
// returns when there are no others.
func (r *reaper) run(tell func(unix.WaitStatus)) {
	own := unix.Getpgrp()
	for {
		var info siginfo
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|unix.WNOWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.ECHILD && time.Now().Before(r.deadline):
			time.Sleep(time.Millisecond)
			continue
		case errno != 0:
			return
		}
		pid := int(info.pid)
		ended := info.code == cldExited || info.code == cldKilled || info.code == cldDumped
		if group, _ := unix.Getpgid(pid); pid != r.program && group == own && ended {
			time.Sleep(time.Millisecond) // until who started it has heard
			continue
		}
		if pid == r.program && ended {
			tell(status(info)) // first: who takes over from a process that dies here finds it again
		}
		var wait unix.WaitStatus
		if _, err := unix.Wait4(pid, &wait, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil); err == nil && pid == r.program && !ended {
			tell(wait)
		}
		if pid == r.program && ended {
			r.ended = true
		}
		if r.ended && !others(own) {
			return
		}
	}
}

// others reports that there are children of other process groups than one.
func others(own int) bool {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			if group, _ := unix.Getpgid(pid); err == nil && group != own {
				return true
			}
		}
	}
	return false // nor when the kernel does not say, without CONFIG_PROC_CHILDREN
}

const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// status is what wait4(2) would have said.
func status(info siginfo) unix.WaitStatus {
	switch info.code {
	case cldExited:
		return unix.WaitStatus(info.status << 8)
	case cldDumped:
		return unix.WaitStatus(info.status | 0x80)
	default:
		return unix.WaitStatus(info.status)
	}
}
