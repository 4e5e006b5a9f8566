// Package tcpevent hears from the kernel when a TCP connection gets no answer, and
// when one that is idle is about to ask for one, in all network namespaces, the
// moment it happens.
//
// It says where to look and never what to think: an event is one segment on one
// connection. A Probe says nothing bad of anybody: the answer may be under way.
// Only who looks some round trips later, or hears of a Probe after one that is
// Unanswered, knows more.
//
// There is at most one event for each peer address and kind in 100 ms, where data
// that is sent again for the first time is a kind of its own; and at most 200 a
// second of all Probes after an answered one, which may be told of up to 600 ms
// late, and as many of those after an unanswered one. So what it costs does not
// grow with what a path loses nor with how many connections are idle. Who is
// passed over is told of by the next probe. What stays on the machine is left out.
//
// It needs BTF and Linux 5.9 for its helpers, better 5.11, from which on its
// 500 KiB do not count against RLIMIT_MEMLOCK; and CAP_BPF and CAP_PERFMON. The
// way without BPF is to look at the sockets again and again, package sockdiag.
//
// Keepalive probes have no tracepoint. Their timer has that of all timers, of
// which the program picks those that run the kernel's tcp_keepalive_timer. Where
// that is not to be had, [Events.Probes] says so and the other events come.
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

const (
	// mostAtOnce bounds what one call of Next returns.
	mostAtOnce = 1024

	// leftFor is how long after a record that woke somebody the program may write
	// others that wake nobody, and a little more: wakes in tcpevent.bpf.c.
	leftFor = 600 * time.Millisecond
)

// Events are loaded programs and what they wrote. It must be closed. Next and
// Close may be called at the same time, Next not by several goroutines at once.
type Events struct {
	loaded *ebpf.Collection
	links  []link.Link
	probes bool
	reader *ringbuf.Reader
	record ringbuf.Record // its buffer is used again
	left   time.Time      // when to look for records that wake nobody; zero: there are none
	lost   uint64         // as Next told last

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
	if e.loaded, err = load(); err != nil {
		return err
	}
	if e.reader, err = ringbuf.NewReader(e.loaded.Maps[eventsMapEvents]); err != nil {
		return fmt.Errorf("read the ring buffer: %w", err)
	}
	if err := e.attach(eventsProgRetransmit); err != nil {
		return err
	}
	e.probes = e.watchKeepalive() == nil
	return nil
}

func (e *Events) attach(program string) error {
	l, err := link.AttachTracing(link.TracingOptions{Program: e.loaded.Programs[program]})
	if err != nil {
		return fmt.Errorf("attach to a tracepoint: %w", err)
	}
	e.links = append(e.links, l)
	return nil
}

// Probes reports whether there are events of the kind Probe: whether this
// kernel lets the expiry of its keepalive timers be seen. It never changes.
func (e *Events) Probes() bool { return e.probes }

// Close detaches and unloads the programs, and ends a call of Next. It may be
// called again. One page of the kernel's stays mapped until the garbage
// collector runs.
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
	if e.loaded != nil {
		e.loaded.Close()
	}
	return errors.Join(failed...)
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
	e.reader.SetDeadline(e.left)
	var b Batch
	for len(b.Events) < mostAtOnce {
		err := e.reader.ReadInto(&e.record)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && len(b.Events) == 0:
			e.left = time.Time{}
			e.reader.SetDeadline(e.left)
			continue
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
		e.left = time.Now().Add(leftFor)
		e.reader.SetDeadline(time.Unix(1, 0)) // the others only if they are there
	}
	return e.complete(b)
}

func (e *Events) complete(b Batch) (Batch, error) {
	var lost uint64
	if err := e.loaded.Variables[eventsVarLost].Get(&lost); err != nil {
		return Batch{}, &Error{Err: fmt.Errorf("read how many events were lost: %w", err)}
	}
	b.Lost, e.lost = lost-e.lost, lost
	return b, nil
}
