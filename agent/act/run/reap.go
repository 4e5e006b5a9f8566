//go:build linux

package run

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is what waitid(2) says: the beginning of siginfo_t on both
// architectures.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

// The codes of SIGCHLD, include/uapi/asm-generic/siginfo.h.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// waitid says what has happened to a child, or any of them, and leaves it to be
// said again.
func waitid(which, id, events int) (info siginfo, err error) {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, uintptr(which), uintptr(id), uintptr(unsafe.Pointer(&info)), uintptr(events|unix.WNOWAIT), 0, 0)
		if errno == 0 {
			return info, nil
		}
		if errno != unix.EINTR {
			return info, errno
		}
	}
}

// watch calls tell for each event of the program, the last of which is its end;
// ok is false when it has none, because it is no child. Its end is told before the
// process is forgotten: who takes over from one that dies here finds it again.
func watch(program int, adopted time.Time, tell func(unix.WaitStatus)) (ok bool) {
	for {
		info, err := waitid(unix.P_PID, program, unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED)
		if err == unix.ECHILD && time.Now().Before(adopted) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return false
		}
		ended := info.code == cldExited || info.code == cldKilled || info.code == cldDumped
		if ended {
			tell(status(info))
		}
		var wait unix.WaitStatus
		if _, err := unix.Wait4(program, &wait, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil); err == nil && !ended {
			tell(wait)
			ended = wait.Exited() || wait.Signaled()
		}
		if ended {
			return true
		}
	}
}

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

// unclaimed is how long the end of a child is left to who started it here, if
// anybody did.
const unclaimed = 200 * time.Millisecond

// reap forgets all children but the program when they have ended: the processes
// that the program, and those that it started, have left behind. It returns when
// there are no children.
func reap(program int) {
	var last int
	var since time.Time
	for {
		info, err := waitid(unix.P_ALL, 0, unix.WEXITED)
		if err != nil {
			return
		}
		pid := int(info.pid)
		if pid != last {
			last, since = pid, time.Now()
		}
		if pid == program || time.Since(since) < unclaimed {
			time.Sleep(unclaimed / 10)
			continue
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// known reports that a child has the token of the proxy in its environment, and
// so may use it.
func known(token string) bool {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(text)) {
			if env, _ := os.ReadFile("/proc/" + pid + "/environ"); bytes.Contains(env, []byte(token)) {
				return true
			}
		}
	}
	return false // nor when the kernel does not say, without CONFIG_PROC_CHILDREN
}
