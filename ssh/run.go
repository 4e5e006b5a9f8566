package ssh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline"
)

// running is a command that the server has started.
type running struct {
	session *session
	started time.Time
	polite  Signal // what it is sent when it is given up

	exited   *Exit     // how it ended, when the server has said it
	exitedAt time.Time // and when that was
}

// supervise waits for the end of the command, or ends it, and returns its
// error. It waits for nothing that it does not have a bound for.
func (r *running) supervise(ctx context.Context) error {
	s := r.session
	exit, silent, closed := s.exit, s.silent, s.closed
	timer := time.NewTimer(lifeline.Never)
	defer timer.Stop()
	for {
		next, err := r.overdue(time.Now())
		if err != nil {
			return r.giveUp(err)
		}
		timer.Reset(next)
		select {
		case e := <-exit:
			r.ended(e)
			exit = nil
		case <-silent:
			silent = nil
		case <-closed:
			closed = nil
		case <-timer.C:
		case err := <-s.broken:
			return r.giveUp(err)
		case <-ctx.Done():
			return r.giveUp(context.Cause(ctx))
		case <-s.client.wire.dead:
			return r.died()
		}
		r.lastWord()
		if silent == nil && (closed == nil || r.exited != nil) {
			return r.complete()
		}
	}
}

// ended takes the server's word for the end of the command.
func (r *running) ended(e Exit) { r.exited, r.exitedAt = &e, time.Now() }

// lastWord looks for an exit status that came before what else was seen.
func (r *running) lastWord() {
	if r.exited != nil {
		return
	}
	select {
	case e := <-r.session.exit:
		r.ended(e)
	default:
	}
}

// overdue returns when to look again, or the error of a budget that is used up.
func (r *running) overdue(now time.Time) (next time.Duration, err error) {
	next = lifeline.Never
	b := r.session.budgets
	check := func(limit time.Duration, since time.Time, because error) {
		if limit == lifeline.Never || err != nil {
			return
		}
		left := limit - now.Sub(since)
		if left <= 0 && r.stalled() {
			left = max(limit/8, time.Millisecond) // not its fault
		}
		if left <= 0 {
			err = because
		}
		next = min(next, left)
	}
	if r.exited != nil {
		since := r.exitedAt
		for _, stream := range r.session.streams {
			if resumed := stream.epoch.Add(time.Duration(stream.resumed.Load())); resumed.After(since) {
				since = resumed
			}
		}
		check(b.WaitAfterExit, since, ErrWaitAfterExit)
		return next, err
	}
	if r.bytes() == 0 {
		check(b.FirstOutput, r.started, &BudgetError{"FirstOutput", b.FirstOutput})
	}
	check(b.IdleOutput, r.quietSince(), &BudgetError{"IdleOutput", b.IdleOutput})
	return next, err
}

func (r *running) bytes() (n int64) {
	for _, stream := range r.session.streams {
		n += stream.bytes.Load()
	}
	return n
}

// stalled reports whether the caller's Writers have not taken what is there.
func (r *running) stalled() bool {
	for _, stream := range r.session.streams {
		if stream.stalled() {
			return true
		}
	}
	return false
}

// quietSince returns since when nothing has come.
func (r *running) quietSince() time.Time {
	since := r.started
	for _, stream := range r.session.streams {
		if s := stream.since(); s.After(since) {
			since = s
		}
	}
	return since
}

// complete is the end of a command of which nothing more will come.
func (r *running) complete() error {
	r.session.abandon(nil)
	if r.exited == nil {
		return r.fail(r.session.client.because(ErrNoStatus))
	}
	return r.exitError(nil)
}

// died is the end of a command whose connection has ended. What had come
// before that is still written.
func (r *running) died() error {
	s := r.session
	timer := time.NewTimer(s.budgets.Cancel)
	defer timer.Stop()
	select {
	case <-s.silent:
		<-s.closed // for the same reason
		r.lastWord()
	case <-timer.C:
		r.lastWord()
		return r.fail(s.client.wire.cause)
	}
	if r.exited != nil { // all was said before the end
		return r.exitError(nil)
	}
	return r.fail(s.client.wire.cause)
}

// giveUp ends a command before its time.
func (r *running) giveUp(cause error) error {
	r.lastWord()
	if r.exited != nil {
		r.session.abandon(nil)
		if errors.Is(cause, ErrWaitAfterExit) {
			return r.exitError(cause)
		}
		return r.fail(cause)
	}
	r.session.stop(r.polite)
	r.lastWord()
	return r.fail(cause)
}

// exitError is the error of a command that has exited, and of what else there
// is to say.
func (r *running) exitError(also error) error {
	switch {
	case r.exited.OK() && also == nil:
		return nil
	case r.exited.OK():
		return r.fail(also)
	case also == nil:
		return r.fail(&ExitError{*r.exited})
	}
	return r.fail(fmt.Errorf("%w; %w", &ExitError{*r.exited}, also))
}

func (r *running) fail(cause error) error {
	fate := MayHaveRun
	if r.exited != nil {
		fate = Exited
	}
	return r.session.client.fail(Run, fate, r.session.began, cause)
}
