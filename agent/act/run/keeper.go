//go:build linux

package run

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/launch"
	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/act/run/signals"
)

// Keep is what a keeper does, with the command to start others like it. It returns
// when nobody is left that it would serve. Its process has not asked for signals.
func Keep(ctx context.Context, kept *launch.Kept, keeper []string, resolver Resolver) error {
	if kept.Err != nil {
		return kept.Err
	}
	program := kept.Program()
	w := &wire{kept.Wire}
	m, fds, err := w.receive()
	switch {
	case errors.Is(err, io.EOF): // who started this was ended before it could say why
		return nil
	case err != nil:
		return launch.ErrNoOrder
	case m.State != nil:
		return takeOver(ctx, w, *m.State, fds, kept.Env, keeper, resolver)
	case m.Order == nil || m.Order.Of(kept.Args) == nil:
		return launch.ErrNoOrder
	}
	k := &keeping{wire: w, order: m.Order, args: m.Order.Of(kept.Args), env: kept.Env, keeper: keeper, acks: make(chan struct{}, 1), over: make(chan struct{})}
	if program != nil {
		k.process = program.Process
	}
	k.front, err = unix.PidfdOpen(unix.Getppid(), 0)
	if err == nil {
		err = k.start(ctx, program, resolver)
	}
	if err != nil {
		if k.process != nil { // it must not run where nobody knows of it
			_ = unix.PidfdSendSignal(int(k.process.Fd()), unix.SIGKILL, nil, 0)
		}
		return k.fail(err)
	}
	k.keep()
	return nil
}

// keeping is a keeper at work.
type keeping struct {
	wire   *wire
	front  int // a descriptor of the process
	order  *order
	args   []string
	env    []string
	keeper []string

	server  *server
	why     string // it is not seccomp
	process *os.File
	stopped bool          // the front was told so last
	acks    chan struct{} // what the front has understood
	over    chan struct{} // the program has ended
}

// fail tells the front why nothing was started.
func (k *keeping) fail(err error) error {
	f := &failure{Text: err.Error()}
	var program *StartError
	var machine *UnsupportedError
	switch {
	case errors.As(err, &program):
		f.Text = program.Err.Error()
	case errors.As(err, &machine):
		f.Text, f.Unsupported = machine.Err.Error(), true
	default:
		f.Unsupported = true
	}
	errors.As(err, &f.Errno)
	return k.wire.send(message{Failed: f})
}

// start starts the program, in the best way there is, unless it runs already.
func (k *keeping) start(ctx context.Context, early *launch.Program, resolver Resolver) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	var err error
	if k.order.Via != Proxy {
		err = k.seccomp(ctx, early, resolver)
		var machine *UnsupportedError
		if early != nil || k.order.Via == Seccomp || !errors.As(err, &machine) {
			return err
		}
		k.why = machine.Err.Error()
	}
	if k.server, err = newProxy(); err != nil {
		return err
	}
	if err := k.server.serve(ctx, resolver); err != nil {
		return err
	}
	p, err := launch.Start(k.order.Path, k.args, k.server.proxy.Environment(k.env), k.order.Group, nil, nil)
	return k.started(p, err)
}

func (k *keeping) seccomp(ctx context.Context, p *launch.Program, resolver Resolver) error {
	if err := launch.Possible(); err != nil {
		return &UnsupportedError{Err: err}
	}
	s, err := newServer(k.order)
	if err != nil {
		return err
	}
	k.server = s
	serve := func(l *notify.Listener) error {
		s.listener, s.fds = l, append(s.fds, l.FD())
		return s.serve(ctx, resolver)
	}
	if p == nil {
		p, err = launch.Start(k.order.Path, k.args, k.env, k.order.Group, &notify.Filter{Notice: k.order.Report}, serve)
	} else {
		err = serve(p.Listener)
	}
	return k.started(p, err)
}

// started lets go of what is the program's, and tells the front.
func (k *keeping) started(p *launch.Program, err error) error {
	if err != nil {
		return err
	}
	k.process = p.Process
	k.server.PID, k.server.Keeper, k.server.Group = p.PID, unix.Getpid(), k.order.Group
	signals.Deaf()
	if k.order.Group == 0 {
		// The program's group has no parent in its session, as without us: the
		// terminal's stop signals have no effect on it.
		k.server.Group = unix.Getpgrp()
		_, _ = unix.Setsid()
	}
	detach(false)
	return k.wire.send(message{Started: &started{Way: k.server.Way, Why: k.why}, State: &k.server.state}, append(slices.Clip(k.server.fds), int(k.process.Fd()))...)
}

// keep serves until nobody is left.
func (k *keeping) keep() {
	go k.server.standBy(k.wire, k.keeper, k.env, k.gone, k.heard)
	go reap(k.server.PID)
	watch(k.server.PID, time.Time{}, k.tell)
	for k.server.Way == Proxy && known(k.server.Token) {
		time.Sleep(time.Second)
	}
	k.server.unused()
}

// heard is called with what the front says.
func (k *keeping) heard(m message) {
	if m.Continued {
		select {
		case k.acks <- struct{}{}:
		default:
		}
	}
}

// gone is called when the front is. Was it killed, so is the program: whoever
// killed it meant that.
func (k *keeping) gone() {
	select {
	case <-k.over:
	default:
		_ = unix.PidfdSendSignal(int(k.process.Fd()), unix.SIGKILL, nil, 0)
	}
}

// tell tells the front what happened to the program. It may be gone.
func (k *keeping) tell(wait unix.WaitStatus) {
	switch {
	case wait.Stopped():
		k.stopped = true
		_ = k.wire.send(message{Stopped: wait.StopSignal()})
	case wait.Continued():
		k.wake()
	default:
		if k.stopped { // it went on and ended before it was seen to go on
			k.wake()
		}
		_ = k.wire.send(message{Ended: &ended{wait, k.server.report(k.why)}})
		close(k.over)
	}
}

// wake lets the front go on, which stopped with the program: it may be about to,
// so once may not be enough.
func (k *keeping) wake() {
	k.stopped = false
	if k.wire.send(message{Continued: true}) != nil {
		return
	}
	for range 1500 { // a machine may be busy
		if unix.PidfdSendSignal(k.front, unix.SIGCONT, nil, 0) != nil {
			return
		}
		select {
		case <-k.acks:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// takeOver waits until the process at the other end of the wire is gone, and
// goes on in its place.
func takeOver(ctx context.Context, w *wire, st state, fds []int, env, keeper []string, resolver Resolver) error {
	signals.Deaf()
	_, _ = unix.Setsid()
	detach(false)
	s, err := adopt(st, fds)
	if err != nil {
		return err
	}
	for err == nil {
		_, _, err = w.receive()
	}
	w.Close()
	if s.listener == nil || s.listener.Unused() {
		return nil
	}
	if err := s.serve(ctx, resolver); err != nil {
		return err
	}
	go s.standBy(nil, keeper, env, nil, nil)
	s.unused()
	return nil
}
