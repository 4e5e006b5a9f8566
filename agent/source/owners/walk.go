// Package owners says which process owns each socket without BPF: it walks the
// file descriptors of all processes in /proc, as every tool did before.
//
// It needs no more than /proc, and for the processes of other users
// CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH. It sees the file table of each
// process, but neither that of a thread which has one of its own, nor that of
// a process whose first thread has ended; the package bpf sees both, several
// times faster.
package owners

import (
	"bytes"
	"cmp"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Capabilities are what Walk needs to see the descriptors of other users'
// processes: the first to look at a process, the second to open its directory.
const Capabilities = "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"

const source = "owners"

// Walk appends all file descriptors that refer to sockets, by PID and then by
// number, and returns the extended slice and what it could not see. Netns and
// Options of each are unknown.
//
// A process or descriptor that goes away meanwhile is not a blind spot. The
// walk waits for nobody: it reads links and never what they lead to, so a hung
// file system cannot stop it.
func Walk(dst []fact.Owned) ([]fact.Owned, []fact.Blind) {
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dst, []fact.Blind{{Source: source, Error: "open /proc: " + err.Error(), Needs: "a mounted /proc"}}
	}
	defer unix.Close(proc)
	pids, err := processes(proc)
	if err != nil {
		return dst, []fact.Blind{{Source: source, Error: "list /proc: " + err.Error(), Needs: "a mounted /proc"}}
	}

	var next atomic.Int64
	walkers := make([]walker, min(runtime.GOMAXPROCS(0), len(pids)))
	var wait sync.WaitGroup
	for i := range walkers {
		wait.Go(func() {
			w := &walkers[i]
			w.proc, w.dirents = proc, make([]byte, 32<<10)
			for n := next.Add(1) - 1; n < int64(len(pids)); n = next.Add(1) - 1 {
				w.process(pids[n])
			}
		})
	}
	wait.Wait()

	var found []descriptor
	blind := blindness{hidden: !slices.Contains(pids, 1)} // the first process is always there
	for i := range walkers {
		found = append(found, walkers[i].found...)
		blind.add(&walkers[i].blind)
	}
	slices.SortFunc(found, func(a, b descriptor) int {
		return cmp.Or(cmp.Compare(a.owner.PID, b.owner.PID), cmp.Compare(a.owner.FD, b.owner.FD))
	})
	dst = slices.Grow(dst, len(found))
	for _, d := range found {
		dst = append(dst, fact.Owned{Owner: d.owner, Inode: d.inode})
	}
	return dst, blind.report()
}

// processes lists the numbered directories of /proc: the thread group leaders.
func processes(proc int) ([]int32, error) {
	var pids []int32
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(proc, buf)
		if err != nil || n == 0 {
			return pids, err
		}
		entries(buf[:n], func(name []byte) bool {
			if pid, ok := number(name[:len(name)-1]); ok {
				pids = append(pids, int32(pid))
			}
			return true
		})
	}
}

// descriptor is what is known of a socket here, in a sixth of the memory that
// fact.Owned takes.
type descriptor struct {
	owner fact.Owner
	inode uint32
}

// walker goes through one process after another.
type walker struct {
	proc    int
	dirents []byte
	found   []descriptor
	blind   blindness
}

// process adds the sockets of one process.
func (w *walker) process(pid int32) {
	var path [32]byte
	name := strconv.AppendInt(path[:0], int64(pid), 10)
	dir, err := openat(w.proc, append(name, "/fd\x00"...))
	if err == nil {
		err = w.descriptors(pid, dir)
		unix.Close(dir)
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		if !fileless(w.proc, pid) {
			w.blind.denied++
		}
	default:
		w.blind.failed++
		w.blind.err = err
	}
}

// descriptors adds the sockets among the entries of the directory fd of a
// process.
func (w *walker) descriptors(pid int32, dir int) error {
	for {
		n, err := unix.Getdents(dir, w.dirents)
		if err != nil || n == 0 {
			return err
		}
		var failure error
		entries(w.dirents[:n], func(name []byte) bool {
			fd, ok := number(name[:len(name)-1])
			if !ok {
				return true
			}
			var link [32]byte // what does not fit is no socket
			length, err := readlinkat(dir, name, link[:])
			switch {
			case err == unix.ENOENT: // closed meanwhile
			case err != nil:
				failure = err
				return false
			default:
				if inode, ok := socketInode(link[:length]); ok {
					w.found = append(w.found, descriptor{fact.Owner{PID: pid, FD: int32(fd)}, inode})
				}
			}
			return true
		})
		if failure != nil {
			return failure
		}
	}
}

// fileless says whether a process that may not be looked at has no files
// anyway: a kernel thread, or one that has ended and waits for its parent.
// A process whose state is hidden as well is not known to be one.
func fileless(proc int, pid int32) bool {
	fd, err := openat(proc, append(strconv.AppendInt(nil, int64(pid), 10), "/stat\x00"...))
	if err != nil {
		return errors.Is(err, unix.ENOENT)
	}
	defer unix.Close(fd)
	var stat [512]byte
	n, err := unix.Read(fd, stat[:])
	if err != nil {
		return errors.Is(err, unix.ESRCH)
	}
	return withoutFiles(stat[:n])
}

// withoutFiles reads state and flags, fields 3 and 9 of proc_pid_stat(5). The
// name before them may hold anything, parentheses too.
func withoutFiles(stat []byte) bool {
	const kernelThread = 0x00200000 // PF_KTHREAD, include/linux/sched.h
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 7 {
		return false
	}
	flags, ok := number(fields[6])
	return ok && flags&kernelThread != 0 || fields[0][0] == 'Z' || fields[0][0] == 'X'
}
