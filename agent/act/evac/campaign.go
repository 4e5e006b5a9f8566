//go:build linux

package evac

import (
	"context"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	tick         = 20 * time.Millisecond // between batches that are spread over time
	shortTick    = 5 * time.Millisecond  // between batches at Rate
	firstLook    = 10 * time.Millisecond // after the last batch; then twice as long each time
	longestLook  = 500 * time.Millisecond
	lookCost     = 4                     // looks take no more than one part of so many,
	tailCost     = 2                     // and of so many once all is begun
	nudgeAgain   = 50 * time.Millisecond // who does not answer; then nudgeSlower times as long each time
	nudgeSlower  = 4
	mostNudges   = 4
	tailShare    = 25 // one part of so many of the time is kept for the last answers
	shortestTail = 20 * time.Millisecond
)

// target is one flow and how it stands with it.
type target struct {
	flow           fact.Flow
	tuple          tuple
	late           bool
	nudges         int
	nudged         time.Time
	client, server bool // was sent a reset
}

// campaign is one evac.
type campaign struct {
	options Options
	table   *table
	nudger  *nudger
	pace    pace
	start   time.Time
	end     time.Time // when all waiting ends; zero until what was there at first is begun
	first   int       // how many targets there were at first
	known   map[tuple]*target
	targets []*target // in the order they are reset
	begun   int       // of the targets
	open    int       // begun, and an end not yet told
	last    time.Time // when the latest end was seen to be told
	looked  time.Time
	every   time.Duration // between looks
	read    time.Time     // when connection tracking was read last
	stale   bool
	offload int
	unsent  error
	unread  error
}

func newCampaign(o Options, t *table, n *nudger, start time.Time) *campaign {
	c := &campaign{options: o, table: t, nudger: n, start: start, known: make(map[tuple]*target), every: firstLook}
	c.pace.last, c.looked, c.read, c.last = start, time.Now(), start, start
	if o.Within > 0 {
		c.end = start.Add(o.Within)
		c.pace.end = c.end.Add(-max(o.Within/tailShare, shortestTail))
	}
	return c
}

// enlist takes in flows that are not known yet and returns how many. The
// first call is for those that were there before the rules.
func (c *campaign) enlist(p Plan, late bool) (fresh int) {
	if !late {
		c.first = len(p.Flows)
	}
	for _, f := range p.Flows {
		k := tupleOf(&f)
		if c.known[k] != nil {
			continue
		}
		t := &target{flow: f, tuple: k, late: late}
		c.known[k] = t
		c.targets = append(c.targets, t)
		fresh++
	}
	c.offload = p.Offloaded
	return fresh
}

// run resets and looks until nothing is left, the time is up or ctx ends.
func (c *campaign) run(ctx context.Context) error {
	c.report()
	for {
		now := time.Now()
		if due := c.pace.due(now, len(c.targets)-c.begun); due > 0 {
			if err := c.reset(ctx, due); err != nil {
				return err
			}
			if due == mostAtOnce { // behind
				continue
			}
		}
		now = time.Now()
		if c.end.IsZero() && c.begun >= c.first {
			c.end = now.Add(Patience)
		}
		over := !c.end.IsZero() && now.After(c.end)
		if over || now.Sub(c.looked) >= c.every && c.mayLook() {
			done, err := c.look(over)
			if err != nil || done {
				return err
			}
		}
		if err := sleep(ctx, c.rest()); err != nil {
			return err
		}
	}
}

// mayLook reports that it is the time for looks: without an end they only keep
// from resetting until all is begun.
func (c *campaign) mayLook() bool { return c.options.Within > 0 || c.begun == len(c.targets) }

// rest is how long there is nothing to do.
func (c *campaign) rest() time.Duration {
	if c.options.Within == 0 && c.begun < len(c.targets) {
		return shortTick
	}
	return min(tick, c.every)
}

// reset begins the next n flows, in batches.
func (c *campaign) reset(ctx context.Context, n int) error {
	for n > 0 && ctx.Err() == nil {
		some := c.targets[c.begun : c.begun+min(n, mostAtOnce)]
		if err := c.table.add(some); err != nil {
			return err
		}
		for _, t := range some {
			c.nudge(t)
		}
		n -= len(some)
		c.begun += len(some)
		c.open += len(some)
		c.report()
	}
	if c.begun == len(c.targets) { // so that what is waited for now are answers
		c.looked, c.every = time.Now(), firstLook
	}
	return context.Cause(ctx)
}

// nudge asks those ends of a flow that were not told yet for a packet.
func (c *campaign) nudge(t *target) {
	octets := min(t.nudges, 1) // see nudge
	t.nudges, t.nudged = t.nudges+1, time.Now()
	if !t.server {
		c.note(c.nudger.send(t.flow.ReplyTo, t.flow.ReplySource, octets))
	}
	if !t.client {
		c.note(c.nudger.send(t.flow.Destination, t.flow.Source, octets))
	}
}

// waits reports that a flow was nudged long enough ago to be nudged again: the
// first time soon, as most answers that are missing were held back and not
// lost, then less and less often.
func (t *target) waits() bool {
	patience := nudgeAgain
	for range t.nudges - 1 {
		patience *= nudgeSlower
	}
	return !t.told() && t.nudges < mostNudges && time.Since(t.nudged) >= patience
}

func (c *campaign) note(err error) {
	if c.unsent == nil {
		c.unsent = err
	}
}

// look finds who was told, nudges again who did not answer, and reports that
// nothing is left: which it looks for where all were told, or the time is over.
func (c *campaign) look(over bool) (done bool, err error) {
	began := time.Now()
	if err := c.table.answered(c.tell); err != nil {
		return false, err
	}
	for _, t := range c.targets[:c.begun] {
		if t.waits() {
			c.nudge(t)
		}
	}
	fresh := 0
	told := c.open == 0 && c.begun == len(c.targets)
	if told || over || began.Sub(c.read) >= longestLook {
		fresh = c.enlistLate()
	}
	c.looked = time.Now()
	c.every = min(2*c.every, longestLook)
	if fresh > 0 {
		c.every = firstLook
	}
	cost := time.Duration(lookCost)
	if c.begun == len(c.targets) {
		cost = tailCost
	}
	c.every = max(c.every, (cost-1)*c.looked.Sub(began))
	return over || told && fresh == 0, nil
}

// enlistLate takes in the flows that began since. That they cannot be read is
// no reason to leave the others.
func (c *campaign) enlistLate() (fresh int) {
	p, err := Look(c.options)
	c.read = time.Now()
	if err != nil {
		if c.unread == nil {
			c.unread = err
		}
		return 0
	}
	return c.enlist(p, true)
}

func (t *target) told() bool { return t.client && t.server }

// tell notes that the end which sent a packet was sent a reset.
func (c *campaign) tell(a answer) {
	t := c.known[a.tuple]
	if t == nil || t.told() {
		return
	}
	if a.reply {
		t.server = true
	} else {
		t.client = true
	}
	if t.told() {
		c.open--
		c.last = time.Now()
	}
}

func (c *campaign) report() {
	if c.options.Progress != nil {
		c.options.Progress(Progress{Flows: len(c.targets), Begun: c.begun, Elapsed: time.Since(c.start), Stale: c.stale})
	}
}

func (c *campaign) result() Result {
	r := Result{Begun: c.begun, Unanswered: c.open, Offloaded: c.offload, Took: c.last.Sub(c.start), Stale: c.stale, Unsent: c.unsent, Unread: c.unread}
	for _, t := range c.targets {
		r.Flows = append(r.Flows, t.flow)
		if t.late {
			r.Late++
		}
		if t.client {
			r.Clients++
		}
		if t.server {
			r.Servers++
		}
	}
	return r
}

// sleep waits for d or until ctx ends, whose cause is the error then.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
