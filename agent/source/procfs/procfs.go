// Package procfs reads what /proc tells about processes.
//
// Rights: name, command line, cgroup, uid, age and the limit of file
// descriptors of any process are open to everybody; so is, since Linux 6.2,
// the number of descriptors in use. Before that it needs CAP_DAC_READ_SEARCH
// for processes of other users. Their network namespace needs CAP_SYS_PTRACE,
// and so does everything where /proc is mounted with hidepid.
//
// Bound: the command line is read from the memory of the process and waits for
// its mmap_lock, which a process that hangs in the kernel may hold for ever
// (fs/proc/base.c, get_mm_cmdline); the cgroup waited for the global
// cgroup_mutex before Linux 6.8 (kernel/cgroup/cgroup.c, proc_cgroup_show). A
// process where they do not come within [bounded.Patience] is reported without
// them. At most [bounded.MostHung] reads are left behind, so Read takes at most
// one Patience longer than usual and ReadAll at most MostHung times that; what
// is known to hang is not asked again until it returns. The other files take
// spinlocks only.
package procfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/procfs/bounded"
)

// Detail is how much to read of each process.
type Detail uint8

const (
	// Brief reads name, uid and cgroup: nine system calls per process.
	Brief Detail = iota
	// Full also reads the command line, age, file descriptors and network
	// namespace.
	Full
)

// PIDs is [FS.PIDs] of /proc.
func PIDs() ([]int32, error) { return FS{}.PIDs() }

// Read is [FS.Read] of /proc.
func Read(pid int32, detail Detail) (fact.Process, []fact.Blind, error) {
	return FS{}.Read(pid, detail)
}

// ReadAll is [FS.ReadAll] of /proc.
func ReadAll(pids []int32, detail Detail) ([]fact.Process, []fact.Blind) {
	return FS{}.ReadAll(pids, detail)
}

// FS is a mounted proc file system. The zero FS is /proc.
type FS struct {
	Root string // where it is mounted, when not at /proc
}

// hangs is one for all, as the goroutines and threads that it bounds are.
var hangs bounded.Calls

func (fs FS) root() string {
	if fs.Root == "" {
		return "/proc"
	}
	return fs.Root
}

// PIDs returns all processes that can be seen, sorted. Where /proc is mounted
// with hidepid, [FS.ReadAll] says that some cannot.
func (fs FS) PIDs() ([]int32, error) {
	dir, err := os.Open(fs.root())
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]int32, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.ParseInt(name, 10, 32); err == nil && pid > 0 {
			pids = append(pids, int32(pid))
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// Read reads one process. The error says that nothing could be read, and is
// [os.ErrNotExist] when there is no such process (any more); what was missed of
// a process that was read is in the blind spots.
func (fs FS) Read(pid int32, detail Detail) (fact.Process, []fact.Blind, error) {
	p, misses, err := fs.look(detail).process(pid)
	if err != nil {
		return fact.Process{}, nil, fmt.Errorf("process %d: %w", pid, err)
	}
	var t tally
	t.add(pid, misses...)
	return p, t.blind(), nil
}

// ReadAll reads many processes and returns them sorted by PID, each once. Those
// that are gone are left out and are no blind spot. There is one blind spot for
// each thing that could not be read, with the number of processes.
func (fs FS) ReadAll(pids []int32, detail Detail) ([]fact.Process, []fact.Blind) {
	pids = slices.Clone(pids)
	slices.Sort(pids)
	pids = slices.Compact(pids)

	l := fs.look(detail)
	processes := make([]fact.Process, 0, len(pids))
	var t tally
	for _, pid := range pids {
		p, misses, err := l.process(pid)
		t.add(pid, misses...)
		switch {
		case err == nil:
			processes = append(processes, p)
		case !errors.Is(err, os.ErrNotExist):
			t.add(pid, miss{anything, err})
		}
	}
	return processes, append(t.blind(), fs.hidden()...)
}

// hidden tells whether /proc hides processes. PID 1 is always there; with
// hidepid=invisible only those who may trace it find it (fs/proc/root.c).
func (fs FS) hidden() []fact.Blind {
	var st unix.Stat_t
	if err := unix.Stat(fs.root()+"/1", &st); err != unix.ENOENT {
		return nil
	}
	return []fact.Blind{{
		Source: source,
		Error:  "processes of other users are hidden: " + fs.root() + " is mounted with hidepid",
		Needs:  "CAP_SYS_PTRACE, or the group of the mount option gid=",
	}}
}

// look starts a look at processes.
func (fs FS) look(detail Detail) *look {
	l := &look{root: fs.root(), detail: detail}
	if detail == Full {
		// Whoever looks at its own descriptors has one open, so zero means that
		// this kernel does not count them (before Linux 6.2).
		var st unix.Stat_t
		l.counts = isProc(l.root) && unix.Stat(l.root+"/self/fd", &st) == nil && st.Size > 0
		l.now = sinceBoot()
	}
	return l
}

// isProc tells a proc file system from a copy of one, where the size of a
// directory is only that.
func isProc(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}

// sinceBoot is the clock that start times are given in, in the time namespace
// of the reader as they are (fs/proc/array.c, do_task_stat).
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
