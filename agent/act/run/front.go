//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/launch"
	"github.com/lifeline-go/lifeline/agent/act/run/signals"
)

// Front runs a program to its end, in a process that does nothing else, and has
// not asked for signals: it takes them over, and lets go of its standard input and
// output and, unless a report is asked for, of standard error. When nothing could be
// started the error is a [*StartError], of the program, or an [*UnsupportedError], of this machine.
//
// Say is called once, before the program begins to work, where the way is another
// one than was asked for. Resolver is for when the keeper dies.
func Front(ctx context.Context, p Program, resolver func() Resolver, say func(Way, string)) (Status, Report, error) {
	if p.Via != Proxy && p.Keeper.Nested {
		say(Nested, "")
		err := unix.Exec(p.Path, p.Args, p.Env)
		return Status{}, Report{}, &StartError{Path: p.Path, Err: err}
	}
	// What its keeper leaves behind when it dies is this process's then.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return Status{}, Report{}, os.NewSyscallError("prctl", err)
	}
	f := &front{program: p, resolver: resolver, signals: make(chan os.Signal, 64)}
	if p.Keeper.Nested {
		p.Keeper.Start(p.Args, p.Env)
	}
	// While that starts.
	signals.Listen(f.signals, slices.Concat(signals.Ends, signals.Stops, signals.Others)...)
	f.wire = &wire{p.Keeper.Wire}
	err := p.Keeper.Err
	if err == nil {
		err = f.wire.send(message{Order: orderFor(&p)})
	}
	if err != nil {
		return Status{}, Report{}, fmt.Errorf("starting the process that keeps the program: %w", err)
	}
	go signals.Listen(f.signals, signals.RealTime...) // which nobody sends to a program that has hardly begun
	if err := f.begin(say); err != nil {
		f.abandon()
		select {
		case s := <-f.signals: // it was sent to all that was there, before there was more
			return Status{Signal: s.(unix.Signal)}, Report{}, nil
		default:
			return Status{}, Report{}, err
		}
	}
	return f.wait(ctx)
}

// orderFor is the order for a program. A report tells of its execve(2), which must be
// answered while it begins.
func orderFor(p *Program) *order {
	o := &order{Order: launch.Order{Path: p.Path, Args: len(p.Args), Early: p.Via != Proxy && !p.Report}, Via: p.Via, All: p.All, Report: p.Report}
	if p.Keeper.Apart {
		o.Group = unix.Getpgrp()
	}
	return o
}

// front is the process that the user started.
type front struct {
	program  Program
	resolver func() Resolver
	wire     *wire
	signals  chan os.Signal

	server   *server // not serving, but for when the keeper dies
	process  *os.File
	together bool // with the program in one process group
	why      string
}

// begin hears from the keeper that the program runs.
func (f *front) begin(say func(Way, string)) error {
	m, fds, err := f.wire.receive()
	if err == nil && m.Begun && len(fds) == 1 {
		f.process = os.NewFile(uintptr(fds[0]), "process")
		m, fds, err = f.wire.receive()
	}
	if err != nil {
		return fmt.Errorf("the process that keeps the program ended before it began: %w", err)
	}
	if m.Failed != nil {
		return m.Failed.error(f.program.Path)
	}
	if m.Started == nil || m.State == nil || len(fds) == 0 {
		return errors.New("the process that keeps the program does not say that it runs")
	}
	last := len(fds) - 1
	if f.process != nil {
		f.process.Close()
	}
	f.process, f.why = os.NewFile(uintptr(fds[last]), "process"), m.Started.Why
	if f.server, err = adopt(*m.State, fds[:last]); err != nil {
		return err
	}
	if m.Started.Why != "" {
		say(m.Started.Way, m.Started.Why)
	}
	// To the keeper's, out of the way of what terminals and shells send to the
	// program's group: it would get it twice. The leader of a session cannot.
	f.together = unix.Setpgid(0, m.State.Keeper) != nil
	detach(f.program.Report)
	return nil
}

// abandon ends a program that was begun by a keeper which did not say more: nobody
// would answer its calls.
func (f *front) abandon() {
	if f.process == nil {
		return
	}
	_ = unix.PidfdSendSignal(int(f.process.Fd()), unix.SIGKILL, nil, 0)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(f.process.Fd()), Events: unix.POLLIN}}, 1000) // it has ended
}

func (f *failure) error(path string) error {
	err := errors.New(f.Text)
	if f.Errno != 0 {
		err = &described{f.Text, f.Errno}
	}
	if f.Unsupported {
		return &UnsupportedError{Err: err}
	}
	return &StartError{Path: path, Err: err}
}

// described is an error of another process.
type described struct {
	text  string
	errno unix.Errno
}

func (e *described) Error() string { return e.text }
func (e *described) Unwrap() error { return e.errno }

// wait waits for the end of the program.
func (f *front) wait(ctx context.Context) (Status, Report, error) {
	messages := make(chan message)
	go func() {
		defer close(messages)
		for {
			m, _, err := f.wire.receive()
			if err != nil {
				return
			}
			messages <- m
		}
	}()
	for {
		select {
		case s := <-f.signals:
			pass(s, f.process, f.server.PID, f.together)
		case m, ok := <-messages:
			switch {
			case !ok:
				return f.alone(ctx)
			case m.Stopped != 0:
				stopSelf(m.Stopped)
			case m.Continued:
				_ = f.wire.send(message{Continued: true})
			case m.Ended != nil:
				signal.Ignore(unix.SIGTTOU) // a report may go to a terminal whose foreground is another group
				return statusOf(m.Ended.Wait), m.Ended.Report, nil
			}
		}
	}
}

func statusOf(wait unix.WaitStatus) Status {
	if wait.Signaled() {
		return Status{Signal: wait.Signal()}
	}
	return Status{Code: wait.ExitStatus()}
}

// alone goes on in the place of the keeper, which is dead. The program is a child
// of this process now, and shares its process group again: a shell that lets the
// group go on after a stop reaches both.
func (f *front) alone(ctx context.Context) (Status, Report, error) {
	if err := f.server.serve(ctx, f.resolver()); err != nil {
		return Status{}, Report{}, err
	}
	if unix.Setpgid(0, f.server.Group) == nil {
		f.together = true
	}
	go f.server.standBy(nil, f.program.Keeper.Command, f.program.Env, nil, nil)
	events := make(chan unix.WaitStatus)
	go func() {
		defer close(events)
		watch(f.server.PID, time.Now().Add(adoption), func(wait unix.WaitStatus) { events <- wait })
	}()
	for {
		select {
		case s := <-f.signals:
			pass(s, f.process, f.server.PID, f.together)
		case wait, ok := <-events:
			switch {
			case !ok:
				return Status{}, Report{}, fmt.Errorf("the program is lost, with the process that kept it: %w", io.ErrUnexpectedEOF)
			case wait.Stopped():
				stopSelf(wait.StopSignal())
			case wait.Continued():
			default:
				return statusOf(wait), f.server.report(f.why), nil
			}
		}
	}
}
