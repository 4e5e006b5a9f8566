// Package netns reports the network namespaces of this machine and looks into
// them.
//
// [List] finds a namespace through the processes in it and through the files
// that keep it alive, as ip netns and container runtimes bind them to names. It
// does not find one that only an open file descriptor or socket keeps alive,
// nor one that only a single thread has entered while the rest of its process
// is elsewhere, nor what runs outside the PID namespace that /proc shows.
//
// [Do] runs a function inside a namespace: every socket made there, every
// /proc/sys/net opened there belongs to it.
package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// source is the name of this source in fact.Blind.
const source = "namespaces"

// List returns every network namespace that can be reached, the own one first,
// and what it could not see. Sysctl and Local are not filled in. PID is the
// lowest of the processes in the namespace, which is likely to be the one that
// stays longest.
func List() ([]fact.Namespace, []fact.Blind) {
	var found set
	var blind []fact.Blind
	if err := found.processes(); err != nil {
		blind = append(blind, *err)
	}
	if err := found.mounts(); err != nil {
		blind = append(blind, fact.Blind{Source: source, Error: "named namespaces: " + err.Error()})
	}
	if own, err := inode("/proc/self/ns/net"); err == nil {
		found.add(own).Own = true
	} else {
		blind = append(blind, fact.Blind{Source: source, Error: "the own namespace: " + err.Error()})
	}
	slices.SortFunc(found.list, func(a, b fact.Namespace) int {
		if a.Own != b.Own {
			if a.Own {
				return -1
			}
			return 1
		}
		return int(int64(a.Inode) - int64(b.Inode))
	})
	return found.list, blind
}

// set is namespaces, each once.
type set struct {
	list  []fact.Namespace
	index map[uint32]int // by inode
}

// add returns the namespace with this inode, which is valid until the next add.
func (s *set) add(inode uint32) *fact.Namespace {
	i, ok := s.index[inode]
	if !ok {
		if s.index == nil {
			s.index = make(map[uint32]int)
		}
		i = len(s.list)
		s.index[inode] = i
		s.list = append(s.list, fact.Namespace{Inode: inode})
	}
	return &s.list[i]
}

// mounts adds the namespaces that have a name. The first name under /run/netns
// wins, since that is what ip netns shows, then any other.
func (s *set) mounts() error {
	mounted, err := mounts()
	if err != nil {
		return err
	}
	for _, m := range mounted {
		if ns := s.add(m.inode); ns.Name == "" {
			ns.Name = m.name()
		}
	}
	return nil
}

// processes adds the namespace of every process.
func (s *set) processes() *fact.Blind {
	proc, err := os.Open("/proc")
	if err != nil {
		return &fact.Blind{Source: source, Error: err.Error()}
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return &fact.Blind{Source: source, Error: err.Error()}
	}

	dir := int(proc.Fd())
	var (
		last       uint32 // most processes share a namespace with the one before
		buf        [64]byte
		all, blind int
		why        error
		first      bool // PID 1 is always there, unless it is hidden from us
	)
	for _, name := range names {
		pid, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			continue
		}
		all++
		first = first || pid == 1
		n, err := unix.Readlinkat(dir, name+"/ns/net", buf[:])
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			continue // exited, or about to: a zombie has no namespace any more
		}
		if errors.Is(err, unix.EACCES) && unix.Faccessat(dir, name, unix.F_OK, 0) != nil {
			continue // exited just now: proc_ns_readlink in fs/proc/namespaces.c calls that EACCES, too
		}
		inode, ok := parseLink(buf[:max(n, 0)])
		if err != nil || !ok {
			blind++
			why = err
			continue
		}
		if inode == last {
			continue
		}
		last = inode
		if ns := s.add(inode); ns.PID == 0 || int32(pid) < ns.PID {
			ns.PID = int32(pid)
		}
	}
	return unread(all, blind, why, first, capability.Missing("CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE))
}

// unread tells that blind of all processes could not be looked at, nil when
// there is nothing to tell.
func unread(all, blind int, why error, first bool, needs string) *fact.Blind {
	switch {
	case blind > 0 && why != nil:
		return &fact.Blind{Source: source, Error: fmt.Sprintf("the namespace of %d of %d processes: %v", blind, all, why), Needs: needs}
	case blind > 0:
		return &fact.Blind{Source: source, Error: fmt.Sprintf("the namespace of %d of %d processes: the kernel calls it something unknown", blind, all)}
	case !first:
		return &fact.Blind{Source: source, Error: "processes of others are hidden: /proc is mounted with hidepid", Needs: needs}
	}
	return nil
}

// inode returns the inode of the namespace that a link such as
// /proc/self/ns/net names, without following it.
func inode(link string) (uint32, error) {
	var buf [64]byte
	n, err := unix.Readlink(link, buf[:])
	if err != nil {
		return 0, &os.PathError{Op: "readlink", Path: link, Err: err}
	}
	inode, ok := parseLink(buf[:n])
	if !ok {
		return 0, &os.PathError{Op: "readlink", Path: link, Err: fmt.Errorf("unknown form %q", buf[:n])}
	}
	return inode, nil
}

// parseLink reads net:[4026531840], ns_get_name in fs/nsfs.c.
func parseLink(link []byte) (inode uint32, ok bool) {
	link, ok = bytes.CutPrefix(link, []byte("net:["))
	if !ok {
		return 0, false
	}
	link, ok = bytes.CutSuffix(link, []byte("]"))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(string(link), 10, 32)
	return uint32(n), err == nil && n != 0
}
