// Package bpf says which process owns each socket, and how the keepalive of
// each TCP socket is set, by one BPF iterator that the kernel runs over all
// file descriptors of all processes.
//
// It sees every network namespace without entering one, and what nothing else
// shows without borrowing each socket from its process: the keepalive times
// and TCP_USER_TIMEOUT. It does not see sockets that no descriptor refers to,
// such as those that wait in an accept queue, nor the options of MPTCP
// sockets.
//
// It needs Linux 5.11 with BTF, and CAP_BPF and CAP_PERFMON. The ways without
// BPF are the packages owners and pidfd.
package bpf

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// chunk is what the kernel hands over in one read at most: eight pages of
// 4 KiB, bpf_seq_read in kernel/bpf/bpf_iter.c.
const chunk = 32 << 10

// Owners is the loaded program. It must be closed. It must not be used by
// several goroutines at once.
type Owners struct {
	link *link.Iter
	raw  []byte // of a pass
	size int    // of the last one, which the next is like
}

// Open loads the program into the kernel. Every error is an [*Error].
func Open() (*Owners, error) {
	program, err := load()
	if err != nil {
		return nil, explain(err)
	}
	defer program.Close() // the link keeps it
	l, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, explain(fmt.Errorf("attach to iter/task_file: %w", err))
	}
	return &Owners{link: l}, nil
}

// Close unloads the program. It may be called again.
func (o *Owners) Close() error { return o.link.Close() }

// Read appends all file descriptors that refer to sockets, by PID and then by
// number, and returns the extended slice; after an error it returns dst. A
// descriptor of a thread that does not share its process's file table counts
// as the process's.
//
// Reading waits for nobody: the kernel walks its tables and sleeps only to let
// others run, so the time depends on the number of open files alone.
//
// A pass that does not show a socket of this very process, with the options
// that were set on it, is an [*Error] and not an empty machine.
func (o *Owners) Read(dst []fact.Owned) ([]fact.Owned, error) {
	c, err := newCanary()
	if err != nil {
		return dst, &Error{Err: fmt.Errorf("open a socket to check the pass by: %w", err)}
	}
	defer c.close()
	defer func() { o.size, o.raw = len(o.raw), nil }()
	if err := o.pass(); err != nil {
		return dst, &Error{Err: fmt.Errorf("read iter/task_file: %w", err)}
	}
	hz, err := c.find(o.raw)
	if err != nil {
		return dst, err
	}
	return decode(dst, o.raw, hz, c.inode), nil
}

// pass fills o.raw with the records of one walk over all files.
func (o *Owners) pass() error {
	it, err := o.link.Open()
	if err != nil {
		return err
	}
	defer it.Close()
	o.raw = make([]byte, 0, o.size+o.size/16+chunk)
	for {
		o.raw = slices.Grow(o.raw, chunk)
		n, err := it.Read(o.raw[len(o.raw) : len(o.raw)+chunk])
		o.raw = o.raw[:len(o.raw)+n]
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, unix.EAGAIN):
			// A million files without a socket among them end a read
			// (MAX_ITER_OBJECTS); the next goes on where it stopped.
		case err != nil:
			return err
		}
	}
}
