package node

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/netns"
	"github.com/lifeline-go/lifeline/agent/source/route"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	// relist is how often the namespaces are listed anew: one that is made
	// meanwhile is watched from then on.
	relist = 5 * time.Second

	// mostFailures is how many looks in a row may fail before the watch does.
	mostFailures = 10

	// wakened is how far apart looks are that somebody asked for, at the least.
	wakened = 100 * time.Millisecond
)

// PeerWatch says how to watch peers. The zero PeerWatch watches all namespaces
// and pokes whom it suspects.
type PeerWatch struct {
	Of Namespaces

	// Ask is for how long a peer may not have been heard before it is poked for
	// that alone: who sends nothing cannot be seen to get no answer. 0 means that
	// only suspects are poked.
	Ask time.Duration

	// Passive: nobody is poked, and nothing is sent.
	Passive bool

	// Brief: a verdict is told at once, without whose the connections are and
	// what the kernel would do, which takes a full look to find out.
	Brief bool

	// Wake tells of something that is worth a look now, such as a
	// retransmission. Looks for it keep a distance and the budget. Its sender
	// must not wait for it to be received: a channel with room for one does. nil
	// means that the kernel is asked to tell, package tcpevent, where it can.
	Wake <-chan struct{}
}

// WatchPeers looks at the TCP sockets again and again until ctx ends, and calls
// tell with each verdict on a peer that falls or is lifted, and the look that
// showed it, which is good until tell returns; first of all once with the first
// look and no change. It needs no rights for the sockets of its own namespace;
// the names of processes and the bounds need those of [Node.Look], pokes those of
// [act.Poke], and what they need that is missing is in Blind of the first look.
// It ends with the error of tell or of ctx, or when there is nothing to see at
// all.
//
// A look is a dump of the TCP sockets and nothing else; all that a verdict is
// told with is looked up when one falls. Looks come at least every 3 s, and every
// 125 ms where that takes less than 1 % of a processor or where something is
// suspicious, see [pace]. Where looks take longer there are glimpses at an eighth
// of the sockets between them, so that the first sign of a silence is seen soon.
//
// Peers that are suspected with fewer than 20 connections are poked beside the
// looks, [act.Confirm], at most 32 at a time and 50 a second.
func (n *Node) WatchPeers(ctx context.Context, w PeerWatch, tell func(*fact.Machine, []verdict.Change) error) error {
	watch := &peerWatch{PeerWatch: w, node: n, glances: glances{of: w.Of}, speed: newPace(), asker: newAsker(w.Passive), tell: tell}
	defer watch.asker.close()
	if w.Wake == nil {
		woken, stop := n.wake(ctx, w.Of)
		defer stop()
		watch.Wake = woken
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for {
		pause, err := watch.round(ctx)
		if err != nil {
			return err
		}
		if err := watch.wait(ctx, pause); err != nil {
			return err
		}
	}
}

// peerWatch is a watch under way.
type peerWatch struct {
	PeerWatch
	node     *Node
	glances  glances
	detector verdict.Detector
	speed    pace
	asker    *asker
	tell     func(*fact.Machine, []verdict.Change) error
	within   time.Duration
	failures int
	told     bool
}

// round looks once, and returns how long to wait for the next.
func (w *peerWatch) round(ctx context.Context) (pause time.Duration, err error) {
	begun, used := time.Now(), processorTime()
	m, err := w.glances.look()
	if err != nil {
		// Half of a peer's sockets could say that it is silent, so a look that
		// failed is not judged, and the next one is late.
		if w.failures++; !w.told || w.failures == mostFailures {
			return 0, err
		}
		return quickest, nil
	}
	w.failures = 0
	changes := w.detector.Look(m, w.within)
	suspects := w.detector.Suspects()
	if w.Ask > 0 {
		suspects = append(suspects, verdict.Quiet(m, w.Ask)...)
	}
	w.asker.ask(ctx, m, suspects)
	cost := min(time.Since(begun), processorTime()-used)
	if !w.told || len(changes) > 0 {
		if !w.told {
			m.Blind = append(slices.Clone(m.Blind), w.asker.blind()...)
		}
		w.told = true
		if !w.Brief {
			w.node.complete(ctx, w.Of, changes)
		}
		if err := w.tell(m, changes); err != nil {
			return 0, err
		}
	}
	w.glances.room = m.Sockets[:0]
	pause = w.speed.next(cost, w.detector.Suspicious())
	if w.Ask > 0 { // only a look shows who was not heard
		pause = min(pause, max(w.Ask/2, w.speed.cost*calm))
	}
	// What this round did after its look is planned too, and so is the next
	// look itself, as long as the processor takes for it.
	w.within = pause + time.Since(m.Time) + cost
	return pause, nil
}

// wait waits for the next look to be due: when the pause is over, at once when a
// poke was left unanswered or a glimpse shows something, and soon when something
// woke it.
func (w *peerWatch) wait(ctx context.Context, pause time.Duration) error {
	begun := time.Now()
	due := begun.Add(pause)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	peek := time.NewTimer(w.speed.glimpse(pause))
	defer peek.Stop()
	wake := w.Wake
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			w.speed.spared(time.Until(due))
			return nil
		case r := <-w.asker.answers:
			a := w.asker.take(r)
			if w.detector.Hear(a); a.Silent {
				timer.Reset(0)
			}
		case <-peek.C:
			used := processorTime()
			if w.speed.affords() && w.glances.peek() {
				timer.Reset(0)
			}
			w.speed.glimpsed(processorTime() - used)
			peek.Reset(w.speed.glimpse(time.Until(due)))
		case <-wake:
			wake = nil
			if soon := begun.Add(wakened); soon.Before(due) && w.speed.affords() {
				timer.Reset(max(time.Until(soon), 0))
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-wait.C:
		return nil
	}
}

// complete finds out whose the connections of silent peers are, and how long
// the kernel takes to tell. The verdict stands without.
func (n *Node) complete(ctx context.Context, of Namespaces, changes []verdict.Change) {
	if len(changes) == 0 {
		return
	}
	m, err := n.Look(ctx, Want{Sockets: sockdiag.Want{TCP: true}, Namespaces: of})
	if err != nil {
		return
	}
	defer n.Recycle(m)
	peers := verdict.Peers(m)
	for i := range changes {
		changes[i].Complete(peers)
	}
}

// glances are looks at nothing but the TCP sockets.
type glances struct {
	of     Namespaces
	host   string
	spaces []fact.Namespace
	listed time.Time
	blind  []fact.Blind // of the last listing
	room   []fact.Socket

	part   int           // of the next glimpse
	sample []fact.Socket // its room
}

// look takes the next one. A namespace that is gone is left out; any other that
// cannot be read in full is an error.
func (g *glances) look() (*fact.Machine, error) {
	if g.listed.IsZero() || time.Since(g.listed) > relist {
		if err := g.list(); err != nil {
			return nil, err
		}
	}
	m := &fact.Machine{Host: g.host, Namespaces: g.spaces, Sockets: g.room, Blind: g.blind}
	for _, ns := range g.spaces {
		err := netns.Do(ns, func() (err error) {
			m.Sockets, err = sockdiag.Read(m.Sockets, ns.Inode, sockdiag.Want{TCP: true})
			return err
		})
		var entering *netns.Error
		if errors.As(err, &entering) && len(g.spaces) > 1 {
			g.listed = time.Time{} // it is gone; there are others
		} else if err != nil {
			g.listed = time.Time{}
			return nil, err
		}
	}
	m.Time = time.Now()
	return m, nil
}

// peek glimpses at a part of the sockets, each time another, and reports whether
// any of them is worth a look at all. What cannot be read shows nothing.
func (g *glances) peek() bool {
	g.part++
	for _, ns := range g.spaces {
		_ = netns.Do(ns, func() (err error) {
			g.sample, err = sockdiag.Sample(g.sample[:0], ns.Inode, g.part)
			return err
		})
		for i := range g.sample {
			if verdict.Doubtful(&g.sample[i]) {
				return true
			}
		}
		g.sample = g.sample[:0]
	}
	return false
}

// list finds the namespaces and their own addresses, so that what stays on the
// machine is nobody's peer.
func (g *glances) list() error {
	l := look{Machine: &fact.Machine{}, want: Want{Namespaces: g.of}}
	list, err := l.choose()
	if err != nil {
		return err
	}
	kept := list[:0]
	for _, ns := range list {
		known := slices.IndexFunc(g.spaces, func(old fact.Namespace) bool { return old.Inode == ns.Inode })
		if known >= 0 {
			ns.Local = g.spaces[known].Local
			kept = append(kept, ns)
			continue
		}
		err := netns.Do(ns, func() error {
			if local, err := route.Local(); err == nil {
				ns.Local = local // without them, those of its sockets stand in
			}
			return nil
		})
		if err != nil {
			l.blind(netns.Blindness("sockets", err))
			continue
		}
		kept = append(kept, ns)
	}
	if len(kept) == 0 {
		return errors.New("the sockets of no network namespace can be read")
	}
	if g.host, err = os.Hostname(); err != nil {
		g.host = "localhost"
	}
	g.spaces, g.blind, g.listed = kept, l.Blind, time.Now()
	return nil
}

// processorTime is what this process has used of all processors.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
