// Package goroutines reads the goroutines of a running Go program from outside:
// which of them wait, what for, where in the code, and since when at least. The
// program is neither stopped nor changed, and needs no preparation: its memory
// is read with process_vm_readv(2) while it runs on, symbols and offsets come
// from its executable (package gosym). Go 1.18 and later, amd64 and arm64.
//
// What is read from a running program may be torn, so a goroutine is reported
// only if it was the same in every look at it, and once more after its stack
// was read: the same status, place, depth of stack and count of times that it
// was scheduled out (runtime.g.trackingSeq).
//
// Since is the longer of two times, both of which are lower bounds. One is the
// time between the first look and the last. The other begins with the garbage
// collection that saw the goroutine wait for the first time; see timeline.go for
// how that is known, and why Go's own stack traces may say up to two minutes too
// much. A collection comes at least every two minutes (sysmon, runtime/proc.go)
// unless it is switched off, but only once there has been a first (gcTrigger.test,
// runtime/mgc.go), which takes a heap of 4 MiB. So in a program that has collected
// garbage before, who waits for long is said to wait at most some two minutes too
// short; in one that hardly allocates only the time of the looks is known.
//
// Rights: those of PTRACE_MODE_ATTACH, ptrace(2), without attaching: the same
// user, and CAP_SYS_PTRACE for others, for programs with more capabilities, and
// for all where kernel.yama.ptrace_scope is 1 or 2; 3 forbids it to everybody.
//
// Bound: of one program at most 250,000 goroutines are looked at, and 100 calls
// of each stack, and the connections of at most 2,000 are looked for. A look takes
// some 100 ns for each goroutine, and some 10 µs for each stack. Memory of others
// is foreign: each word is checked before use.
package goroutines

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

// most bounds the goroutines of one program that are looked at.
const most = 250_000

// ErrNotFound is the error of a Go program whose goroutines are not where they
// are in every other: it has just begun, or its Go is newer than this.
var ErrNotFound = errors.New("its goroutines were not found")

// Target is one running Go program. Use [Open]; Close it. One goroutine may use
// it at a time.
type Target struct {
	pid    int32
	pidfd  int // tells a process from a later one with its PID
	exe    unix.Stat_t
	table  *gosym.Table
	at     offsets
	allgs  uint64 // address of runtime.allgs
	behind time.Duration

	looks int
	first time.Time
	total int
	seen  []record // by index in allgs
	last  []record // as the last look found them
}

// Open finds the goroutines of a process. The error is [os.ErrNotExist] when it
// is gone, [gosym.ErrNotGo] when it is no Go program, [os.ErrPermission] when it
// may not be looked at; [Blind] says what that needs.
func Open(pid int32) (*Target, error) {
	t := &Target{pid: pid, pidfd: -1}
	if err := t.open(); err != nil {
		t.Close()
		return nil, t.wrong(err)
	}
	return t, nil
}

func (t *Target) wrong(err error) error {
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("goroutines of process %d: %w", t.pid, err)
}

func (t *Target) open() (err error) {
	if t.pidfd, err = unix.PidfdOpen(int(t.pid), 0); err != nil {
		return err
	}
	if err := t.stat(&t.exe); err != nil {
		return err
	}
	if t.table, err = gosym.OfProcess(t.pid); err != nil {
		return errors.Unwrap(err)
	}
	g, err := t.table.G()
	if err != nil {
		return err
	}
	buf, err := t.table.StructOf(g["sched"])
	if err != nil {
		return fmt.Errorf("runtime.gobuf: %w", err)
	}
	if t.at, err = offsetsOf(g, buf); err != nil {
		return err
	}
	t.behind = clockDifference(t.pid)
	return t.find()
}

func (t *Target) stat(st *unix.Stat_t) error {
	return unix.Stat("/proc/"+strconv.Itoa(int(t.pid))+"/exe", st)
}

// Close gives back what is open.
func (t *Target) Close() error {
	if t.pidfd >= 0 {
		unix.Close(t.pidfd)
		t.pidfd = -1
	}
	if t.table != nil {
		return t.table.Close()
	}
	return nil
}

// Look looks at all goroutines. From the second look on it keeps those that have
// not run since the one before.
func (t *Target) Look() error {
	now, err := t.list()
	if err != nil {
		if gone := t.still(); gone != nil { // what was read meanwhile was of a memory that is given back
			err = gone
		}
		return t.wrong(err)
	}
	t.last = now
	if t.looks++; t.looks == 1 {
		t.seen, t.first = now, time.Now()
		return nil
	}
	for i := range t.seen {
		if i >= len(now) || !t.seen[i].same(&now[i]) {
			t.seen[i] = record{}
		} else {
			t.seen[i] = now[i] // it may have been given a waitsince
		}
	}
	t.seen = t.seen[:min(len(t.seen), len(now))]
	return nil
}

// Parked reads the stacks of the goroutines that have been the same in all
// looks. There must have been two at least.
func (t *Target) Parked() (fact.Goroutines, error) {
	all := fact.Goroutines{PID: t.pid, Total: t.total, Cut: t.total > most}
	if t.looks < 2 {
		return all, t.wrong(errors.New("less than two looks cannot tell what stays"))
	}
	var given []int64
	for i := range t.seen {
		given = append(given, t.seen[i].since)
	}
	slices.Sort(given)
	w := walker{t: t, alike: make(map[string]*trace), conns: newConnections(t), times: t.timeline(slices.Compact(given), int64(t.clock()))}
	for chunk := range slices.Chunk(t.seen, chunkSize) {
		parked, err := w.chunk(chunk)
		if err != nil {
			return all, t.wrong(err)
		}
		all.Parked = append(all.Parked, parked...)
	}
	w.conns.join(all.Parked, t.last)
	if err := t.still(); err != nil {
		return all, t.wrong(err)
	}
	slices.SortStableFunc(all.Parked, func(a, b fact.Goroutine) int { return cmp.Compare(b.Since, a.Since) })
	return all, nil
}

// still fails when the process is gone, or runs another program by now: what was
// read may then be of that.
func (t *Target) still() error {
	fds := []unix.PollFd{{Fd: int32(t.pidfd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, 0); n > 0 {
		return fs.ErrNotExist
	}
	var st unix.Stat_t
	if err := t.stat(&st); err != nil {
		return err
	}
	if st.Dev != t.exe.Dev || st.Ino != t.exe.Ino {
		return fmt.Errorf("%w: the process runs another program by now", fs.ErrNotExist)
	}
	return nil
}

// clockDifference is how far the clock of a process is ahead of ours, when it is
// in another time namespace; time_namespaces(7).
func clockDifference(pid int32) time.Duration {
	offset := func(who string) time.Duration {
		text, err := os.ReadFile("/proc/" + who + "/timens_offsets")
		if err != nil {
			return 0 // no time namespaces
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "monotonic" {
				s, _ := strconv.ParseInt(f[1], 10, 64)
				ns, _ := strconv.ParseInt(f[2], 10, 64)
				return time.Duration(s)*time.Second + time.Duration(ns)
			}
		}
		return 0
	}
	return offset(strconv.Itoa(int(pid))) - offset("self")
}

// Blind is what stays unseen for an error of this package, and what would show
// it.
func Blind(err error) fact.Blind {
	b := fact.Blind{Source: "goroutines", Error: err.Error()}
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		b.Needs = "a kernel with CONFIG_CROSS_MEMORY_ATTACH"
	case errors.Is(err, fs.ErrPermission):
		b.Needs = capability.Program()
		scope, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
		if strings.TrimSpace(string(scope)) == "3" {
			b.Needs = "kernel.yama.ptrace_scope below 3, which takes a reboot"
		}
	}
	return b
}
