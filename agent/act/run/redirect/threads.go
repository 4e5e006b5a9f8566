//go:build linux

package redirect

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// mostThreads bounds how many threads are kept open.
const mostThreads = 64

// threads keeps descriptors of threads that have called, so that the next call
// of each needs none of its own. Such a descriptor stands for that thread and
// never for another of the same number: when the thread is gone it says so.
type threads struct {
	mu   sync.Mutex
	kept map[int]int // descriptors by number; whoever uses one takes it out
}

func (t *threads) take(tid int) (process int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	process, ok = t.kept[tid]
	delete(t.kept, tid)
	return process, ok
}

func (t *threads) keep(tid, process int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.kept[tid]; ok {
		unix.Close(process)
		return
	}
	if len(t.kept) >= mostThreads {
		for _, other := range t.kept {
			unix.Close(other)
		}
		clear(t.kept)
	}
	if t.kept == nil {
		t.kept = make(map[int]int)
	}
	t.kept[tid] = process
}

// borrow returns a copy of a descriptor of the process that a thread belongs to.
// Whether that is still the thread which called is for the caller to ask.
func (t *threads) borrow(tid, fd int) (int, error) {
	if process, ok := t.take(tid); ok {
		copied, err := getfd(process, fd)
		if err == nil {
			t.keep(tid, process)
			return copied, nil
		}
		unix.Close(process) // of a thread that has ended, perhaps
	}
	process, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD) // Linux 6.9
	if err == unix.EINVAL {
		var tgid int
		if tgid, err = leader(tid); err == nil {
			process, err = unix.PidfdOpen(tgid, 0)
		}
	}
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	copied, err := getfd(process, fd)
	if err != nil {
		unix.Close(process)
		return -1, os.NewSyscallError("pidfd_getfd", err)
	}
	t.keep(tid, process)
	return copied, nil
}

// getfd is pidfd_getfd(2), which waits for nothing.
func getfd(process, fd int) (int, error) {
	copied, _, errno := unix.RawSyscall(unix.SYS_PIDFD_GETFD, uintptr(process), uintptr(fd), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(copied), nil
}
