// Package node takes looks at this machine: it asks every source, each in the
// way that costs least here, joins what they saw into one set of facts, and
// keeps account of what none of them could see.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/bpf"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/gobin"
	"github.com/lifeline-go/lifeline/agent/source/owners"
	"github.com/lifeline-go/lifeline/agent/source/pidfd"
	"github.com/lifeline-go/lifeline/agent/source/procfs"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
)

// borrowTime bounds the reading of socket options without BPF: a few
// microseconds for each of as many as a machine can have.
const borrowTime = 5 * time.Second

// Node keeps open, between looks, what is costly to open. Use New; Close it.
type Node struct {
	programs gobin.Cache

	openOnce   sync.Once
	owners     *bpf.Owners // nil where BPF is not to be had
	withoutBPF bool        // for tests: as if it were not

	// Room that each look uses again. No fact refers to it.
	owned   []fact.Owned
	byInode map[uint32]int32
	sockets []fact.Socket
}

// New returns a Node. It opens nothing before the first look needs it.
func New() *Node { return &Node{} }

// Close ends what is open. The Node must not be used after it.
func (n *Node) Close() error {
	n.openOnce.Do(func() {})
	if n.owners == nil {
		return nil
	}
	return n.owners.Close()
}

// Recycle gives the room of a look back for the next one. Nobody may use the
// facts of m any more, nor what knows m as its Earlier.
func (n *Node) Recycle(m *fact.Machine) { n.sockets, m.Sockets = m.Sockets[:0], nil }

// Want says what to look at. The zero Want is what a census needs: all sockets
// of all namespaces with their owners and options, and the names of processes.
type Want struct {
	Sockets    sockdiag.Want
	Namespaces Namespaces
	Full       bool // also processes in full, conntrack, own addresses and name resolution
	Probe      bool // with Full: ask each nameserver one question

	first bool // with Full: only what is compared with a later look
}

// Watch takes a look, waits, and takes another; the second one knows the first
// as its Earlier. It ends early, with an error, when ctx does.
func (n *Node) Watch(ctx context.Context, d time.Duration, w Want) (*fact.Machine, error) {
	first := w
	first.first = true
	earlier, err := n.Look(ctx, first)
	if err != nil {
		return nil, err
	}
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-wait.C:
	}
	m, err := n.Look(ctx, w)
	if err != nil {
		return nil, err
	}
	m.Earlier = earlier
	return m, nil
}

// Look takes one look. It returns an error only when there is nothing to see at
// all: no namespace whose sockets can be read. All else that fails is in Blind.
func (n *Node) Look(ctx context.Context, w Want) (*fact.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	var (
		l     = look{Machine: &fact.Machine{Host: host, Sockets: n.sockets}, want: w}
		blind []fact.Blind
		wg    sync.WaitGroup
	)
	n.sockets = nil
	wg.Go(func() { blind = n.readOwners() })
	if w.Full && !w.first {
		wg.Go(func() { l.names(ctx) })
	}
	err = l.spaces()
	wg.Wait()
	if err != nil {
		return nil, err
	}
	l.blind(blind...)
	n.join(l.Sockets)
	if n.owners == nil || n.withoutBPF {
		borrowing, cancel := context.WithTimeout(ctx, borrowTime)
		l.blind(pidfd.Options(borrowing, l.Sockets)...)
		cancel()
	}
	n.processes(&l)
	l.Time = time.Now()
	return l.Machine, ctx.Err()
}

// look is a Machine while it is being filled.
type look struct {
	*fact.Machine
	want   Want
	failed error      // why the last namespace could not be read
	mu     sync.Mutex // guards Blind while sources run side by side
}

func (l *look) blind(list ...fact.Blind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Blind = append(l.Blind, list...)
}

// readOwners reads who owns which socket: in one pass over all tasks by BPF,
// and where that is not to be had, by a walk through /proc.
func (n *Node) readOwners() (blind []fact.Blind) {
	n.openOnce.Do(func() {
		if o, err := bpf.Open(); err == nil {
			n.owners = o
		}
	})
	if n.owners != nil && !n.withoutBPF {
		var err error
		if n.owned, err = n.owners.Read(n.owned[:0]); err == nil {
			return nil
		}
		_ = n.owners.Close()
		n.owners = nil
	}
	n.owned, blind = owners.Walk(n.owned[:0])
	return blind
}

// join gives each socket its owners and options, by inode: all sockets of all
// namespaces have theirs from one file system. Owners come sorted by PID.
func (n *Node) join(sockets []fact.Socket) {
	if n.byInode == nil {
		n.byInode = make(map[uint32]int32, len(sockets))
	}
	clear(n.byInode)
	for i := range sockets {
		if inode := sockets[i].Inode; inode != 0 {
			n.byInode[inode] = int32(i)
		}
	}
	backing := make([]fact.Owner, len(n.owned))
	for k := range n.owned {
		owned := &n.owned[k]
		i, ok := n.byInode[owned.Inode]
		if !ok {
			continue
		}
		s := &sockets[i]
		backing[k] = owned.Owner
		if s.Owners == nil {
			s.Owners = backing[k : k+1 : k+1] // no room: a second owner moves it elsewhere
		} else {
			s.Owners = append(s.Owners, owned.Owner)
		}
		if owned.Options.OK {
			s.Options = owned.Options
		}
	}
}

// processes fills in who the owners are; with Full, all processes and what
// their executables say.
func (n *Node) processes(l *look) {
	detail := procfs.Brief
	pids := ownerPIDs(l.Sockets)
	if l.want.Full {
		detail = procfs.Full
		all, err := procfs.FS{}.PIDs()
		if err != nil {
			l.blind(fact.Blind{Source: "processes", Error: err.Error()})
		} else {
			pids = all
		}
	}
	processes, blind := procfs.FS{}.ReadAll(pids, detail)
	l.Processes = processes
	l.blind(blind...)
	if l.want.Full && !l.want.first {
		n.executables(l)
	}
}

// executables reads what the executables of processes with sockets say.
func (n *Node) executables(l *look) {
	var failed error
	failures := 0
	for _, pid := range ownerPIDs(l.Sockets) {
		p := l.Process(pid)
		if p == nil {
			continue
		}
		program, err := n.programs.OfProcess(pid)
		switch {
		case err == nil:
			p.Program = &program
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, gobin.ErrNotProgram): // it is gone, or there is nothing to know
		default:
			failed = err
			failures++
		}
	}
	if failures == 0 {
		return
	}
	blind := fact.Blind{Source: "processes", Error: fmt.Sprintf("the executables of %d processes, the last one: %v", failures, failed)}
	if errors.Is(failed, fs.ErrPermission) {
		blind.Needs = capability.Missing("CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE)
	}
	l.blind(blind)
}

// ownerPIDs are the PIDs that own a socket, sorted.
func ownerPIDs(sockets []fact.Socket) []int32 {
	var pids []int32
	last := int32(0)
	for i := range sockets {
		for _, o := range sockets[i].Owners {
			if o.PID != last { // sockets come in runs of the same owner
				pids = append(pids, o.PID)
				last = o.PID
			}
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// Alive reports whether there is a process with this PID.
func Alive(pid int32) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}
