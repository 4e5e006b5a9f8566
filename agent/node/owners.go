package node

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/bpf"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/source/gobin"
	"github.com/lifeline-go/lifeline/agent/source/owners"
	"github.com/lifeline-go/lifeline/agent/source/procfs"
)

// owned is who owns which socket, by inode: the sockets of all namespaces have
// theirs from one file system.
type owned struct {
	list  []fact.Owned     // sorted by PID
	first map[uint32]int32 // inode → index of its first owner in list
	next  []int32          // index of the next owner of the same socket, -1 for none
}

// index makes list findable. It is done while sockets are still being read.
func (o *owned) index() {
	if o.first == nil {
		o.first = make(map[uint32]int32, len(o.list))
	}
	clear(o.first)
	o.next = slices.Grow(o.next[:0], len(o.list))[:len(o.list)]
	for i := len(o.list) - 1; i >= 0; i-- { // backwards, so that each chain is sorted
		inode := o.list[i].Inode
		next, ok := o.first[inode]
		if !ok {
			next = -1
		}
		o.next[i], o.first[inode] = next, int32(i)
	}
}

// join gives each socket its owners and options.
func (o *owned) join(sockets []fact.Socket) {
	backing := make([]fact.Owner, len(o.list))
	for k := range sockets {
		s := &sockets[k]
		i, ok := o.first[s.Inode]
		if !ok || s.Inode == 0 {
			continue
		}
		backing[i] = o.list[i].Owner
		s.Owners = backing[i : i+1 : i+1] // no room: a second owner moves it elsewhere
		for ; i >= 0; i = o.next[i] {
			if owner := o.list[i].Owner; owner != s.Owners[len(s.Owners)-1] {
				s.Owners = append(s.Owners, owner)
			}
			if o.list[i].Options.OK {
				s.Options = o.list[i].Options
			}
		}
	}
}

// of returns the owners of one socket.
func (o *owned) of(inode uint32) (owners []fact.Owner) {
	i, ok := o.first[inode]
	if !ok || inode == 0 {
		return nil
	}
	for ; i >= 0; i = o.next[i] {
		if owner := o.list[i].Owner; len(owners) == 0 || owner != owners[len(owners)-1] {
			owners = append(owners, owner)
		}
	}
	return owners
}

// pids are the processes that own a socket.
func (o *owned) pids() []int32 {
	var pids []int32
	for i := range o.list {
		if pid := o.list[i].PID; len(pids) == 0 || pids[len(pids)-1] != pid {
			pids = append(pids, pid)
		}
	}
	return pids
}

// readOwners reads who owns which socket: in one pass over all tasks by BPF,
// and where that is not to be had, by a walk through /proc.
func (n *Node) readOwners() (blind []fact.Blind) {
	defer n.owned.index()
	n.openOnce.Do(func() {
		if o, err := bpf.Open(); err == nil {
			n.owners = o
		}
	})
	if n.owners != nil && !n.withoutBPF {
		var err error
		if n.owned.list, err = n.owners.Read(n.owned.list[:0]); err == nil {
			return nil
		}
		_ = n.owners.Close()
		n.owners = nil
	}
	n.owned.list, blind = owners.Walk(n.owned.list[:0])
	return blind
}

// processes fills in who the owners are; with Full, all processes and what the
// executables of the owners say.
func (n *Node) processes(l *look) {
	detail := procfs.Brief
	pids := n.owned.pids()
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
	for _, pid := range n.owned.pids() {
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
