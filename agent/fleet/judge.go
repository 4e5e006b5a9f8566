package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
)

// lateError is the cause of a context whose time is over.
type lateError struct {
	what  string
	limit time.Duration
}

func (e *lateError) Error() string {
	return e.what + " within " + bound.Format(e.limit)
}

// Is says that it is a deadline.
func (e *lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// Timeout is true, as in net.Error.
func (e *lateError) Timeout() bool { return true }

// judge makes an answer of how a step ended; cmd is nil when it is a copy, or
// there was no connection to run it on.
func (t *task) judge(ctx context.Context, step Step, cmd *ssh.Command, err error) fact.HostAnswer {
	if step.Copy != nil && err == nil {
		return t.copiedAll()
	}
	if cmd != nil {
		if exit, ok := cmd.Exit(); ok {
			return t.exited(exit, err)
		}
	}
	var e *ssh.Error
	if !errors.As(err, &e) {
		e = &ssh.Error{Phase: ssh.Connect, Err: err}
	}
	outcome, reason := fact.OutcomeUnreachable, brief(e)
	var late *lateError
	var budget *ssh.BudgetError
	copying := e.Phase == sftp.Copying
	switch {
	case ctx.Err() != nil && step.Copy != nil && !copying:
		outcome, reason = fact.OutcomeNotRun, "interrupted before anything was copied"
	case ctx.Err() != nil && copying:
		outcome, reason = fact.OutcomeFailed, "interrupted"
	case ctx.Err() != nil && e.Fate == ssh.NotSent:
		outcome, reason = fact.OutcomeNotRun, "interrupted before the command was sent"
	case ctx.Err() != nil:
		outcome, reason = fact.OutcomeFailed, "interrupted"
	case (cmd != nil || step.Copy != nil && t.conn != nil) && errors.As(err, &late):
		outcome, reason = fact.OutcomeTimedOut, late.Error()
	case copying && errors.As(err, &budget):
		outcome, reason = fact.OutcomeTimedOut, "its sftp server did not answer for "+bound.Format(budget.Limit)
	case copying && !lost(err):
		outcome = fact.OutcomeFailed
		if status := (*sftp.StatusError)(nil); !step.Copy.Get && errors.As(err, &status) && errors.Is(err, fs.ErrNotExist) {
			reason = "it has no directory " + path.Dir(step.Copy.Remote)
		}
	case step.Copy != nil && e.Phase == ssh.Request && errors.Is(err, ssh.ErrRefused):
		outcome, reason = fact.OutcomeFailed, "its sshd has no subsystem sftp, which copies go by"
	case e.Phase == ssh.Run && errors.As(err, &budget):
		outcome = fact.OutcomeTimedOut
	case e.Phase == ssh.Run && (errors.Is(err, ssh.ErrNoStatus) || !lost(err)):
		outcome = fact.OutcomeFailed
	}
	var by *WayError
	if errors.As(err, &by) && outcome == fact.OutcomeUnreachable {
		reason = "by way of " + by.Way + ": " + reason
	}
	a := t.so(outcome, reason)
	a.Detail = oneLine(err.Error())
	a.Phase, a.MayHaveRun = string(e.Phase), e.Fate == ssh.MayHaveRun
	return a
}

// copiedAll is the answer to a copy that is complete, as far as it can be.
func (t *task) copiedAll() fact.HostAnswer {
	a := t.so(fact.OutcomeOK, "")
	a.Phase = string(sftp.Copying)
	if a.Copied != nil && len(a.Copied.Skipped) > 0 {
		more := ""
		if n := len(a.Copied.Skipped) - 1; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		a.Reason = oneLine(fmt.Sprintf("left out, as no file, directory or link within the tree: %s%s", a.Copied.Skipped[0], more))
	}
	return a
}

// WayError is the error of a Dial that failed on the way to the host.
type WayError struct {
	Way string // the jump host
	Err error
}

func (e *WayError) Error() string { return "by way of " + e.Way + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *WayError) Unwrap() error { return e.Err }

// brief says why a call failed without what differs from host to host, such as
// ports and milliseconds, so that hosts that fail alike can be told together.
func brief(e *ssh.Error) string {
	full := e.Err.Error()
	before := func(what error) string { // what is said before: by which way, say
		text, _, _ := strings.Cut(full, what.Error())
		return text
	}
	var late *lateError
	var silence *ssh.SilenceError
	var budget *ssh.BudgetError
	var name *net.DNSError
	var errno syscall.Errno
	numbered := errors.As(e.Err, &errno)
	switch {
	case errors.As(e.Err, &late):
		return late.Error()
	case errors.As(e.Err, &budget) && (e.Phase == ssh.Connect || e.Phase == ssh.Handshake || e.Phase == ssh.Authentication):
		return before(budget) + "no connection within " + bound.Format(budget.Limit)
	case errors.As(e.Err, &budget) && (e.Phase == ssh.Open || e.Phase == ssh.Request):
		return before(budget) + "no answer within " + bound.Format(budget.Limit)
	case errors.As(e.Err, &name):
		return "its name does not resolve: " + name.Err
	case errors.As(e.Err, &silence):
		return before(silence) + "silent, nothing heard for " + bound.Format(silence.Quiet.Round(time.Second))
	case errors.Is(e.Err, ssh.ErrDisconnected) && numbered:
		return before(ssh.ErrDisconnected) + ssh.ErrDisconnected.Error() + ": " + errno.Error()
	case errors.Is(e.Err, ssh.ErrDisconnected):
		return before(ssh.ErrDisconnected) + ssh.ErrDisconnected.Error()
	case e.Phase == ssh.Connect && numbered:
		return errno.Error()
	}
	return full
}

// lost says whether it was the connection that ended.
func lost(err error) bool {
	return errors.Is(err, ssh.ErrSilent) || errors.Is(err, ssh.ErrDisconnected) || errors.Is(err, ssh.ErrClosed)
}

// exited is for a command of which the host has said how it ended.
func (t *task) exited(exit ssh.Exit, err error) fact.HostAnswer {
	outcome, reason := fact.OutcomeOK, ""
	var status *ssh.ExitError
	fault := cmp.Or(t.stdout.failed(), t.stderr.failed())
	switch {
	case fault != nil:
		outcome, reason = fact.OutcomeFailed, fault.Error()
	case !exit.OK():
		outcome, reason = fact.OutcomeFailed, exit.String()
	case err != nil && !errors.As(err, &status): // it is over, but its output may not be complete
		reason = err.Error()
		if e := (*ssh.Error)(nil); errors.As(err, &e) {
			reason = brief(e)
		}
	}
	a := t.so(outcome, reason)
	if err != nil {
		a.Detail = oneLine(err.Error())
	}
	a.Phase = string(ssh.Run)
	if a.Signal = fact.Printable(string(exit.Signal)); a.Signal == "" {
		a.Exit = fact.Seen(exit.Status)
	}
	return a
}

// longestReason is how much of an error is shown: some of it comes from the
// server.
const longestReason = 400

// oneLine makes a text of an error such that it can be shown.
func oneLine(text string) string {
	text = fact.Printable(strings.Join(strings.Fields(text), " "))
	if len(text) > longestReason {
		text = fmt.Sprintf("%s…", strings.ToValidUTF8(text[:longestReason], ""))
	}
	return text
}
