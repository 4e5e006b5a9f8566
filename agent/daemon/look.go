package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	censusEvery = 10 * time.Second
	leaksEvery  = 10 * time.Second
	peersBound  = 2 * time.Minute  // without a word of the watch of peers, which says every minute that it goes on
	again       = 10 * time.Second // after a watch that failed

	// Each look is followed by a rest of so many times what it took of a processor,
	// see [purse]: censuses take 0.11 % at the most, and all looks some 0.3 %.
	censusRest    = 900
	leaksRest     = 1000
	endsRest      = 2000 // at the other ends of what leaks
	callsRest     = 2000
	conntrackRest = 4000

	// unanswered is for how long a request must wait to be listed.
	unanswered = 5 * time.Second
)

// The sources, by which what each found is known.
const (
	fromCensus    = "census"
	fromPeers     = "peers"
	fromNames     = "names"
	fromLeaks     = "leaks"
	fromFiles     = "programs"
	fromCalls     = "calls"
	fromCounters  = "counters"
	fromConntrack = "conntrack"
	fromNumbers   = "numbers"
)

// all makes the sources. Each has a Node of its own, which takes one look at a
// time.
func (d *Daemon) all() []*source {
	leaks, numbered := new(leakLook), new(atomic.Pointer[time.Time])
	names := d.withNode(&source{name: fromNames, every: namesEvery, bound: 30 * time.Second, wake: make(chan struct{}, 1)}, d.lookNames)
	return []*source{
		{name: fromPeers, every: again, bound: peersBound, beat: &d.peersLooked, look: d.watchPeers},
		d.withNode(&source{name: fromCensus, every: censusEvery, bound: 30 * time.Second, wake: make(chan struct{}, 1)}, d.lookCensus),
		{name: fromNumbers, every: numbersEvery, bound: time.Minute, beat: numbered, look: d.watchNumbers(numbered)},
		names,
		d.withNode(&source{name: fromCalls, every: callsEvery, bound: 30 * time.Second, wake: make(chan struct{}, 1)}, d.lookCalls(new(callLook))),
		d.withNode(&source{name: fromCounters, every: kernelEvery, bound: 30 * time.Second}, d.lookCounters()),
		d.withNode(&source{name: fromConntrack, every: kernelEvery, bound: 30 * time.Second}, d.lookConntrack()),
		d.withNode(&source{name: fromFiles, every: programsEvery, bound: programsTime}, d.lookPrograms),
		{name: fromLeaks, every: leaksEvery, bound: 30 * time.Second, look: d.lookLeaks(leaks), end: leaks.end},
	}
}

// withNode gives a source a Node for all its looks.
func (d *Daemon) withNode(s *source, look func(context.Context, *node.Node) (time.Duration, error)) *source {
	n := node.New() // opens nothing yet
	n.Spaces = &d.spaces
	s.look = func(ctx context.Context) (time.Duration, error) { return look(ctx, n) }
	s.end = func() { n.Close() }
	return s
}

// watchPeers goes on until ctx ends. Its verdicts are known at once, those of the
// census on the same peers give way to them.
func (d *Daemon) watchPeers(ctx context.Context) (time.Duration, error) {
	n := node.New()
	n.Spaces = &d.spaces
	defer n.Close()
	silent := make(map[peerKey]verdict.Change)
	err := n.WatchPeers(ctx, node.PeerWatch{Of: d.options.Namespaces, Passive: d.options.Passive, Looked: d.beat}, func(m *fact.Machine, changes []verdict.Change) error {
		for _, c := range changes {
			key := peerKey{c.Netns, c.Interface, c.Addr}
			if delete(silent, key); c.Verdict == verdict.Silent {
				silent[key] = c
			}
		}
		found, since := make([]verdict.Finding, 0, len(silent)), make(map[peerKey]time.Time, len(silent))
		for key, c := range silent {
			found, since[key] = append(found, silence(&c)), c.Time
		}
		blind := slices.Clone(m.Blind)
		d.take(func(k *known) {
			k.watching, k.silent = true, since
			k.found(time.Now(), fromPeers, found, blind)
		})
		return nil
	})
	d.take(func(k *known) { k.watching = false })
	return again, err
}

// beat says that the watch of peers goes on.
func (d *Daemon) beat() { now := time.Now(); d.peersLooked.Store(&now) }

// lookCensus takes a census, and judges it by the one before.
func (d *Daemon) lookCensus(ctx context.Context, n *node.Node) (time.Duration, error) {
	began, used := time.Now(), processor()
	m, err := n.Look(ctx, node.Want{Full: true, Held: true, Namespaces: d.options.Namespaces})
	if err != nil {
		return 0, err
	}
	earlier := d.census                   // nobody else sets it
	m.Earlier, m.Conntrack = earlier, nil // that has a source of its own
	d.mu.Lock()
	m.Goroutines = ofThose(m, d.known.parked)
	d.mu.Unlock()
	reading := verdict.Read(m)
	found := slices.DeleteFunc(reading.Judge(), func(f verdict.Finding) bool { return f.Promise == verdict.Names })
	c := counted(m, reading)
	d.looking.Lock()
	m.Earlier, d.census = nil, m
	if earlier != nil {
		n.Recycle(earlier)
	}
	d.looking.Unlock()
	c.cost = spent(began, used)
	c.totals.Took = time.Since(began).Seconds()
	blind := slices.Clone(m.Blind)
	callers, first := node.Callers(m), false
	d.take(func(k *known) {
		first = k.callers == nil
		k.counts, k.callers = c, callers
		if k.watching && !d.sourceLate(fromPeers) { // it knows sooner and better
			found = slices.DeleteFunc(found, func(f verdict.Finding) bool { return f.Code == silentCode })
		}
		k.found(m.Time, fromCensus, found, blind)
	})
	if first {
		d.hurry(fromCalls)
	}
	return d.purse.pay(time.Now(), c.cost, censusRest, censusEvery, rare), nil
}

// spent is what a look took of a processor, at the most: others work meanwhile.
func spent(began time.Time, used time.Duration) time.Duration {
	return min(time.Since(began), processor()-used)
}

// leakLook is what one look at leaks leaves for the next.
type leakLook struct {
	node    *node.Node // nil before the first look
	openers *node.Openers
	watch   verdict.LeakWatch
	sites   map[string]*seenSite
	ends    time.Time // when to look at the other ends again, at the earliest
	purse   purse
	others  purse // for the other ends
}

// end closes what the looks keep open.
func (l *leakLook) end() {
	if l.openers != nil {
		l.openers.Close()
		l.node.Close()
	}
}

// lookLeaks follows who opens sockets. Without the rights for it, it says so and
// tries again.
func (d *Daemon) lookLeaks(l *leakLook) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		if l.openers == nil {
			n := node.New()
			openers, err := n.Openers(node.OpenersWant{Uses: true, Only: func(pid int32, _ string) bool { return int(pid) != os.Getpid() }})
			if err != nil {
				d.take(func(k *known) { k.found(time.Now(), fromLeaks, nil, []fact.Blind{node.OpenersBlind(err)}) })
				return time.Minute, errors.Join(err, n.Close())
			}
			l.node, l.openers = n, openers
		}
		began, used := time.Now(), processor()
		o, err := l.openers.Look(ctx)
		if err != nil {
			return 0, err
		}
		l.watch.Look(o)
		cost, sites := spent(began, used), l.watch.Sites()
		now := time.Now()
		if now.After(l.ends) && slices.ContainsFunc(sites, func(s verdict.LeakSite) bool { return s.Verdict != verdict.Healthy }) {
			used = processor()
			if err := l.openers.Ends(ctx, o); err != nil {
				return 0, fmt.Errorf("processes at the other ends: %w", err)
			}
			sites = l.watch.Sites()
			l.ends = time.Now().Add(l.others.pay(time.Now(), spent(now, used), endsRest, leaksEvery/2, rare)) // what it said holds until then
		}
		published := l.remember(now, sites)
		blind := slices.Clone(o.Blind)
		d.take(func(k *known) {
			k.sites, k.sitesAll = published, len(sites)
			k.found(now, fromLeaks, verdict.JudgeSites(sites), blind)
		})
		return l.purse.pay(time.Now(), cost, leaksRest, leaksEvery, rare), nil
	}
}
