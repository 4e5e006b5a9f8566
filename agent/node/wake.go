package node

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/agent/source/tcpevent"
)

// word is what the kernel tells a watch.
type word struct {
	look     []netip.Addr // these leave something unanswered, for longer than a segment that was lost takes
	anybody  bool         // the kernel could not tell who else does
	asked    []question   // somebody was asked just now
	pressing bool         // it is not only about probes of peers that answered the last one
	complete bool         // whether every peer that leaves a probe unanswered is told of
}

// question is what a peer was asked a moment ago: a keepalive probe, or data that
// was sent again for the first time, as happens to whoever lives and loses a segment.
type question struct {
	netns uint32
	key   sockdiag.Key
	data  bool // it is data
	at    time.Time
	due   time.Time // when its answer is seen to
}

// listen returns a channel that says what a watch of the chosen namespaces
// should see to, with some ten words a second at most, and how to end that. Where BPF
// is not to be had it never says anything: looks come at their own pace then, and
// find the same up to 3 s later.
func (n *Node) listen(ctx context.Context, of Namespaces) (words <-chan word, stop func()) {
	if n.withoutBPF {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	said := make(chan word, 1)
	var listener sync.WaitGroup
	listener.Go(func() { forward(ctx, of, said) })
	return said, func() { cancel(); listener.Wait() }
}

// forward says what events tell, until ctx ends or there are no more: looks have
// to come more often then.
func forward(ctx context.Context, of Namespaces, said chan<- word) {
	events, err := tcpevent.Open() // takes a while, which the first look need not wait for
	if err != nil {
		return
	}
	defer events.Close()
	w := word{complete: events.Probes()}
	for ctx.Err() == nil {
		select {
		case said <- w:
		case <-ctx.Done():
			return
		}
		if err != nil || w.pressing && sleep(ctx, wakened) != nil { // the others are told of seldom
			return
		}
		for w = (word{}); err == nil && w.silent(); {
			var batch tcpevent.Batch
			batch, err = events.Next(ctx)
			w = heard(batch, of, time.Now(), monotonic())
			w.complete = err == nil && events.Probes()
		}
	}
}

// silent says that there is nothing to see to.
func (w *word) silent() bool { return len(w.look) == 0 && !w.anybody && len(w.asked) == 0 }

// heard is what a batch says of the peers of the chosen namespaces, now that the
// monotonic clock shows so much. A connection that is not yet open, or that its
// program has closed, tells nothing of who answers.
// Data that is sent a second time again is worth a look by itself.
func heard(b tcpevent.Batch, of Namespaces, now time.Time, clock time.Duration) word {
	w := word{anybody: b.Lost > 0, pressing: b.Lost > 0}
	for _, e := range b.Events {
		if of.inode != 0 && of.inode != e.Netns || e.State != fact.Established && e.State != fact.CloseWait {
			continue
		}
		w.pressing = w.pressing || e.Kind == tcpevent.Retransmit || e.Unanswered > 0
		if e.Retransmits > 1 {
			w.look = append(w.look, e.Remote.Addr())
			continue
		}
		key := sockdiag.Key{Local: e.Local, Remote: e.Remote, Interface: e.Interface, Cookie: e.Cookie}
		q := newQuestion(e.Netns, key, now.Add(e.At-clock))
		q.data = e.Kind == tcpevent.Retransmit
		w.asked = append(w.asked, q)
	}
	return w
}

// monotonic is the clock that the kernel's events go by.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0 // the kernel has had it since Linux 2.6
	}
	return time.Duration(now.Nano())
}

const (
	// answered is when an answer is seen to: what was not answered by then on a
	// short path will hardly be.
	answered = 150 * time.Millisecond

	// lonely is for how long one connection alone is no word about its peer: others to
	// it, which are asked meanwhile, may show that it lives. One probe that was lost
	// would else cost a look, each of which has the kernel walk through all sockets.
	lonely = 3 * time.Second

	// getting: to see to answers takes one part in so many of a processor at the most.
	getting = 400

	// With mostQuestions answers to see to, no other peer is added, and of each there
	// are mostOfPeer at the most: the first and the last. Whoever is passed over is
	// seen to with its next probe or look.
	mostQuestions = 128
	mostOfPeer    = 4
)

func newQuestion(netns uint32, key sockdiag.Key, at time.Time) question {
	return question{netns: netns, key: key, at: at, due: at.Add(answered)}
}

// open reports that a connection still waits for the answer.
func (q *question) open(c *fact.Conn) bool {
	if q.data {
		return c.Retransmits > 0 && c.Unacked > 0
	}
	return c.Probes > 0 && c.Unacked == 0
}

func (q *question) peer() end {
	return end{netns: q.netns, iface: q.key.Interface, addr: q.key.Remote.Addr()}
}

// questions are those whose answers are waited for: to look at one socket alone
// takes some microseconds, and at all those of a machine up to some 10 ms.
type questions struct {
	open []question
	rest time.Time // none is seen to before that
}

func (q *questions) add(asked ...question) {
	for _, a := range asked {
		same, last := 0, 0
		for i := range q.open {
			if q.open[i].peer() == a.peer() {
				same, last = same+1, i
			}
		}
		switch {
		case same == mostOfPeer: // an answer to it clears those before
			q.open[last] = a
		case same > 0 || len(q.open) < mostQuestions:
			q.open = append(q.open, a)
		}
	}
}

// next is when an answer is to be seen to; in an hour without questions.
func (q *questions) next(now time.Time) time.Time {
	next := now.Add(time.Hour)
	for i := range q.open {
		if q.open[i].due.Before(next) {
			next = q.open[i].due
		}
	}
	if next.Before(q.rest) {
		return q.rest
	}
	return next
}

// pay has the next answers wait until the last ones, which took so much of a
// processor, are paid for.
func (q *questions) pay(now time.Time, cost time.Duration) { q.rest = now.Add(cost * getting) }

// unanswered sees to the answers that should be there by now, by get, and returns
// the peers of which two are not, or one for long, and nothing else came since, nor a
// moment before: where many are asked together, as connections are that began
// together, one that is lost is no sign of death. Who dies in that moment is found by
// what comes next. What cannot be read shows nothing.
func (q *questions) unanswered(now time.Time, get func(netns uint32, keys []sockdiag.Key) []fact.Socket) (found []netip.Addr) {
	all := make(map[uint32][]question)
	for _, o := range q.open {
		all[o.netns] = append(all[o.netns], o)
	}
	q.open = q.open[:0]
	life := make(map[end]time.Time)
	var waiting []question
	for netns, asked := range all {
		keys := make([]sockdiag.Key, len(asked))
		for i := range asked {
			keys[i] = asked[i].key
		}
		for _, s := range get(netns, keys) {
			at := slices.IndexFunc(asked, func(o question) bool { return o.key.Local == s.Local && o.key.Remote == s.Remote })
			if at < 0 || s.Conn == nil {
				continue
			}
			o := asked[at]
			if heard := now.Add(-s.Conn.Heard()); heard.After(life[o.peer()]) {
				life[o.peer()] = heard
			}
			if o.open(s.Conn) {
				o.due = o.at.Add(answered + 2*s.Conn.RTT)
				waiting = append(waiting, o)
			}
		}
	}
	overdue := make(map[end]int)
	for i := range waiting {
		if !now.Before(waiting[i].due) {
			overdue[waiting[i].peer()]++
		}
	}
	for _, o := range waiting {
		last := o.due.Add(lonely)
		switch {
		case life[o.peer()].After(o.at.Add(-answered)):
		case now.Before(o.due):
			q.open = append(q.open, o)
		case overdue[o.peer()] == 1 && now.Before(last):
			o.due = last
			q.open = append(q.open, o)
		default:
			found = append(found, o.key.Remote.Addr())
		}
	}
	return found
}
