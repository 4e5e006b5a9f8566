package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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

	// wakened is how far apart looks are that the kernel asked for, at the least.
	wakened = 100 * time.Millisecond

	// beat is how often a watch says that it goes on, and lets go of the namespaces
	// in which it looked at single sockets.
	beat = time.Minute
)

// PeerWatch says how to watch peers. The zero PeerWatch watches all namespaces
// and pokes whom it suspects.
type PeerWatch struct {
	Of Namespaces

	// Ask is for how long a peer may not have been heard before it is poked for
	// that alone: who sends nothing cannot be seen to get no answer. 0 means that
	// only suspects are poked.
	Ask time.Duration

	// Looked is called after each look that could be judged, and every minute while
	// the kernel is listened to; nil calls nobody.
	Looked func()

	// Passive: nobody is poked, and nothing is sent.
	Passive bool

	// Brief: a verdict is told at once, without whose the connections are and
	// what the kernel would do, which takes a full look to find out; and with all
	// TCP sockets, for whoever acts on it.
	Brief bool
}

// WatchPeers looks at the TCP sockets again and again until ctx ends, and calls
// tell with each verdict on a peer that falls or is lifted, and a look that has the
// sockets of that peer, with Brief all, and is good until tell returns; first of all
// once with the first look and no change. It needs no rights for the sockets of its
// own namespace; the names of processes and the bounds need those of [Node.Look],
// pokes those of [act.Poke], and what they need that is missing is in Blind of the
// first look. It ends with the error of tell or of ctx, or when there is nothing to
// see at all.
//
// A look is a dump of the TCP sockets of the namespaces that have an address
// beside loopback, and nothing else; all that a verdict is told with is looked up
// when one falls. Where it is known whom it concerns it is a dump of the sockets of
// these peers. Where BPF is to be had, the kernel tells when something is sent
// again and when a keepalive probe goes out. Of probes, and of what is sent again
// for the first time, one socket is looked at a moment later, and those of the peer
// when two still wait, or one for long. Without, looks come at a pace that takes 0.8 % of a processor,
// at least every 3 s; with it they take 0.025 %, and come at least every 5 minutes, or
// 0.2 % and every minute while a peer is silent. They come every 125 ms while
// something is suspicious, or four times what one takes of a processor apart, see
// [pace].
//
// Looks that failed are judged by nobody, and named in Blind of the next that did
// not, which is told with or without a change. Ten in a row end the watch.
//
// Suspects that few connections ask are poked beside the looks, [act.Confirm], at
// most 32 at a time and 50 a second.
func (n *Node) WatchPeers(ctx context.Context, w PeerWatch, tell func(*fact.Machine, []verdict.Change) error) error {
	watch := &peerWatch{PeerWatch: w, node: n, glances: glances{of: w.Of, known: n.Spaces}, speed: pace{saved: purse}, asker: newAsker(w.Passive), tell: tell}
	defer watch.asker.close()
	defer watch.glances.close()
	words, stopWords := n.listen(ctx, w.Of)
	defer stopWords()
	watch.words = words
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
	words    <-chan word
	open     questions

	looked time.Time     // when the last look ended
	all    time.Time     // the same of one at all sockets
	within time.Duration // how long after that the next is meant to come
	alarm  bool          // it comes because somebody did not answer
	about  []netip.Addr  // of whom that is said
	told   bool

	failures int
	failure  error
	untold   []verdict.Change // for want of a look to tell them with
}

// round looks once, and returns how long to wait for the next.
func (w *peerWatch) round(ctx context.Context) (pause time.Duration, err error) {
	begun, used := time.Now(), processorTime()
	about := w.concerned(begun)
	m, err := w.glances.look(about)
	if err != nil {
		return w.failed(err)
	}
	judged := m.Time
	changes := append(w.untold, w.detector.Look(m, w.within)...)
	w.untold = nil
	if w.Looked != nil {
		w.Looked()
	}
	w.asker.ask(ctx, m, w.detector.Suspects(), false)
	if w.Ask > 0 {
		w.asker.ask(ctx, m, verdict.Quiet(m, w.Ask), true)
	}
	for _, s := range w.detector.Asking() {
		w.open.add(newQuestion(s.Netns, sockdiag.KeyOf(&s), m.Time))
	}
	cost := min(time.Since(begun), processorTime()-used)
	if w.Brief && len(about) > 0 && len(changes) > 0 {
		giveRoom(m)
		if m, err = w.glances.look(nil); err != nil {
			w.untold = changes
			return w.failed(err)
		}
	}
	if err := w.say(ctx, m, changes); err != nil {
		return 0, err
	}
	giveRoom(m)
	pause = w.speed.next(judged.Sub(w.looked), cost, shown{
		narrow:     len(about) > 0,
		untold:     len(w.detector.Doubted()) > 0 || w.Of.inode != 0,
		suspicious: w.detector.Suspicious(),
	})
	if w.Ask > 0 { // only a look shows who was not heard
		pause = min(pause, max(w.Ask/8, w.speed.cost*calm, quickest))
	}
	// What this round did after its look is planned too, and so is the next
	// look itself, as long as the processor takes for it.
	w.looked, w.within, w.alarm, w.about = judged, pause+time.Since(judged)+cost, false, nil
	if len(about) == 0 {
		w.all = judged
	}
	return pause, nil
}

// failed takes note of a look that could not be taken. Half of a peer's sockets could
// say that it is silent, so such a look is not judged, and the next one is late.
func (w *peerWatch) failed(err error) (pause time.Duration, ended error) {
	w.failure = err
	if w.failures++; !w.told || w.failures == mostFailures {
		return 0, err
	}
	return quickest, nil
}

// concerned are the peers at which the next look is enough: those of whom the
// kernel told, and those that are doubted. With none it is a look at all.
func (w *peerWatch) concerned(now time.Time) []netip.Addr {
	if !w.speed.told || !w.told || w.failures > 0 || w.Ask > 0 || now.Sub(w.all) >= slowestTold {
		return nil
	}
	about := slices.Concat(w.about, w.detector.Doubted())
	slices.SortFunc(about, netip.Addr.Compare)
	if about = slices.Compact(about); len(about) > sockdiag.MostPeers {
		return nil
	}
	return about
}

// say tells what a look brought: the first of all, those that changed something,
// and the first after some that failed.
func (w *peerWatch) say(ctx context.Context, m *fact.Machine, changes []verdict.Change) error {
	if w.told && len(changes) == 0 && w.failures == 0 {
		return nil
	}
	m.Blind = slices.Clone(m.Blind)
	if !w.told {
		m.Blind = append(m.Blind, w.asker.blind()...)
	}
	if w.failures > 0 {
		m.Blind = append(m.Blind, netns.Blindness("sockets", fmt.Errorf("%s be taken, so silences begin anew: %w", notTaken(w.failures), w.failure)))
	}
	w.told, w.failures, w.failure = true, 0, nil
	if !w.Brief {
		w.node.complete(ctx, w.Of, changes)
	}
	return w.tell(m, changes)
}

func notTaken(looks int) string {
	if looks == 1 {
		return "one look could not"
	}
	return fmt.Sprintf("%d looks in a row could not", looks)
}

// wait waits for the next look to be due: when the pause is over, at once when a
// poke was left unanswered, and soon when a probe was or something is sent again
// and again.
func (w *peerWatch) wait(ctx context.Context, pause time.Duration) error {
	begun := time.Now()
	due := time.NewTimer(pause)
	defer due.Stop()
	answers := time.NewTimer(time.Until(w.open.next(begun)))
	defer answers.Stop()
	beats := time.NewTicker(beat)
	defer beats.Stop()
	hurry := func(about []netip.Addr) {
		if len(w.about) <= sockdiag.MostPeers {
			w.about = append(w.about, about...)
		}
		if !w.alarm {
			w.alarm = true
			due.Reset(time.Until(begun.Add(min(max(w.speed.soonest(), wakened), pause))))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-due.C:
			return nil
		case <-beats.C:
			w.glances.close()
			if w.Looked != nil && w.speed.told {
				w.Looked()
			}
		case r := <-w.asker.answers:
			a := w.asker.take(r)
			if w.detector.Hear(a); a.Silent || a.Alive && r.silent { // a verdict falls, or is lifted
				due.Reset(0)
			}
		case said := <-w.words:
			w.speed.told = said.complete
			w.open.add(said.asked...)
			answers.Reset(time.Until(w.open.next(time.Now())))
			if said.anybody {
				w.all = time.Time{}
			}
			if said.anybody || len(said.look) > 0 {
				hurry(said.look)
			}
		case now := <-answers.C:
			used := processorTime()
			if found := w.open.unanswered(now, w.glances.get); len(found) > 0 {
				hurry(found)
			}
			w.open.pay(now, processorTime()-used)
			answers.Reset(time.Until(w.open.next(now)))
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
	m, err := n.Look(ctx, Want{Sockets: sockdiag.Want{TCP: true}, Held: true, Namespaces: of})
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
	known  *Spaces
	host   string
	spaces []fact.Namespace
	listed time.Time
	blind  []fact.Blind // of the last listing
	some   int          // sockets at the last look at those of some peers, for the room of the next

	getters map[uint32]*sockdiag.Getter // by namespace, for a while
	strange map[uint32]bool             // namespaces that no listing since the last look had
}

// look takes the next one, of the sockets of some peers or with none of all. A
// namespace that is gone is left out; any other that cannot be read in full is an
// error.
func (g *glances) look(peers []netip.Addr) (*fact.Machine, error) {
	g.close()
	g.strange = make(map[uint32]bool)
	if g.listed.IsZero() || time.Since(g.listed) > relist {
		if err := g.list(); err != nil {
			return nil, err
		}
	}
	begun := time.Now()
	m := &fact.Machine{Host: g.host, Namespaces: g.spaces, Sockets: takeRoom(), Blind: g.blind}
	if len(peers) > 0 {
		m.Sockets = slices.Grow(m.Sockets, g.some+g.some/16)
	}
	for _, ns := range g.spaces {
		if alone(ns.Local) {
			continue
		}
		err := netns.Do(ns, func() (err error) {
			m.Sockets, err = sockdiag.Read(m.Sockets, ns.Inode, sockdiag.Want{TCP: true, Held: true, Peers: peers})
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
	if len(peers) > 0 {
		g.some = len(m.Sockets)
	}
	m.Time = time.Now()
	m.Took = m.Time.Sub(begun)
	return m, nil
}

// find returns where in g.spaces a namespace is, negative where it is not. One that
// is not known was perhaps made since the last look.
func (g *glances) find(inode uint32) int {
	is := func(ns fact.Namespace) bool { return ns.Inode == inode }
	i := slices.IndexFunc(g.spaces, is)
	if i >= 0 || g.strange[inode] || time.Since(g.listed) <= relist {
		return i
	}
	if g.list() == nil {
		i = slices.IndexFunc(g.spaces, is)
	}
	g.strange[inode] = i < 0
	return i
}

// get looks at some sockets alone. Those that cannot be read are left out. What
// it opens for that keeps a namespace alive until close, for a minute at the most.
func (g *glances) get(inode uint32, keys []sockdiag.Key) []fact.Socket {
	getter := g.getters[inode]
	if getter == nil {
		i := g.find(inode)
		if i < 0 {
			return nil
		}
		err := netns.Do(g.spaces[i], func() (err error) {
			getter, err = sockdiag.NewGetter(inode)
			return err
		})
		if err != nil {
			return nil
		}
		g.getters[inode] = getter
	}
	sockets, err := getter.Get(nil, keys)
	if err != nil {
		_ = getter.Close()
		delete(g.getters, inode)
	}
	return sockets
}

// close lets go of the namespaces.
func (g *glances) close() {
	for _, getter := range g.getters {
		_ = getter.Close()
	}
	g.getters = make(map[uint32]*sockdiag.Getter)
}

// list finds the namespaces and their own addresses, so that what stays on the
// machine is nobody's peer.
func (g *glances) list() error {
	l := look{Machine: &fact.Machine{}, want: Want{Namespaces: g.of}}
	list, err := l.choose(g.known, 0)
	if err != nil {
		return err
	}
	kept := list[:0]
	for _, ns := range list {
		known := slices.IndexFunc(g.spaces, func(old fact.Namespace) bool { return old.Inode == ns.Inode })
		if known >= 0 && !alone(g.spaces[known].Local) {
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

// alone reports a namespace that has loopback addresses and no others, so that it
// has no peers. It may get some at any time.
func alone(local []netip.Addr) bool {
	return len(local) > 0 && !slices.ContainsFunc(local, func(a netip.Addr) bool { return !a.IsLoopback() })
}

// processorTime is what this process has used of all processors.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
