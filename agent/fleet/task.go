package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
)

// longestPause is how long a host may have to wait before it is tried again.
const longestPause = 10 * time.Second

// task is one host of a run.
type task struct {
	run            *run
	host           string
	conn           *Conn       // nil when there is none; the worker's own
	sent           atomic.Bool // whether any command may have reached the host
	stdout, stderr *output
	busy           chan bool // a step of a script begins or has ended

	mu       sync.Mutex // of these, for an answer while it still works
	started  time.Time
	attempts int
	step     Step
	copied   *fact.Copied
}

// so makes an answer. It may be called while the task still works.
func (t *task) so(outcome fact.Outcome, reason string) fact.HostAnswer {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := fact.HostAnswer{
		Host: t.host, Outcome: outcome, Reason: oneLine(reason),
		Started: t.started, Took: time.Since(t.started), Attempts: t.attempts,
	}
	if len(t.run.Steps) > 1 || t.run.Script != nil {
		a.Command = fact.Printable(t.step.String())
	}
	if t.copied != nil {
		copied := *t.copied
		a.Copied = &copied
	}
	var more [2]bool
	a.Stdout, more[0] = t.stdout.kept()
	a.Stderr, more[1] = t.stderr.kept()
	a.Truncated = more[0] || more[1]
	return a
}

// work does the steps and puts one answer into answers, whatever happens.
func (t *task) work(ctx context.Context, answers chan<- fact.HostAnswer) {
	a := fact.HostAnswer{}
	defer func() {
		if a.Outcome == "" {
			a = t.so(fact.OutcomeFailed, fmt.Sprintf("a fault of lifeline itself, please report it: %v", recover()))
			a.MayHaveRun = t.sent.Load()
		}
		answers <- a
	}()
	defer func() {
		if t.conn != nil {
			_ = t.conn.Close()
		}
	}()
	a = t.all(ctx)
}

// all does one step after the other.
func (t *task) all(ctx context.Context) (a fact.HostAnswer) {
	for i := 0; ; i++ {
		step, ok := t.run.script.next(ctx, i)
		if !ok {
			t.tell(ctx, true) // the connection is closed now
			if a.Outcome == "" {
				a = t.so(fact.OutcomeNotRun, "there was nothing to do")
			}
			return a
		}
		a = t.one(ctx, step)
		over := a.Outcome != fact.OutcomeOK && !t.goesOn(ctx, step, a)
		if t.run.Did != nil {
			t.run.Did(i, a, over)
		}
		if over {
			return a
		}
	}
}

// goesOn says whether the next step is done after one that was not done well.
func (t *task) goesOn(ctx context.Context, step Step, a fact.HostAnswer) bool {
	switch {
	case !t.run.KeepGoing || step.Copy != nil || ctx.Err() != nil:
		return false
	case a.Outcome == fact.OutcomeNotRun: // it was interrupted alone
		return true
	}
	return (a.Outcome == fact.OutcomeFailed || a.Outcome == fact.OutcomeTimedOut) && t.conn != nil && t.conn.Err() == nil
}

// one does one step, when it is the host's turn.
func (t *task) one(ctx context.Context, step Step) fact.HostAnswer {
	whole := ctx
	ctx, cancel := t.run.script.interruptible(whole)
	defer cancel()
	defer t.turn(whole, ctx)()
	t.begin(step)
	backoff := lifeline.Backoff{Longest: longestPause}
	for {
		var err error
		var cmd *ssh.Command
		if t.conn == nil {
			t.conn, err = t.dial(ctx)
		}
		switch {
		case err != nil:
		case step.Copy != nil:
			err = t.copy(ctx, step.Copy)
		default:
			cmd, err = t.command(ctx, step.Command)
		}
		t.mu.Lock()
		attempts := t.attempts
		t.mu.Unlock()
		if attempts > t.run.Retries || !again(ctx, err) || backoff.Wait(ctx) != nil {
			return t.judge(ctx, step, cmd, err)
		}
		if t.conn != nil {
			_ = t.conn.Close()
			t.conn = nil
		}
	}
}

// turn waits until one host less does something, where hosts take turns: until
// the step is interrupted.
func (t *task) turn(ctx, step context.Context) (over func()) {
	if t.run.turns == nil {
		return func() {}
	}
	select {
	case t.run.turns <- struct{}{}:
	case <-step.Done():
		return func() {} // the step will not be done
	}
	t.tell(ctx, true)
	if t.run.Began != nil {
		t.run.Began(t.host)
	}
	return func() {
		<-t.run.turns
		t.tell(ctx, false)
	}
}

// tell says whether there is a step whose bound counts now.
func (t *task) tell(ctx context.Context, busy bool) {
	if t.run.turns == nil {
		return
	}
	select {
	case t.busy <- busy:
	case <-ctx.Done():
	}
}

// begin notes what is done now. The answers to a script are one for each step.
func (t *task) begin(step Step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step = step
	if t.run.Script == nil {
		return
	}
	t.started, t.attempts, t.copied = time.Now(), 0, nil
	t.sent.Store(false)
	t.stdout.reset()
	t.stderr.reset()
	if t.conn != nil && t.conn.Err() != nil { // it ended while there was nothing to do
		_ = t.conn.Close()
		t.conn = nil
	}
}

// dial makes one attempt to connect.
func (t *task) dial(ctx context.Context) (*Conn, error) {
	t.mu.Lock()
	t.attempts++
	t.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, t.run.Connect, &lateError{"no connection", t.run.Connect})
	defer cancel()
	return t.run.Dial(ctx, t.host)
}

func (t *task) command(ctx context.Context, line string) (*ssh.Command, error) {
	cmd := t.conn.Command(line)
	cmd.Stdout, cmd.Stderr, cmd.SendEnv = t.stdout, t.stderr, t.conn.Env
	if t.run.Pty {
		cmd.Pty = &ssh.Pty{}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.run.Timeout, &lateError{"the command did not end", t.run.Timeout})
	defer cancel()
	cmd.Budgets.Total = lifeline.Never // it is bounded here
	t.sent.Store(true)
	err := cmd.Run(ctx)
	if e := (*ssh.Error)(nil); errors.As(err, &e) && e.Fate == ssh.NotSent {
		t.sent.Store(false)
	}
	return cmd, err
}

// copy copies a file or a tree.
func (t *task) copy(ctx context.Context, c *Copy) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.run.Timeout, &lateError{"the copy did not end", t.run.Timeout})
	defer cancel()
	files, err := sftp.New(ctx, t.conn.Client, sftp.Options{})
	if err != nil {
		return err
	}
	defer files.Close()
	how := c.How
	if tell := t.run.Copying; tell != nil {
		how.Progress = func(p sftp.Progress) { tell(t.host, p) }
	}
	var result sftp.Result
	if c.Get {
		local := strings.ReplaceAll(c.Local, HostName, t.host)
		how.Parents = true
		result, err = files.Get(ctx, c.Remote, local, how)
	} else {
		result, err = files.Put(ctx, c.Local, c.Remote, how)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.copied == nil {
		t.copied = &fact.Copied{}
	}
	t.copied.Files += result.Files
	t.copied.Bytes += result.Bytes
	t.copied.Resumed += result.Resumed
	for _, name := range result.Skipped {
		t.copied.Skipped = append(t.copied.Skipped, fact.Printable(name))
	}
	return err
}

// again says whether it is safe, and of use, to try once more.
func again(ctx context.Context, err error) bool {
	var e *ssh.Error
	return err != nil && ctx.Err() == nil && errors.As(err, &e) && e.Fate == ssh.NotSent && (e.Phase != sftp.Copying || lost(err)) &&
		!errors.Is(err, ssh.ErrHostKey) && !errors.Is(err, ssh.ErrAuthentication)
}

// output takes what a command writes, and keeps it unless the plan has a place
// for it.
type output struct {
	task   *task
	stderr bool

	mu      sync.Mutex
	buf     []byte
	dropped bool
	fault   error // of the plan's Output
}

var _ io.Writer = (*output)(nil)

// Write also survives a plan's Output that panics: no other host may suffer.
func (o *output) Write(p []byte) (n int, err error) {
	r := o.task.run
	if r.Output != nil {
		defer func() {
			if v := recover(); v != nil {
				n, err = 0, fmt.Errorf("a fault of lifeline itself, please report it: %v", v)
			}
			if err != nil {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.fault = err
			}
		}()
		return len(p), r.Output(o.task.host, o.stderr, p)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	room := min(len(p), r.MaxOutput-len(o.buf))
	if left := r.room.Add(-int64(room)); left < 0 {
		r.room.Add(int64(room))
		room = 0
	}
	o.buf = append(o.buf, p[:room]...)
	o.dropped = o.dropped || room < len(p)
	return len(p), nil
}

// reset forgets what there is, of which an answer may know.
func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.task.run.room.Add(int64(len(o.buf)))
	o.buf, o.dropped, o.fault = nil, false, nil
}

// failed returns what went wrong with the place for output.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fault
}

// kept returns what there is, and whether there was more.
func (o *output) kept() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf[:len(o.buf):len(o.buf)], o.dropped
}
