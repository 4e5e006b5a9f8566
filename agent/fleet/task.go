package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/ssh"
)

// longestPause is how long a host may have to wait before it is tried again.
const longestPause = 10 * time.Second

// task is one host of a run.
type task struct {
	run            *run
	host           string
	started        time.Time
	attempts       atomic.Int32
	at             atomic.Int32 // which command
	sent           atomic.Bool  // whether any command may have reached the host
	stdout, stderr *output
}

// so makes an answer. It may be called while the task still works.
func (t *task) so(outcome fact.Outcome, reason string) fact.HostAnswer {
	a := fact.HostAnswer{
		Host: t.host, Outcome: outcome, Reason: oneLine(reason),
		Started: t.started, Took: time.Since(t.started), Attempts: int(t.attempts.Load()),
	}
	if len(t.run.Commands) > 1 {
		a.Command = fact.Printable(t.run.Commands[t.at.Load()])
	}
	var more [2]bool
	a.Stdout, more[0] = t.stdout.kept()
	a.Stderr, more[1] = t.stderr.kept()
	a.Truncated = more[0] || more[1]
	return a
}

// work runs the commands and puts one answer into answers, whatever happens.
func (t *task) work(ctx context.Context, answers chan<- fact.HostAnswer) {
	a := fact.HostAnswer{}
	defer func() {
		if a.Outcome == "" {
			a = t.so(fact.OutcomeFailed, fmt.Sprintf("a fault of lifeline itself, please report it: %v", recover()))
			a.MayHaveRun = t.sent.Load()
		}
		answers <- a
	}()
	var conn Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	backoff := lifeline.Backoff{Longest: longestPause}
	for i := 0; i < len(t.run.Commands); {
		var err error
		var cmd *ssh.Command
		if conn == nil {
			conn, err = t.dial(ctx)
		}
		if err == nil {
			cmd, err = t.command(ctx, conn, t.run.Commands[i])
		}
		if int(t.attempts.Load()) <= t.run.Retries && again(ctx, err) && backoff.Wait(ctx) == nil {
			if conn != nil {
				_ = conn.Close()
				conn = nil
			}
			continue
		}
		last := t.judge(ctx, cmd, err)
		if i++; last.Outcome != fact.OutcomeOK || i == len(t.run.Commands) {
			a = last
			return
		}
		t.at.Store(int32(i))
	}
}

// dial makes one attempt to connect.
func (t *task) dial(ctx context.Context) (Conn, error) {
	t.attempts.Add(1)
	ctx, cancel := context.WithTimeoutCause(ctx, t.run.Connect, &lateError{"no connection", t.run.Connect})
	defer cancel()
	conn, err := t.run.Dial(ctx, t.host)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (t *task) command(ctx context.Context, conn Conn, line string) (*ssh.Command, error) {
	cmd := conn.Command(line)
	cmd.Stdout, cmd.Stderr = t.stdout, t.stderr
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

// again says whether it is safe, and of use, to try once more.
func again(ctx context.Context, err error) bool {
	var e *ssh.Error
	return err != nil && ctx.Err() == nil && errors.As(err, &e) && e.Fate == ssh.NotSent &&
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
