// Package fleet runs commands on many hosts at a time and copies files to and
// from them, over package ssh, and has exactly one answer for each of them: also
// for those that hang, panic or are not asked any more.
//
// Every host has its own bounds and none waits for another: [Plan.Bound] states
// when the last answer is there.
package fleet

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
)

const (
	defaultWindow    = 64
	defaultConnect   = 15 * time.Second
	defaultTimeout   = time.Hour
	defaultMaxOutput = 16 << 20
	mostOutput       = 1 << 30 // of all hosts together

	// grace is what a host gets beyond its bounds to come to an end: signals are
	// sent, connections closed.
	grace = 2 * time.Second
)

// Conn is a connection to a host.
type Conn struct {
	*ssh.Client
	Env []string // for all commands, as NAME=value; the host may leave it out
}

// Plan is what to do where. Hosts, Steps or Script, and Dial must be given; for
// the rest the zero value is the recommended one. It must not be changed while
// it runs.
type Plan struct {
	Hosts []string // each is asked once for each time it is here

	// Steps are done on each host one after the other over one connection, each
	// command by itself, until one fails.
	Steps []Step

	// Script is taken in place of Steps: what to do as it comes. Each host does it
	// at its own pace, and keeps its connection until the script has ended. All
	// hosts, or all of a batch, are begun at once; Window is how many of them do
	// something at a time.
	Script *Script
	// Did is told of each step that a host has done, before it begins the next, and
	// whether it will do no more. The answer has the output of that step alone where
	// there is a Script. It must not wait.
	Did func(i int, a fact.HostAnswer, last bool)
	// KeepGoing has a host go on when a command failed or was too slow, so that its
	// answer is that of the last. A host that was lost, or where a copy failed, does
	// not.
	KeepGoing bool

	// Dial connects. It must return when its context ends, which is that of one
	// attempt: a Dial that does not is left behind, and its host answered for.
	Dial func(ctx context.Context, host string) (*Conn, error)

	// Window is how many hosts are asked at a time. Zero means 64.
	Window int
	// Connect bounds each attempt to connect, log-in included. Zero means 15 s.
	Connect time.Duration
	// Timeout bounds each step. Zero means 1 h.
	Timeout time.Duration
	// Retries is how often a host is tried again when nothing was sent to it: never
	// when the command may have run, when the host key was not accepted, or when
	// the host did not let the user in. A copy whose connection was lost is tried
	// again: it takes the target's name when it is complete.
	Retries int
	// Batches are how many hosts are begun with, and then, when all of these have
	// answered, begun with next; the last holds for the rest. None means all.
	Batches []Share
	// MaxFail is how many hosts may fail before no more are begun. The zero value
	// is no such limit, but with Batches none may fail.
	MaxFail Share
	// Pty gives commands a terminal, so that they are hung up when they are given
	// up. Their errors come with their output then.
	Pty bool

	// Output is given what commands write as it comes, for each host by one
	// goroutine at a time for each stream. Then answers have no output. An error
	// ends the command.
	Output func(host string, stderr bool, p []byte) error
	// MaxOutput is how many bytes of each stream answers keep; of all together it
	// is 1 GiB. Zero means 16 MiB.
	MaxOutput int

	// Began is told of each host that is begun, and with a Script of each step that
	// a host begins. It must not wait.
	Began func(host string)
	// Copying is told how far a copy is, ten times a second at most for each host.
	// It must not wait.
	Copying func(host string, p sftp.Progress)
}

func (p Plan) settled() Plan {
	p.Window = cmp.Or(max(p.Window, 0), defaultWindow)
	p.Connect = cmp.Or(max(p.Connect, 0), defaultConnect)
	p.Timeout = cmp.Or(max(p.Timeout, 0), defaultTimeout)
	p.MaxOutput = cmp.Or(max(p.MaxOutput, 0), defaultMaxOutput)
	if len(p.Batches) > 0 && !p.MaxFail.given {
		p.MaxFail = Share{given: true}
	}
	return p
}

// Bound returns within which every host has answered from when it was begun; with
// a Script, from when it began a step.
func (p Plan) Bound() time.Duration {
	p = p.settled()
	b := sum(grace, 0)
	steps := len(p.Steps)
	if p.Script != nil {
		steps = 1
	}
	for range steps {
		b = sum(b, p.Timeout)
	}
	for range p.Retries + 1 {
		b = sum(b, p.Connect)
	}
	for range p.Retries {
		b = sum(b, longestPause)
	}
	return b
}

// sum adds, and stops at the longest there is.
func sum(a, b time.Duration) time.Duration {
	if s := a + b; s >= a {
		return s
	}
	return 1<<63 - 1
}

// Run asks the hosts and gives each one's answer as it comes: exactly one each,
// those that were not begun at the end. When the context ends, the commands
// that run are sent a signal, and the rest is answered for within two seconds.
// If the loop is left, the same happens before Run returns.
func (p Plan) Run(ctx context.Context) iter.Seq[fact.HostAnswer] {
	return func(yield func(fact.HostAnswer) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		r := &run{Plan: p.settled(), script: p.Script}
		r.room.Store(mostOutput)
		if r.script == nil {
			r.script = &Script{steps: p.Steps, ended: true}
		} else {
			r.turns = make(chan struct{}, r.Window)
		}
		left := false
		give := func(a fact.HostAnswer) {
			if !left && !yield(a) {
				left = true
				cancel()
			}
		}
		rest := r.Hosts
		for i := 0; len(rest) > 0 && r.stopped == ""; i++ {
			n := r.batch(i, len(rest))
			begun := r.ask(ctx, rest[:n], give)
			rest = rest[begun:]
		}
		for _, host := range rest {
			give(fact.HostAnswer{Host: host, Outcome: fact.OutcomeNotRun, Reason: r.stopped})
		}
	}
}

// run is a plan under way.
type run struct {
	Plan
	script  *Script
	turns   chan struct{} // holds the hosts that do something; nil where they take turns as a whole
	room    atomic.Int64  // bytes of output that may still be kept
	failed  int
	stopped string // why no more hosts are begun
}

// batch returns how many hosts the i-th batch has, of those that are left.
func (r *run) batch(i, left int) int {
	if len(r.Batches) == 0 {
		return left
	}
	n, _ := r.Batches[min(i, len(r.Batches)-1)].of(len(r.Hosts), true)
	return min(max(n, 1), left)
}

// ask asks some hosts, and returns how many it has begun when all these have
// answered.
func (r *run) ask(ctx context.Context, hosts []string, give func(fact.HostAnswer)) (begun int) {
	answers := make(chan fact.HostAnswer)
	for running := 0; ; running-- {
		for (running < r.Window || r.turns != nil) && begun < len(hosts) && r.mayGoOn(ctx) {
			host := hosts[begun]
			go func() { answers <- r.answer(ctx, host) }()
			begun++
			running++
		}
		if running == 0 {
			return begun
		}
		a := <-answers // which answer bounds
		if a.Outcome != fact.OutcomeOK {
			r.failed++
		}
		give(a)
	}
}

// mayGoOn says whether one more host may be begun.
func (r *run) mayGoOn(ctx context.Context) bool {
	if r.stopped == "" {
		most, limited := r.MaxFail.of(len(r.Hosts), false)
		switch {
		case ctx.Err() != nil:
			r.stopped = "interrupted before it was begun"
		case limited && r.failed > most && most == 0:
			r.stopped = "not begun, because a host failed"
		case limited && r.failed > most:
			r.stopped = fmt.Sprintf("not begun, because more than %d hosts failed", most)
		}
	}
	return r.stopped == ""
}

// answer asks one host, and answers for it when it does not come to an end.
func (r *run) answer(ctx context.Context, host string) fact.HostAnswer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &task{run: r, host: host, started: time.Now(), busy: make(chan bool)}
	t.stdout, t.stderr = &output{task: t}, &output{task: t, stderr: true}
	if r.Began != nil && r.turns == nil {
		r.Began(host)
	}
	answers := make(chan fact.HostAnswer, 1)
	go t.work(ctx, answers)
	limit := r.Bound()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	if r.turns != nil {
		timer.Stop() // until it begins a step
	}
	over := ctx.Done()
	for {
		select {
		case a := <-answers:
			return a
		case busy := <-t.busy:
			if over == nil {
				continue
			}
			if timer.Stop(); busy {
				timer.Reset(limit)
			}
		case <-over:
			over, limit = nil, grace
			timer.Reset(grace)
		case <-timer.C:
			return t.lost(limit)
		}
	}
}

// lost answers for a host that something holds which has no bound.
func (t *task) lost(limit time.Duration) fact.HostAnswer {
	a := t.so(fact.OutcomeUnreachable, fmt.Sprintf("nothing came of it within %s, and it could not be stopped", bound.Format(limit)))
	a.MayHaveRun = t.sent.Load()
	return a
}
