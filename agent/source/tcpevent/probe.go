package tcpevent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// load returns the verified programs, without those for probes where the kernel
// takes the others only.
func load() (*ebpf.Collection, error) {
	spec, err := loadEvents()
	if err != nil {
		return nil, err
	}
	all, err := ebpf.NewCollection(spec)
	if err == nil || errors.Is(err, unix.EPERM) {
		return all, err
	}
	delete(spec.Programs, eventsProgCanary)
	delete(spec.Programs, eventsProgProbe)
	if some, err := ebpf.NewCollection(spec); err == nil {
		return some, nil
	}
	return nil, err
}

// watchKeepalive attaches the program that sees keepalive timers expire, once
// the kernel's programs know how those are told from others.
func (e *Events) watchKeepalive() error {
	if e.loaded.Programs[eventsProgProbe] == nil {
		return fmt.Errorf("%w: the kernel does not take the program", errors.ErrUnsupported)
	}
	if err := e.learnKeepalive(); err != nil {
		return err
	}
	return e.attach(eventsProgProbe)
}

// learnKeepalive has the kernel read what a keepalive timer runs, off a socket
// that is made for that and closed again: /proc/kallsyms hides it from most, and
// no address of the kernel needs to come here.
func (e *Events) learnKeepalive() error {
	sign := 1 + rand.Int32N(1<<30) // a timeout that no other socket has, by all odds
	if err := e.loaded.Variables[eventsVarCanaryTimeout].Set(uint32(sign)); err != nil {
		return err
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: e.loaded.Programs[eventsProgCanary]})
	if err != nil {
		return err
	}
	err = errors.Join(canary(int(sign)), l.Close())
	if err != nil {
		return err
	}
	var found uint64
	if err := e.loaded.Variables[eventsVarKeepalive].Get(&found); err != nil {
		return err
	}
	if found == 0 {
		return fmt.Errorf("%w: a socket of this process does not show its keepalive timer", errors.ErrUnsupported)
	}
	return nil
}

// canary makes a TCP socket with a TCP_USER_TIMEOUT, in milliseconds, and
// closes it, with which the kernel destroys it at once: it never was connected.
func canary(timeout int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, timeout)
	return errors.Join(os.NewSyscallError("setsockopt", err), os.NewSyscallError("close", unix.Close(fd)))
}
