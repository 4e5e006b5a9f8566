//go:build linux

// Package redirect leads the DNS questions of running programs to a stub on the
// loopback interface: those that a program sends by itself, past the operating
// system. It decides on the calls that package notify tells of.
//
// A connect(2) to a nameserver is made to the stub instead, on the program's own
// socket (pidfd_getfd(2)); where that is denied, or the socket cannot reach
// loopback, on a new one that takes its place. The address is Lifeline's own copy
// by then, so no thread of the program can change it meanwhile. The static musl
// libc does not connect; the nameservers that it holds in memory are replaced, so
// that it also accepts the answers.
//
// All other calls go on unchanged, also when something fails here: the worst that
// becomes of a program is what it would have had without.
//
// Rights: that of tracing the program, which its ancestors have unless
// kernel.yama.ptrace_scope is above 1. Linux 5.9.
package redirect

import (
	"errors"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/act/run/stub"
)

// Redirector answers system calls.
type Redirector struct {
	Listener *notify.Listener
	IPv4     netip.AddrPort // of the stub
	IPv6     netip.AddrPort // the zero address where it has none
	Ports    *stub.Ports    // where it hears whom to answer
	Journal  *Journal
	Tally    *Tally

	// All redirects what goes to port 53 of any address, and not only of the
	// nameservers of resolv.conf.
	All bool

	// Resolv is the path of resolv.conf; empty means /etc/resolv.conf.
	Resolv string

	deny    bool // pidfd_getfd, for tests
	patient bool // a call that was received ends with its thread and not by a signal: WAIT_KILLABLE_RECV, Linux 5.19
	servers servers
	places  places
	threads threads
	netns   netns
	turn    atomic.Int32 // the loop that receives
	since   [mostLoops]atomic.Int64
	watched atomic.Bool
	slow    slots // of the journal, for calls that wait for something
	ended   chan error
}

const (
	// stuck is when a call is taken to wait for something: memory on a file
	// system that does not answer, say. Another loop receives from then on.
	stuck     = 250 * time.Millisecond
	mostLoops = 16
)

// Serve answers until no process is left that could call, first of all those
// calls that another process had received when it died.
func (r *Redirector) Serve() error {
	r.servers.path = r.resolv()
	r.ended = make(chan error, mostLoops)
	r.netns.find()
	// Without it is slower. A kernel that has it, Linux 6.6, has waits that only the end
	// of a thread ends, too, which the filter then asks for.
	r.patient = r.Listener.Hasten() == nil
	for i := range r.Journal.slots {
		slot := &r.Journal.slots[i]
		if slot.ID != 0 && r.Listener.Valid(slot.ID) {
			r.settle(slot)
		}
		*slot = notify.Call{}
	}
	go r.receive(0)
	return <-r.ended
}

// receive is a loop that answers calls, until another has its turn.
func (r *Redirector) receive(loop int32) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slot := &r.Journal.slots[loop]
	for r.turn.Load() == loop {
		if err := r.Listener.Receive(slot); err != nil {
			r.ended <- err
			return
		}
		r.since[loop].Store(time.Now().UnixNano())
		if !r.watched.Load() && r.watched.CompareAndSwap(false, true) {
			go r.watch()
		}
		r.settle(slot)
		slot.ID = 0
		r.since[loop].Store(0)
	}
}

// watch lets another loop receive when one is stuck. It ends when nothing
// happens any more, so that an idle program wakes nobody.
func (r *Redirector) watch() {
	for quiet := 0; quiet < 8; {
		time.Sleep(stuck / 2)
		loop := r.turn.Load()
		began := r.since[loop].Load()
		switch {
		case began == 0:
			quiet++
		case time.Since(time.Unix(0, began)) > stuck && loop+1 < mostLoops:
			r.turn.Store(loop + 1)
			go r.receive(loop + 1)
			quiet = 0
		default:
			quiet = 0
		}
	}
	r.watched.Store(false)
}

// answer is what becomes of a call.
type answer struct {
	itself bool // the kernel does what was asked for
	later  bool // it is answered already, or will be
	errno  unix.Errno
}

var (
	goOn = answer{itself: true}
	done = answer{}
)

// settle answers a call.
func (r *Redirector) settle(c *notify.Call) {
	a := goOn
	switch c.Nr {
	case unix.SYS_CONNECT:
		a = r.connect(c)
	case unix.SYS_SENDTO:
		a = r.sendto(c)
	case unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_IO_URING_SETUP:
		r.notice(c)
	}
	r.give(c, a)
}

func (r *Redirector) give(c *notify.Call, a answer) {
	switch {
	case a.later:
	case a.itself:
		r.Listener.Continue(c.ID)
	default:
		r.Listener.Return(c.ID, a.errno)
	}
}

// room is for an address, on the caller's stack: to ask for memory takes half a
// microsecond of the ten that a call may take.
type room [unix.SizeofSockaddrInet6]byte

// read returns the address that a call is for, as bytes; nil where there is
// none that could be a nameserver's.
func (r *Redirector) read(c *notify.Call, at, length uint64, in *room) []byte {
	if at == 0 || length < unix.SizeofSockaddrInet4 {
		return nil
	}
	b := in[:min(length, unix.SizeofSockaddrInet6)]
	if err := readMemory(int(c.TID), at, b); err != nil {
		if errors.Is(err, unix.EPERM) {
			r.Tally.add(r.program(c), Unreadable)
		}
		return nil
	}
	return b
}

// wants reports that a program asks a nameserver at an address by itself. Whether
// the program still waits is to be asked before anything is done to it.
func (r *Redirector) wants(c *notify.Call, b []byte) (a address, ok bool) {
	a, ok = parseAddress(b)
	if !ok || a.Port() != dnsPort || !r.All && !r.servers.has(a.Addr()) {
		return a, false
	}
	code, err := r.places.of(int(c.TID), c.IP)
	if err != nil {
		return a, false
	}
	if !code.own {
		r.Tally.add(code.program, Libc)
	}
	return a, code.own
}
