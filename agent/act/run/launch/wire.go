//go:build linux

// Package launch is what comes first of lifeline run: the front starts its keeper, and
// the keeper the program. Both happen before the rest of the command is initialised,
// which takes longer than all of this, so it needs nothing that would have to be
// initialised before; package net above all.
package launch

import (
	"os"

	"golang.org/x/sys/unix"
)

// Wire connects two of the processes. Nothing is known of the end of a process
// but that its end of the wire is closed.
type Wire struct{ FD int }

// NewWire returns both ends of a wire.
func NewWire() (a, b Wire, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return a, b, os.NewSyscallError("socketpair", err)
	}
	return Wire{fds[0]}, Wire{fds[1]}, nil
}

// Close closes an end.
func (w Wire) Close() { unix.Close(w.FD) }

// Send sends a message, with copies of descriptors.
func (w Wire) Send(data []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(w.FD, data, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// peek waits for the next message, which stays the next, and returns what of it has
// room: nothing when the other end is gone.
func (w Wire) peek(data []byte) []byte {
	for {
		n, _, err := unix.Recvfrom(w.FD, data, unix.MSG_PEEK)
		if err != unix.EINTR {
			return data[:max(n, 0)]
		}
	}
}
