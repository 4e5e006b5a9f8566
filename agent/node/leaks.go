package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/code"
	"github.com/lifeline-go/lifeline/agent/source/gobin"
	"github.com/lifeline-go/lifeline/agent/source/gosym"
	"github.com/lifeline-go/lifeline/agent/source/opener"
	"github.com/lifeline-go/lifeline/agent/source/procfs"
)

const (
	// mostPrograms is of how many processes the symbols are kept open.
	mostPrograms = 256

	// mostTraces bounds the stacks that are kept as calls.
	mostTraces = 32768

	// mostTraced is in how many processes uprobes are set.
	mostTraced = 16
)

// Openers follow who opens sockets. Use [Node.Openers]; Close them. They take one
// look at a time.
type Openers struct {
	node     *Node
	sockets  *opener.Sockets
	want     OpenersWant
	traced   int           // processes with uprobes
	began    time.Duration // by CLOCK_MONOTONIC
	programs map[int32]*running
	traces   map[traceKey]*fact.Trace
	ends     ends
	noted    []uint32 // inodes of the last look
	size     int      // of it
}

// running is a process that opens sockets.
type running struct {
	pidfd   int    // tells it from a later one with its PID; -1 when it could not be opened
	exec    uint32 // of the program that it runs, 0 = not known yet
	image   string // of it, for as long as exec is not known
	wanted  bool
	name    string
	binary  fact.Program
	code    *code.Program // nil: failed says why
	failed  error
	trace   *opener.Trace // nil: no uprobes
	unasked error         // why who asked is not told
	read    bool          // of its file, since the last look
}

type traceKey struct {
	pid   int32
	exec  uint32
	stack uint64
}

// OpenersWant says whom to follow. The zero value follows all processes, and
// notes only who opens what.
type OpenersWant struct {
	Uses bool                              // also when sockets are used, and by whom
	Only func(pid int32, name string) bool // chooses the processes that are told of; nil chooses all

	// Trace sets uprobes in the processes that Only chooses, 16 at most, to see who
	// asks for the sockets that others of their goroutines open. They are taken out
	// when the process ends, or by Close.
	Trace bool
}

// Openers begins to follow who opens sockets. The error is an *opener.Error.
func (n *Node) Openers(want OpenersWant) (*Openers, error) {
	s, err := opener.Open(opener.Options{Uses: want.Uses})
	if err != nil {
		return nil, err
	}
	o := &Openers{node: n, sockets: s, want: want, began: monotonic(), programs: make(map[int32]*running), traces: make(map[traceKey]*fact.Trace)}
	if want.Trace && want.Only != nil {
		o.find()
	}
	return o, nil
}

// find opens the processes that run already.
func (o *Openers) find() {
	pids, err := procfs.PIDs()
	if err != nil {
		return // they are opened with their first socket
	}
	processes, _ := procfs.ReadAll(pids, procfs.Brief)
	for i := range processes {
		if o.want.Only(processes[i].PID, processes[i].Name) {
			o.process(processes[i].PID, 0)
		}
	}
}

// Close ends the watch.
func (o *Openers) Close() error {
	for pid, r := range o.programs {
		o.drop(pid, r)
	}
	return o.sockets.Close()
}

// Descends reports whether a process was started by another, or by one that this
// started.
func Descends(pid, from int32) bool {
	for range 64 {
		if pid == from {
			return true
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || pid <= 1 {
			return false
		}
		// 812 (name, which may have any sign) S 7 ...
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(f) < 2 {
			return false
		}
		parent, err := strconv.ParseInt(f[1], 10, 32)
		if err != nil {
			return false
		}
		pid = int32(parent)
	}
	return false
}

// OpenersBlind is what an error of [Node.Openers] keeps from being seen.
func OpenersBlind(err error) fact.Blind { return opener.Blind(err) }

// Follow opens what a process runs before it opens its first socket, so that not
// even the first stack is short.
func (o *Openers) Follow(pid int32) error {
	if r := o.process(pid, 0); r.failed != nil {
		return r.failed
	}
	return nil
}

// process returns what is known of a process. exec is that of a socket of it, 0
// when there is none yet.
func (o *Openers) process(pid int32, exec uint32) *running {
	r := o.programs[pid]
	if r != nil && exec != 0 && (exec > r.exec && r.exec != 0 || r.exec == 0 && image(pid) != r.image) { // another program: the old one's symbols are of no use
		o.drop(pid, r)
		r = nil
	}
	if r == nil {
		r = o.open(pid)
		o.programs[pid] = r
	}
	if r.exec == 0 {
		r.exec = exec
	}
	return r
}

// image tells apart the programs that a process runs in turn: where the kernel has
// put each, getauxval(3). It is empty where that is not to be seen.
func image(pid int32) string {
	auxv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	return string(auxv)
}

func (o *Openers) open(pid int32) *running {
	r := &running{pidfd: -1, image: image(pid)}
	r.pidfd, r.failed = unix.PidfdOpen(int(pid), 0)
	if r.failed != nil {
		return r
	}
	unix.CloseOnExec(r.pidfd)
	p, _, err := procfs.Read(pid, procfs.Brief)
	if err != nil {
		r.failed = err
		return r
	}
	r.name = p.Name
	r.wanted = o.want.Only == nil || o.want.Only(pid, p.Name)
	if !r.wanted {
		return r
	}
	if len(o.programs) >= mostPrograms {
		r.failed = fmt.Errorf("symbols of process %d: those of %d others are open already", pid, mostPrograms)
		return r
	}
	if r.binary, err = o.node.programs.OfProcess(pid); err != nil && !errors.Is(err, gobin.ErrNotProgram) {
		r.failed = err
		return r
	}
	if r.code, r.failed = code.Open(pid); r.failed != nil {
		return r
	}
	r.read = true
	if table := r.code.Table(); table != nil {
		r.unasked = o.askers(pid, r, table)
	}
	return r
}

// askers has the kernel see who asks for sockets of a Go program.
func (o *Openers) askers(pid int32, r *running, table *gosym.Table) error {
	g, err := table.G()
	if err != nil {
		return err
	}
	if err := o.sockets.Layout(pid, g); err != nil {
		return err
	}
	if !o.want.Trace || o.traced >= mostTraced {
		return nil
	}
	r.trace, err = o.sockets.Trace(pid, table, !keepsAncestors(pid))
	if err == nil {
		o.traced++
	}
	return err
}

// keepsAncestors reports a program whose Go runtime keeps who started each
// goroutine.
func keepsAncestors(pid int32) bool {
	file, err := os.Open(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	defer file.Close()
	environ, _ := io.ReadAll(io.LimitReader(file, 1<<20))
	for variable := range strings.SplitSeq(string(environ), "\x00") {
		if value, found := strings.CutPrefix(variable, "GODEBUG="); found && strings.Contains(value, "tracebackancestors=") {
			return true
		}
	}
	return false
}

func (o *Openers) drop(pid int32, r *running) {
	if r.trace != nil {
		_ = r.trace.Close()
		o.traced--
	}
	if r.code != nil {
		_ = r.code.Close()
	}
	if r.pidfd >= 0 {
		unix.Close(r.pidfd)
	}
	o.sockets.Gone(pid)
	delete(o.programs, pid)
}

// bury drops the processes that have ended.
func (o *Openers) bury() {
	for pid, r := range o.programs {
		fds := []unix.PollFd{{Fd: int32(r.pidfd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, 0); r.pidfd < 0 || n > 0 {
			o.drop(pid, r)
		}
	}
}

// Look returns what is open now. What only a census can say, the processes at the
// other ends among it, is added by [Openers.Ends].
func (o *Openers) Look(ctx context.Context) (*fact.Openings, error) {
	o.bury()
	if len(o.traces) > mostTraces {
		clear(o.traces)
	}
	all := &fact.Openings{Now: monotonic() - o.began, Open: make([]fact.Opening, 0, o.size+o.size/16)}
	made := make(map[*fact.Trace]uint64)
	o.noted = o.noted[:0]
	take := func(s *opener.Socket) {
		o.noted = append(o.noted, s.Inode)
		if one, ok := o.opening(s, made); ok {
			all.Open = append(all.Open, one)
		}
	}
	if err := o.each(ctx, take); err != nil {
		return nil, err
	}
	o.size = len(all.Open)
	for at, count := range made {
		all.Made = append(all.Made, fact.Made{At: at, Count: count})
	}
	for pid, r := range o.programs {
		if r.read && r.code != nil {
			r.code.Rest()
			r.read = false
		}
		if r.wanted {
			all.Programs = append(all.Programs, fact.Opener{PID: pid, Name: r.name, Module: r.binary.Module, Go: r.binary.Go})
		}
	}
	slices.SortFunc(all.Programs, func(a, b fact.Opener) int { return int(a.PID - b.PID) })
	o.ends.recall(all)
	all.Dropped, _ = o.sockets.Dropped()
	all.Blind = o.blind()
	return all, nil
}

// each calls take with each socket, and what is known of it in whatever way.
func (o *Openers) each(ctx context.Context, take func(*opener.Socket)) error {
	if o.want.Uses && !o.sockets.ByInode() {
		return o.sockets.Each(take) // there is nothing to add: no list is needed
	}
	list, err := o.sockets.Read(nil)
	switch {
	case err != nil:
	case o.sockets.ByInode():
		list, err = o.fill(ctx, list)
	default:
		err = o.used(ctx, list)
	}
	for i := range list {
		take(&list[i])
	}
	return err
}

// opening is one socket as a fact. It is left out when nobody asked for its
// process, or when it may be older than the watch.
func (o *Openers) opening(s *opener.Socket, made map[*fact.Trace]uint64) (one fact.Opening, ok bool) {
	r := o.process(s.PID, s.Exec)
	if !r.wanted {
		return one, false
	}
	at := o.trace(r, s, s.Opened)
	accepted := s.How == opener.Accepted
	if s.How == opener.Named {
		if !slices.ContainsFunc(at.Calls, func(c fact.Call) bool { return c.Func == "net.(*netFD).accept" }) {
			return one, false
		}
		accepted = true
	}
	if _, known := made[at]; !known { // thousands have the same
		if stack, ok := o.sockets.Stack(s.Opened); ok {
			made[at] = stack.Opened
		}
	}
	one = fact.Opening{
		ID: s.Cookie, PID: s.PID, Protocol: s.Protocol, State: s.State, Accepted: accepted, Local: s.Local, Remote: s.Remote, Path: s.Path,
		Netns: s.Netns, PeerInode: s.Peer, Born: s.Born - o.began, At: at, Client: s.Transport,
		Used: fact.Known[time.Duration]{Value: s.Used - o.began, OK: o.sockets.Uses() || s.Used != s.Born},
	}
	if one.ID == 0 {
		one.ID = 1<<63 | uint64(s.Inode)
	}
	for _, key := range s.Asked {
		if key == 0 {
			break
		}
		one.Asked = append(one.Asked, o.trace(r, s, key))
	}
	if s.Last != 0 {
		one.UsedBy = o.trace(r, s, s.Last)
	}
	return one, true
}

// trace is a stack in words, shared by all who have it.
func (o *Openers) trace(r *running, s *opener.Socket, key uint64) *fact.Trace {
	k := traceKey{s.PID, s.Exec, key}
	if t := o.traces[k]; t != nil {
		return t
	}
	t := &fact.Trace{}
	stack, ok := o.sockets.Stack(key)
	switch {
	case !ok:
		t.Unknown = "the stack was not kept: there were too many different ones"
	case r.failed != nil:
		t.Unknown = r.failed.Error()
		if errors.Is(r.failed, fs.ErrNotExist) || errors.Is(r.failed, unix.ESRCH) {
			t.Unknown = "the process that opened it has ended"
		}
	case s.Exec < r.exec:
		t.Unknown = "the process runs another program by now"
	default:
		r.read = true
		t = r.code.Trace(stack.Counters, stack.Logical, stack.Cut)
		if key == s.Opened && !r.code.Enters(t) {
			t = &fact.Trace{Unknown: "the process runs another program by now"}
		}
	}
	o.traces[k] = t
	return t
}

// blind is what keeps the watch from seeing all.
func (o *Openers) blind() (list []fact.Blind) {
	var failed []error
	overloaded := 0
	for _, r := range o.programs {
		if r.wanted && r.failed != nil && !errors.Is(r.failed, fs.ErrNotExist) && !errors.Is(r.failed, unix.ESRCH) {
			failed = append(failed, r.failed)
		}
		if r.wanted && r.unasked != nil && !errors.Is(r.unasked, fs.ErrNotExist) {
			failed = append(failed, r.unasked)
		}
		if r.trace != nil && r.trace.Check() {
			overloaded++
		}
	}
	if len(failed) > 0 {
		b := fact.Blind{Source: "openers", Error: failed[0].Error()}
		if len(failed) > 1 {
			b.Error += fmt.Sprintf(", and %d more", len(failed)-1)
		}
		if errors.Is(failed[0], fs.ErrPermission) {
			b.Needs = capability.Program()
		}
		list = append(list, b)
	}
	if overloaded > 0 {
		list = append(list, fact.Blind{Source: "openers", Error: "there are so many go statements that they are not looked at any more: who asked is told of net/http only",
			Needs: "the program started with GODEBUG=tracebackancestors=10"})
	}
	if o.sockets.ByInode() {
		list = append(list, fact.Blind{Source: "openers", Error: "this kernel does not say when a socket was last used", Needs: "Linux 6.7"})
	}
	return list
}

// throughHTTP reports a stack that an http.Transport is part of.
func throughHTTP(t *fact.Trace) bool {
	return t != nil && slices.ContainsFunc(t.Calls, func(c fact.Call) bool { return strings.HasPrefix(c.Func, "net/http.(*Transport).") })
}
