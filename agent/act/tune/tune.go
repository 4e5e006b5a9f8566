//go:build linux

// Package tune shortens the keepalive of connections of running programs, which
// need not know and are not restarted, so that a peer that died without a word is
// noticed within a given time. And it gives the old options back.
//
// [Run] changes connections that are there. It reads the options of each, writes
// them down in a file that only root may read, and then changes them where they
// are still the same. [Undo] reads that file, today or after a crash, and
// restores each connection that still has what Run gave it. What its program has
// set meanwhile stays. [Hold] keeps new connections of a cgroup tuned, until
// [Release].
//
// Only connections of programs are touched (ESTABLISHED and CLOSE_WAIT), and
// none that is tight enough already. A Multipath TCP connection is left alone:
// its options are kept once more above its subflows, where they would not show.
//
// Options are read and set by a BPF iterator over the TCP sockets of a network
// namespace, which needs Linux 6.1, CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and
// CAP_SYS_ADMIN for the namespaces of others. Where that is not to be had, each
// socket is borrowed from its process, pidfd_getfd(2), which needs Linux 5.6 and
// CAP_SYS_PTRACE, and is some ten times slower.
package tune

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	// DefaultWithin is how soon a silent peer of an idle connection is noticed
	// where nothing is said: time for three probes.
	DefaultWithin = 6 * time.Second

	// Longest is the longest time that may be asked for.
	Longest = time.Hour

	// DefaultDir is where the old options are kept. It is gone after a reboot, as
	// all connections are.
	DefaultDir = "/run/lifeline"
)

// Way is how sockets of others are reached.
type Way uint8

// The ways.
const (
	Best   Way = iota // BPF where it is to be had, else borrowing
	ByBPF             // or an error
	ByLoan            // pidfd_getfd(2)
)

func (w Way) String() string { return [...]string{"best", "BPF", "pidfd_getfd"}[min(w, ByLoan)] }

// Options say how to tune. The zero Options are recommended: 6 s, no user
// timeout, as fast as it goes.
type Options struct {
	// Within is how soon a silent peer of an idle connection is to be noticed;
	// 0 means [DefaultWithin]. The options are those of [bound.Within].
	Within time.Duration

	// UserTimeout is TCP_USER_TIMEOUT for connections that have none, or a longer
	// one; 0, which is recommended, leaves it as it is. The trap: it also ends
	// connections to a peer that is alive and does not read for so long, and it
	// takes the place of the count of probes, so that an idle connection may be
	// noticed later than Within.
	UserTimeout time.Duration

	// Rate spreads the change; 0 means [act.Unpaced]. A connection that has been
	// idle for longer than its new idle time is probed at once, so all of them
	// together are a burst of small packets, and stay in step.
	Rate act.Rate

	Dir   string // of the file with the old options; "" means [DefaultDir]
	Way   Way
	Reach *Reach // used instead of Way, and left open; nil means that Run opens one

	// After is called after each batch with what was done so far; nil means that
	// nobody wants to know.
	After func(Report)
}

// Report is what became of the connections that were to be tuned. Each is in one
// of the lists.
type Report struct {
	Tuned   []*fact.Socket
	Tight   []*fact.Socket // left alone: noticed within the time already
	Changed []*fact.Socket // left alone: their programs changed them at the same moment
	Gone    []*fact.Socket // no longer connections of a program when their turn came
	Failed  []act.Failure  // left alone by the kernel, or because it could not be undone
	Left    []*fact.Socket // not reached, because the tune was stopped

	Way    Way           // that was taken
	NoBPF  error         // why BPF was not; nil when it was, or was not asked for
	Opened time.Duration // how long it took to load the BPF program
	Read   time.Duration // to read the options that the look did not show, and to decide
	Kept   time.Duration // to write the old ones down
	Set    time.Duration // to set the new ones, pauses included
}

// options returns what is set on sockets, and within which time.
func (o *Options) options() (bound.Options, time.Duration, error) {
	within := cmp.Or(o.Within, DefaultWithin)
	keepalive, ok := bound.Within(within)
	switch {
	case !ok:
		return keepalive, 0, errors.New("it is too short for two probes, which are a second apart: take 3.2s or more")
	case within > Longest:
		return keepalive, 0, errors.New("it is too long to be of use: take 1h or less")
	case o.UserTimeout < 0 || o.UserTimeout > 24*time.Hour || o.UserTimeout%time.Millisecond != 0:
		return keepalive, 0, errors.New("a user timeout is from 1ms to 24h")
	}
	keepalive.UserTimeout = o.UserTimeout
	return keepalive, within, nil
}

func (o *Options) dir() string { return cmp.Or(o.Dir, DefaultDir) }

// Check returns what is wrong with the options, nil when nothing is.
func (o *Options) Check() error {
	_, _, err := o.options()
	return err
}

// Run tunes sockets, connections of m. See [Plan] for what it would do.
//
// It returns an [*act.Error] when it cannot be done at all, and the cause when
// ctx ends; the report is complete in any case. Two runs at the same time wait
// for each other.
func Run(ctx context.Context, m *fact.Machine, sockets []*fact.Socket, o Options) (Report, error) {
	r := runner{machine: m, Options: o}
	r.Left = slices.Clone(sockets)
	slices.SortStableFunc(r.Left, func(a, b *fact.Socket) int { return cmp.Compare(a.Netns, b.Netns) })
	var err error
	if r.target, r.within, err = o.options(); err != nil {
		return r.Report, &act.Error{Act: "tune", Err: err}
	}
	store, err := openStore(ctx, o.dir())
	if err != nil {
		return r.Report, err
	}
	defer store.close()
	if r.kept, err = store.load(); err != nil {
		return r.Report, err
	}
	start := time.Now()
	reach, end, err := o.Reach.orOpen(o.Way)
	if err != nil {
		return r.Report, err
	}
	defer end()
	r.Opened = time.Since(start)
	r.Report.Way, r.NoBPF = reach.way, reach.noBPF
	err = r.run(ctx, store, reach.hand)
	return r.Report, err
}

// runner is a tune under way.
type runner struct {
	Report
	Options
	machine *fact.Machine
	target  bound.Options
	within  time.Duration
	kept    *kept
}

// run tunes by the options that the look saw, so that one pass is enough; where
// a program has changed them since, they are read first.
func (r *runner) run(ctx context.Context, store *store, h hand) error {
	r.kept.prune(r.machine)
	var jobs, unread []job
	for _, s := range r.Left {
		if c, ok := r.machine.BoundConn(s); ok && tunable(s) {
			jobs = append(jobs, job{socket: s, was: valuesOf(c.Options.In(c.Sysctl))})
		} else {
			unread = append(unread, job{socket: s})
		}
	}
	r.Left = nil
	if err := r.round(ctx, store, h, jobs, unread); err != nil || len(r.Changed) == 0 {
		return err
	}
	again := make([]job, len(r.Changed))
	for i, s := range r.Changed {
		again[i].socket = s
	}
	r.Changed = nil
	return r.round(ctx, store, h, nil, again)
}

// round tunes jobs whose options are known, and others that are read first.
func (r *runner) round(ctx context.Context, store *store, h hand, jobs, unread []job) error {
	start := time.Now()
	if err := touchAll(r.machine, h, unread); err != nil {
		for _, j := range slices.Concat(jobs, unread) {
			r.Left = append(r.Left, j.socket)
		}
		return err
	}
	chosen := r.choose(append(jobs, unread...))
	slices.SortStableFunc(chosen, func(a, b job) int { return cmp.Compare(a.socket.Netns, b.socket.Netns) })
	for i := range chosen {
		r.Left = append(r.Left, chosen[i].socket)
	}
	r.Report.Read += time.Since(start)

	start = time.Now()
	before := r.kept.clone()
	for i := range chosen {
		r.kept.note(&chosen[i], start)
	}
	if err := store.save(r.kept); err != nil {
		return err
	}
	r.Report.Kept += time.Since(start)

	start = time.Now()
	failed := r.set(ctx, h, chosen)
	r.Report.Set += time.Since(start)
	if r.kept.forget(chosen, before) {
		failed = errors.Join(failed, store.save(r.kept))
	}
	return failed
}

// choose returns those of the jobs that are to be tuned; the others go into their
// lists.
func (r *runner) choose(jobs []job) (chosen []job) {
	for i := range jobs {
		j := &jobs[i]
		if j.outcome != outcomeRead {
			r.sort(j)
			continue
		}
		to, tight := aim(j.was, r.target, r.within)
		switch {
		case tight:
			r.Tight = append(r.Tight, j.socket)
		case !j.was.settable():
			r.Failed = append(r.Failed, act.Failure{Socket: j.socket, Err: errNoWayBack})
		default:
			chosen = append(chosen, job{socket: j.socket, wish: wish{From: j.was, Also: j.was, To: to, Set: 1}})
		}
	}
	return chosen
}

// set changes the options, batch by batch.
func (r *runner) set(ctx context.Context, h hand, jobs []job) error {
	rate := cmp.Or(r.Rate, act.Unpaced)
	due := time.Now()
	for len(jobs) > 0 {
		n := batch(rate, len(jobs))
		if err := until(ctx, due); err != nil {
			return err
		}
		due = due.Add(rate.Duration(n))
		err := touchAll(r.machine, h, jobs[:n])
		left := r.Left[n:]
		for i := n - 1; i >= 0; i-- {
			if jobs[i].outcome == outcomeRead { // not reached before the error
				left = r.Left[i:]
				continue
			}
			break
		}
		for i := range jobs[:len(r.Left)-len(left)] {
			r.sort(&jobs[i])
		}
		r.Left = left
		if r.After != nil {
			r.After(r.Report)
		}
		if err != nil {
			return err
		}
		jobs = jobs[n:]
	}
	return nil
}

// sort puts a socket into the list that its outcome asks for.
func (r *runner) sort(j *job) {
	switch j.outcome {
	case outcomeSet, outcomeSame:
		j.done = true
		r.Tuned = append(r.Tuned, j.socket)
	case outcomeChanged:
		r.Changed = append(r.Changed, j.socket)
	case outcomeGone, outcomeState:
		r.Gone = append(r.Gone, j.socket)
	default:
		// A setting may have been changed before another failed.
		j.done = j.Set != 0 && j.outcome == outcomeFailed
		r.Failed = append(r.Failed, act.Failure{Socket: j.socket, Err: j.failure()})
	}
}

// batch is how many go at once: all, or a twentieth of a second's worth.
func batch(rate act.Rate, n int) int {
	const perSecond = 20
	if rate == act.Unpaced {
		return n
	}
	return min(n, max(1, int(rate)/perSecond))
}

// until waits for a moment, or for the end of ctx.
func until(ctx context.Context, due time.Time) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// needsRoot is an error of the place where old options are kept.
func needsRoot(err error) error {
	e := &act.Error{Act: "tune", Err: err}
	if errors.Is(err, os.ErrPermission) {
		e.Needs = "root: the old options are kept where only root may write"
	}
	return e
}
