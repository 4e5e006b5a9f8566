// Package tcpevent hears from the kernel when a TCP connection gets no answer
// and when its peer resets it, in all network namespaces, the moment it happens.
//
// It says where to look and never what to think: an event is one segment on one
// connection. There is none for a keepalive probe that nobody answers, for which
// the kernel has no tracepoint; and at most one for each peer address and kind in
// 100 ms, so that what it costs does not grow with what a path loses. What
// stays on the machine is left out.
//
// It needs BTF and Linux 5.8 for the ring buffer, better 5.11, from which on its
// 500 KiB do not count against RLIMIT_MEMLOCK; and CAP_BPF and CAP_PERFMON. The
// way without BPF is to look at the sockets again and again, package sockdiag.
package tcpevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// mostAtOnce bounds what one call of Next returns.
const mostAtOnce = 1024

// Events are loaded programs and what they wrote. It must be closed. Next and
// Close may be called at the same time, Next not by several goroutines at once.
type Events struct {
	objects eventsObjects
	links   []link.Link
	reader  *ringbuf.Reader
	record  ringbuf.Record // its buffer is used again
	lost    uint64         // as Next told last

	closing sync.Once
	closed  error
}

// Batch is what happened since the batch before.
type Batch struct {
	Events []Event
	Lost   uint64 // how many more there were that found no room: anybody may be concerned
}

// Open loads the programs into the kernel and attaches them. Every error is an
// [*Error].
func Open() (*Events, error) {
	e := &Events{}
	if err := e.open(); err != nil {
		_ = e.Close()
		return nil, explain(err)
	}
	return e, nil
}

func (e *Events) open() (err error) {
	if err := loadEventsObjects(&e.objects, nil); err != nil {
		return err
	}
	if e.reader, err = ringbuf.NewReader(e.objects.Events); err != nil {
		return fmt.Errorf("read the ring buffer: %w", err)
	}
	for _, program := range []*ebpf.Program{e.objects.Retransmit, e.objects.Reset} {
		l, err := link.AttachTracing(link.TracingOptions{Program: program})
		if err != nil {
			return fmt.Errorf("attach to a tracepoint: %w", err)
		}
		e.links = append(e.links, l)
	}
	return nil
}

// Close detaches and unloads the programs, and ends a call of Next. It may be
// called again.
func (e *Events) Close() error {
	e.closing.Do(func() { e.closed = e.close() })
	return e.closed
}

func (e *Events) close() error {
	var failed []error
	for _, l := range e.links {
		failed = append(failed, l.Close())
	}
	if e.reader != nil {
		failed = append(failed, e.reader.Close())
	}
	return errors.Join(append(failed, e.objects.Close())...)
}

// Next waits until something happens, or ctx ends, and returns all that
// happened up to now. It may be called as seldom as the caller likes: what is
// not fetched is dropped and counted, and wakes nobody. After Close the error
// is [os.ErrClosed].
func (e *Events) Next(ctx context.Context) (Batch, error) {
	// Reading waits without a deadline, and Flush ends that. One that comes too
	// late ends the next wait, which then begins again.
	stop := context.AfterFunc(ctx, func() { _ = e.reader.Flush() })
	defer stop()
	e.reader.SetDeadline(time.Time{})
	var b Batch
	for len(b.Events) < mostAtOnce {
		err := e.reader.ReadInto(&e.record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed) && len(b.Events) > 0:
			return e.complete(b)
		case errors.Is(err, ringbuf.ErrFlushed):
			if ctx.Err() != nil {
				return Batch{}, context.Cause(ctx)
			}
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return Batch{}, os.ErrClosed
		case err != nil:
			return Batch{}, &Error{Err: fmt.Errorf("read the ring buffer: %w", err)}
		}
		event, err := decode(e.record.RawSample)
		if err != nil {
			return Batch{}, &Error{Err: err}
		}
		b.Events = append(b.Events, event)
		e.reader.SetDeadline(time.Unix(1, 0)) // the others only if they are there
	}
	return e.complete(b)
}

func (e *Events) complete(b Batch) (Batch, error) {
	var lost uint64
	if err := e.objects.Lost.Get(&lost); err != nil {
		return Batch{}, &Error{Err: fmt.Errorf("read how many events were lost: %w", err)}
	}
	b.Lost, e.lost = lost-e.lost, lost
	return b, nil
}
