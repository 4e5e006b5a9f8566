//go:build linux

package run

import (
	"context"
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/launch"
	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/act/run/proxy"
	"github.com/lifeline-go/lifeline/agent/act/run/redirect"
	"github.com/lifeline-go/lifeline/agent/act/run/stub"
)

// state is what it takes to serve a program, beside the descriptors.
type state struct {
	Way    Way
	All    bool
	PID    int    // of the program
	Group  int    // its process group at first
	Keeper int    // the process that started it
	Token  string // of the proxy
}

// server serves a program: from the start, or from the death of another server
// on.
type server struct {
	state
	fds      []int // what processes share, in the order of share
	listener *notify.Listener
	stub     *stub.Server  // for Seccomp
	proxy    *proxy.Server // for Proxy
	tally    redirect.Tally
	lost     bool // another server was there before
}

// The memory that servers share: the journal on pages of its own, then ports.
const (
	portsAt    = (redirect.JournalSize + 4095) &^ 4095
	memorySize = portsAt + 4*stub.PortsSize
)

// newServer makes what a program will be served with by Seccomp.
func newServer(o *order) (*server, error) {
	memory, err := unix.MemfdCreate("lifeline run", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	if err := unix.Ftruncate(memory, int64(memorySize)); err != nil {
		return nil, os.NewSyscallError("ftruncate", err)
	}
	sockets, err := stub.Listen()
	if err != nil {
		return nil, err
	}
	s := &server{state: state{Way: Seccomp, All: o.All}, stub: &stub.Server{Sockets: sockets}}
	return s, s.share(memory, sockets.Files)
}

// newProxy makes what a program will be served with by Proxy.
func newProxy() (*server, error) {
	p, err := proxy.Listen()
	if err != nil {
		return nil, err
	}
	s := &server{state: state{Way: Proxy, Token: p.Token}, proxy: p}
	return s, s.share(-1, func() ([]*os.File, error) {
		f, err := p.File()
		return []*os.File{f}, err
	})
}

// share keeps descriptors for others: those of the memory, when there is one,
// and of the sockets. That of the listener comes last, when it is there.
func (s *server) share(memory int, sockets func() ([]*os.File, error)) error {
	if memory >= 0 {
		s.fds = append(s.fds, memory)
	}
	files, err := sockets()
	if err != nil {
		return err
	}
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		f.Close()
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		if err := unix.SetNonblock(fd, true); err != nil { // Fd has made it, and all copies, wait
			return err
		}
		s.fds = append(s.fds, fd)
	}
	return nil
}

// adopt returns a server that can go on in the place of another one.
func adopt(st state, fds []int) (*server, error) {
	s := &server{state: st, fds: fds, lost: true}
	switch {
	case st.Way == Proxy && len(fds) == 1:
	case st.Way == Seccomp && len(fds) >= 4:
		s.listener = notify.NewListener(fds[len(fds)-1])
	default:
		return nil, errors.New("a state without its descriptors")
	}
	return s, nil
}

// open makes what serves of what was shared.
func (s *server) open() (err error) {
	var sockets []*os.File
	defer func() {
		for _, f := range sockets {
			f.Close()
		}
	}()
	some := s.fds
	if s.Way == Seccomp {
		some = s.fds[1 : len(s.fds)-1]
	}
	for _, fd := range some {
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		sockets = append(sockets, os.NewFile(uintptr(fd), "socket"))
	}
	if s.Way == Proxy {
		s.proxy, err = proxy.FromFile(sockets[0], s.Token)
		return err
	}
	s.stub = new(stub.Server)
	s.stub.Sockets, err = stub.FromFiles(sockets)
	return err
}

// serve starts to serve.
func (s *server) serve(ctx context.Context, resolver Resolver) error {
	if s.stub == nil && s.proxy == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	if s.Way == Proxy {
		s.proxy.Names = resolver
		go s.proxy.Serve(ctx)
		return nil
	}
	memory, err := unix.Mmap(s.fds[0], 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	s.stub.Answers = resolver
	s.stub.Ports = stub.NewPorts(unsafe.Slice((*uint32)(unsafe.Pointer(&memory[portsAt])), stub.PortsSize))
	r := &redirect.Redirector{
		Listener: s.listener, IPv4: s.stub.Sockets.IPv4(), IPv6: s.stub.Sockets.IPv6(),
		Ports: s.stub.Ports, Journal: redirect.NewJournal(memory), Tally: &s.tally, All: s.All,
	}
	s.stub.Within = r.Patience()
	go func() { _ = r.Serve() }() // its end is that of all that it served
	go s.stub.Serve(ctx)
	return nil
}

// unused waits until nobody is left to serve.
func (s *server) unused() {
	if s.listener != nil {
		_ = s.listener.WaitUnused()
	}
}

// report tells what was done.
func (s *server) report(why string) Report {
	r := Report{Way: s.Way, Why: why, Lost: s.lost, Counts: s.tally.Counts()}
	switch {
	case s.stub != nil:
		r.Answered, r.Refused = s.stub.Counts()
	case s.proxy != nil:
		r.Answered, r.Refused = s.proxy.Counts()
	}
	return r
}

// standBy sees to it that there is always a process to take over, from when the
// one at the end of w has gone. A proxy ends with the program, and has none.
func (s *server) standBy(w *wire, keeper, env []string, gone func(), heard func(message)) {
	for pid := 0; ; {
		for w != nil {
			m, _, err := w.receive()
			if err != nil {
				w.Close()
				w = nil
			} else if heard != nil {
				heard(m)
			}
		}
		if pid != 0 {
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
		if gone != nil {
			gone()
			gone = nil
		}
		if s.Way == Proxy {
			return
		}
		began := time.Now()
		w, pid = s.spawn(keeper, env) // none until the next try, where it fails
		time.Sleep(standbyPause - time.Since(began))
	}
}

// spawn starts a process that takes over when this one dies.
func (s *server) spawn(keeper, env []string) (ours *wire, pid int) {
	near, theirs, err := launch.NewWire()
	if err != nil {
		return nil, 0
	}
	defer theirs.Close()
	if pid, err = launch.Spawn(keeper, nil, env, theirs, true); err != nil {
		near.Close()
		return nil, 0
	}
	ours = &wire{near}
	_ = ours.send(message{State: &s.state}, s.fds...) // if it fails the process ends
	return ours, pid
}
