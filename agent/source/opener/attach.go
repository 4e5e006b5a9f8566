package opener

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

var (
	cgroupHooks = map[string]ebpf.AttachType{
		openerProgConnect4:    ebpf.AttachCGroupInet4Connect,
		openerProgConnect6:    ebpf.AttachCGroupInet6Connect,
		openerProgConnectUnix: ebpf.AttachCgroupUnixConnect,
		openerProgNamed4:      ebpf.AttachCgroupInet4GetSockname,
		openerProgNamed6:      ebpf.AttachCgroupInet6GetSockname,
		openerProgNamedUnix:   ebpf.AttachCgroupUnixGetsockname,
	}
	hookPrograms = []string{
		openerProgConnect4, openerProgConnect6, openerProgConnectUnix, openerProgNamed4, openerProgNamed6, openerProgNamedUnix,
		openerProgSent, openerProgReceived, openerProgDump,
	}
	tracepoints = map[string]string{
		openerProgConnectBegins: "sys_enter_connect",
		openerProgConnectEnds:   "sys_exit_connect",
		openerProgAccepted:      "sys_exit_accept",
		openerProgAccepted4:     "sys_exit_accept4",
	}
	tracePrograms = []string{openerProgConnectBegins, openerProgConnectEnds, openerProgAccepted, openerProgAccepted4}
)

// hook attaches to the cgroup hooks of the whole machine. The iterator runs once
// before: the programs learn from it whose PID namespace they count in.
func (s *Sockets) hook(o Options) (err error) {
	s.dump, err = link.AttachIter(link.IterOptions{Program: s.loaded.Programs[openerProgDump]})
	if err != nil {
		return fmt.Errorf("attach to iter/task_file: %w", err)
	}
	root, err := rootCgroup()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := s.pass(func(*Socket) {}); err != nil {
		return err
	}
	for name, hook := range cgroupHooks {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(root.Fd()), Program: s.loaded.Programs[name], Attach: hook})
		if err != nil {
			return fmt.Errorf("attach to %v: %w", hook, err)
		}
		s.links = append(s.links, l)
	}
	if !o.Uses {
		return nil
	}
	for _, name := range []string{openerProgSent, openerProgReceived} {
		l, err := link.AttachTracing(link.TracingOptions{Program: s.loaded.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach to a tracepoint: %w", err)
		}
		s.links = append(s.links, l)
	}
	s.uses = true
	return nil
}

// trace attaches to the tracepoints of the system calls.
func (s *Sockets) trace(Options) error {
	size := 16 << 10 // THREAD_SIZE of x86-64, and of arm64 with small pages
	if runtime.GOARCH == "arm64" {
		size = max(size, os.Getpagesize())
	}
	if err := s.set(openerVarStackSize, uint32(size)); err != nil {
		return err
	}
	for name, point := range tracepoints {
		l, err := link.Tracepoint("syscalls", point, s.loaded.Programs[name], nil)
		if err != nil {
			return fmt.Errorf("attach to the tracepoint %s: %w", point, err)
		}
		s.links = append(s.links, l)
	}
	// A call that fails tells the programs whose PID namespace they count in.
	canary := 1<<30 | rand.IntN(1<<30) // no descriptor has this number
	if err := s.set(openerVarCanary, uint32(canary)); err != nil {
		return err
	}
	_ = unix.Connect(canary, &unix.SockaddrInet4{})
	var left uint32
	if err := s.loaded.Variables[openerVarCanary].Get(&left); err != nil || left != 0 {
		return errors.Join(err, fmt.Errorf("%w: the tracepoint of connect(2) does not show a call of this process", errors.ErrUnsupported))
	}
	return nil
}
