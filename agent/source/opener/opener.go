// Package opener says of each socket that was opened while it watched who opened
// it: which process, when, and the stack of its code; and, where it is asked to
// look, when the socket was last used and by which code. It watches all
// processes, in whatever container they are.
//
// What it knows is kept by the kernel with the socket itself (BPF_MAP_TYPE_SK_STORAGE),
// so it goes with the socket: nothing runs when a descriptor is closed, copied,
// inherited or passed on, and no other system call is touched. The stack is read
// along the frame pointers, which Go programs always have; of programs without
// them there are one or two calls. Sockets that were opened before have no record.
//
// Of the sockets that a program accepts, those of Go programs are seen: package
// net calls getsockname(2) right after accept4(2). Go programs that open a socket
// in a goroutine of its own, such as those of net/http, hide who asked for it.
// [Sockets.Layout] lets the kernel read that from what the Go runtime keeps of a
// program started with GODEBUG=tracebackancestors=10; [Sockets.Trace] finds it by
// uprobes, in one process for a limited time.
//
// Cost: some 2 µs for each connect(2), some 75 ns for each message sent or
// received where the last use is asked for, nothing else. Memory: 200 bytes for
// each open socket, of 262,144 at most, and 12 MiB; [Sockets.Dropped] says what
// found no room. Killed, it leaves nothing behind: the kernel unloads it.
// Records are read with a walk over all descriptors, which 10,000 of them make
// some 20 ms long.
//
// It needs BTF, Linux 6.7 for the hooks of unix sockets, and CAP_BPF,
// CAP_PERFMON and CAP_NET_ADMIN; a cgroup v2 that is mounted, or CAP_SYS_ADMIN to
// mount one that nobody sees. On kernels from 5.10 on it uses the tracepoints of
// the system calls instead: that costs each system call of the machine some
// 10 ns, and the last use is not known.
package opener

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

// most is how many sockets are kept at most, as many as the map of inodes holds.
const most = 262144

// Sockets are loaded programs and what they keep. They must be closed. They must
// not be used by several goroutines at once.
type Sockets struct {
	loaded *ebpf.Collection
	links  []link.Link
	dump   *link.Iter // nil: records are kept by inode
	uses   bool
	raw    []byte          // a piece of a pass
	seen   map[uint64]bool // cookies, in a pass
	stacks map[uint64]Stack
}

// Options choose what is watched. The zero value watches only what is opened.
type Options struct {
	Uses bool // also when, and by which code, sockets are used

	withoutHooks bool // for tests: as if the kernel were older
}

// Open loads the programs into the kernel and attaches them. Every error is an
// [*Error].
func Open(o Options) (*Sockets, error) {
	var hooks error
	if !o.withoutHooks {
		var s *Sockets
		if s, hooks = open((*Sockets).hook, hookPrograms, o); hooks == nil {
			return s, nil
		}
		if errors.Is(hooks, unix.EPERM) {
			return nil, explain(hooks)
		}
	}
	s, err := open((*Sockets).trace, tracePrograms, o)
	if err != nil {
		return nil, explain(errors.Join(hooks, err))
	}
	return s, nil
}

func open(attach func(*Sockets, Options) error, programs []string, o Options) (*Sockets, error) {
	s := &Sockets{stacks: make(map[uint64]Stack)}
	err := s.load(programs)
	if err == nil {
		err = attach(s, o)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// load loads these programs, those for uprobes, and the maps.
func (s *Sockets) load(programs []string) error {
	spec, err := loadOpener()
	if err != nil {
		return err
	}
	wanted := map[string]*ebpf.ProgramSpec{}
	for _, list := range [][]string{programs, {openerProgGoStatement, openerProgQueueForDial, openerProgDialConnFor}} {
		for _, name := range list {
			wanted[name] = spec.Programs[name]
		}
	}
	spec.Programs = wanted
	if s.loaded, err = ebpf.NewCollection(spec); err != nil {
		return err
	}
	return s.set(openerVarLeft, uint64(most))
}

func (s *Sockets) set(name string, value any) error { return s.loaded.Variables[name].Set(value) }

func (s *Sockets) number(name string) (n uint64) {
	if s.loaded.Variables[name].Get(&n) != nil {
		return 0
	}
	return n
}

// ByInode reports whether the kernel is too old to keep records with their
// sockets: [Socket] then has no more than an inode and who opened it, the
// caller must [Sockets.Forget] those that are gone, and every system call of the
// machine takes some 10 ns longer.
func (s *Sockets) ByInode() bool { return s.dump == nil }

// Uses reports whether it is watched when sockets are used.
func (s *Sockets) Uses() bool { return s.uses }

// Dropped returns how many sockets found no room, as so many are open, and how
// many stacks were not kept, as another was being read on the same processor.
func (s *Sockets) Dropped() (sockets, stacks uint64) {
	return s.number(openerVarDropped), s.number(openerVarClashes)
}

// Layout tells the kernel where the fields of a goroutine are in the program that
// a process runs, from when on it reads who asked for a socket. At most 1,024
// processes can be told of.
func (s *Sockets) Layout(pid int32, g gosym.Layout) error {
	l := openerLayout{}
	for _, f := range []struct {
		to   *uint32
		name string
	}{{&l.Goid, "goid"}, {&l.Parent, "parentGoid"}, {&l.Creator, "gopc"}, {&l.Ancestors, "ancestors"}} {
		if at := g[f.name].Offset; at < math.MaxInt16 {
			*f.to = uint32(at)
		}
	}
	if l.Goid == 0 || l.Creator == 0 {
		return &Error{Err: fmt.Errorf("%w: no goid and gopc in runtime.g", errors.ErrUnsupported)}
	}
	if err := s.loaded.Maps[openerMapLayouts].Put(uint32(pid), l); err != nil {
		return &Error{Err: fmt.Errorf("where the goroutines of process %d have what: %w", pid, err)}
	}
	return nil
}

// Gone gives back what is kept of a process that has ended, or that runs another
// program by now.
func (s *Sockets) Gone(pid int32) {
	_ = s.loaded.Maps[openerMapLayouts].Delete(uint32(pid)) // it may not be there
}

// Close detaches and unloads the programs; it may be called again.
func (s *Sockets) Close() error {
	var failed []error
	for _, l := range s.links {
		failed = append(failed, l.Close())
	}
	s.links = nil
	if s.dump != nil {
		failed = append(failed, s.dump.Close())
		s.dump = nil
	}
	if s.loaded != nil {
		s.loaded.Close()
		s.loaded = nil
	}
	return errors.Join(failed...)
}
