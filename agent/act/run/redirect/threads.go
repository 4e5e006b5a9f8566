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
	kept map[int]thread // by number; whoever uses one takes it out
}

// thread is a descriptor of one, or of its process before Linux 6.9.
type thread struct {
	fd  int
	own bool // it stands for the thread alone
}

func (t *threads) take(tid int) (taken thread, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken, ok = t.kept[tid]
	delete(t.kept, tid)
	return taken, ok
}

func (t *threads) keep(tid int, kept thread) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.kept[tid]; ok {
		unix.Close(kept.fd)
		return
	}
	if len(t.kept) >= mostThreads {
		for _, other := range t.kept {
			unix.Close(other.fd)
		}
		clear(t.kept)
	}
	if t.kept == nil {
		t.kept = make(map[int]thread)
	}
	t.kept[tid] = kept
}

// borrow returns a copy of a descriptor of the process that a thread belongs to.
// Same says that it is of the thread that had this number when the descriptor of the
// thread was opened, and has it still; else whether it is of the one that called is
// for the caller to ask.
func (t *threads) borrow(tid, fd int) (copied int, same bool, err error) {
	if kept, ok := t.take(tid); ok {
		if copied, err = getfd(kept.fd, fd); err == nil {
			t.keep(tid, kept)
			return copied, kept.own, nil
		}
		unix.Close(kept.fd) // of a thread that has ended, perhaps
	}
	opened, err := open(tid)
	if err != nil {
		return -1, false, os.NewSyscallError("pidfd_open", err)
	}
	if copied, err = getfd(opened.fd, fd); err != nil {
		unix.Close(opened.fd)
		return -1, false, os.NewSyscallError("pidfd_getfd", err)
	}
	t.keep(tid, opened)
	return copied, false, nil
}

func open(tid int) (t thread, err error) {
	if t.fd, err = unix.PidfdOpen(tid, unix.PIDFD_THREAD); err != unix.EINVAL { // Linux 6.9
		t.own = true
		return t, err
	}
	tgid, err := leader(tid)
	if err == nil {
		t.fd, err = unix.PidfdOpen(tgid, 0)
	}
	return t, err
}

// getfd is pidfd_getfd(2), which waits for nothing.
func getfd(process, fd int) (int, error) {
	copied, _, errno := unix.RawSyscall(unix.SYS_PIDFD_GETFD, uintptr(process), uintptr(fd), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(copied), nil
}
