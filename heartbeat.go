package lifeline

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

const (
	defaultEvery  = 25 * time.Second
	defaultWithin = 10 * time.Second
	leastBeat     = 100 * time.Millisecond
	mostBeat      = time.Hour

	// A turn of the wheel is this part of the shorter of Every and Within, and
	// between the two limits, so that neither costs much.
	turnsPerBeat = 100
	leastTurn    = 10 * time.Millisecond
	mostTurn     = time.Second
)

// Heartbeat asks the programs at the other end of any number of connections
// whether they still answer: by the ping of WebSocket, a keepalive request of
// SSH, or a question of a protocol of your own. A [Conn] notices a host that
// died; this notices a program that hangs on a host that lives, and it keeps
// proxies on the way from ending connections that are idle.
//
// The zero value is ready and recommended. Use one for all connections: it has
// one goroutine and one ticker, which are there while anything is added, and
// keeps some 100 bytes for a connection. Set the fields before the first Add,
// and do not copy it.
//
// A ping that is not answered within Within ends the matter: dead is told, and
// the connection is forgotten. So a program that hangs is noticed within
// [Heartbeat.Bound]. The time is counted in turns of the wheel, which stand
// still when this process or machine does: its own pause is not held against
// its peers.
type Heartbeat struct {
	// Every is the longest time from one answer to the next question. Waits are
	// random between three quarters of it and all of it, and the first between
	// nothing and all, so that thousands of connections that were made, or heard
	// from, at the same moment are not asked at the same moment. Zero means 25 s.
	// Less than 100 ms is taken as 100 ms, more than an hour as an hour.
	//
	// 25 s is below the idle time-outs that proxies and load balancers come
	// with, which are 30 s and more, mostly 60 s. It is also what Socket.IO and
	// Centrifugo have.
	Every time.Duration

	// Within is how long an answer may take. Zero means 10 s: enough for three
	// losses on the way, or for a program that pauses for some seconds. The
	// limits are those of Every.
	Within time.Duration

	now  atomic.Uint64 // turns made so far
	once sync.Once     // sets what follows from the fields, in turns

	turn          time.Duration
	every, within uint64

	mu      sync.Mutex
	slots   []*Beat // by due % len(slots): lists of those that are due in that turn
	beats   int     // in all slots
	running bool    // the goroutine is there
}

// Beat is a connection of a [Heartbeat].
type Beat struct {
	of    *Heartbeat
	peer  string
	ping  func(context.Context) error
	dead  func(error)
	heard atomic.Uint64 // turn in which the peer answered or sent something last

	// These are guarded by the lock of its Heartbeat.
	next, prev *Beat
	due        uint64
	known      uint64             // heard, when it was last decided what to do next
	forget     context.CancelFunc // ends the question that is under way, nil when there is none
	over       bool               // stopped or given up
}

// Add asks a peer by ping from now on, until [Beat.Stop]; peer is its name in
// errors.
//
// The function ping asks and waits for the answer: it returns nil when the peer
// has answered, and must return when its context is done, which carries no
// deadline but ends after Within. It has a goroutine of its own, and there is
// never more than one of it for a connection. One that does not heed its
// context holds up nobody; but its goroutine stays until it returns.
//
// The function dead is called at most once, in a goroutine of its own, and
// should close the connection, which also ends such a ping. Its error is an
// [*Error] of kind [ErrMute] when there was no answer in time, and otherwise what
// ping has returned: the connection has ended for a reason of its own.
func (h *Heartbeat) Add(peer string, ping func(ctx context.Context) error, dead func(err error)) *Beat {
	h.once.Do(h.settle)
	b := &Beat{of: h, peer: peer, ping: ping, dead: dead}
	h.mu.Lock()
	defer h.mu.Unlock()
	b.Alive()
	b.known = b.heard.Load()
	h.beats++
	b.link(b.known + 1 + rand.N(h.every))
	if !h.running {
		h.running = true
		go h.run()
	}
	return b
}

// Bound is how long a program that hangs can go unnoticed: Every and Within
// together.
func (h *Heartbeat) Bound() time.Duration {
	return settledBeat(h.Every, defaultEvery) + settledBeat(h.Within, defaultWithin)
}

// Alive says that something was received from the peer just now. It is never
// needed. Called after each read it saves the question to peers that are heard
// from anyway, and the life of one whose answer is queued behind a large
// message. It costs a few nanoseconds and takes no lock.
func (b *Beat) Alive() { b.heard.Store(b.of.now.Load()) }

// Stop ends the questions; one that is under way has its context cancelled.
// Afterwards dead is not called, unless that has begun. Stop may be called
// more than once, and by dead and ping too.
func (b *Beat) Stop() {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	if !b.over {
		b.unlink()
		b.end()
	}
}

// settle fixes the wheel. It has room for the longest time anything is away.
func (h *Heartbeat) settle() {
	every, within := settledBeat(h.Every, defaultEvery), settledBeat(h.Within, defaultWithin)
	h.turn = min(max(min(every, within)/turnsPerBeat, leastTurn), mostTurn)
	h.every, h.within = uint64(every/h.turn), uint64(within/h.turn)
	h.slots = make([]*Beat, max(h.every, h.within)+1)
}

func settledBeat(d, recommended time.Duration) time.Duration {
	return min(max(cmp.Or(max(d, 0), recommended), leastBeat), mostBeat)
}

func (h *Heartbeat) run() {
	ticker := time.NewTicker(h.turn)
	defer ticker.Stop()
	for range ticker.C {
		if !h.step() {
			return
		}
	}
}

// step makes one turn and reports whether there is anything to turn for.
func (h *Heartbeat) step() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.beats == 0 {
		h.running = false
		return false
	}
	now := h.now.Add(1)
	for {
		b := h.slots[now%uint64(len(h.slots))]
		if b == nil {
			return true
		}
		b.unlink()
		b.fall(now)
	}
}

// wait returns after how many turns a peer that was just heard is asked.
func (h *Heartbeat) wait() uint64 { return h.every - rand.N(h.every/4) }

// fall decides what to do with a connection that is due.
func (b *Beat) fall(now uint64) {
	h, heard, asking := b.of, b.heard.Load(), b.forget != nil
	next := heard + h.within
	if !asking {
		next = heard + h.wait()
	}
	switch {
	case heard > b.known && next > now: // heard from while it waited for its turn, or for its answer
		b.known = heard
		b.link(next)
	case !asking:
		ctx, cancel := context.WithCancel(context.Background())
		b.known, b.forget = heard, cancel
		b.link(now + h.within)
		go b.ask(ctx)
	default:
		b.end()
		go b.dead(b.mute(time.Duration(now-heard) * h.turn))
	}
}

// ask asks once.
func (b *Beat) ask(ctx context.Context) {
	err := b.ping(ctx)
	if b.answered(err) {
		b.dead(err)
	}
}

// answered takes note of what a ping has returned, and reports whether that is
// for dead to know.
func (b *Beat) answered(err error) bool {
	h := b.of
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.over {
		return false
	}
	b.unlink()
	if err != nil {
		b.end()
		return true
	}
	b.forget()
	b.forget = nil
	b.Alive()
	b.known = b.heard.Load()
	b.link(b.known + h.wait())
	return false
}

// mute returns what dead is told.
func (b *Beat) mute(quiet time.Duration) error {
	within := time.Duration(b.of.within) * b.of.turn
	return &Error{Promise: Silence, Op: "ping", Peer: b.peer, Quiet: quiet, Kind: ErrMute, Err: overdue(within)}
}

// end takes a connection that is in no list out of the count.
func (b *Beat) end() {
	b.over = true
	b.of.beats--
	if b.forget != nil {
		b.forget()
	}
}

// link puts the connection into the list of a turn to come.
func (b *Beat) link(due uint64) {
	b.due = due
	head := b.head()
	b.prev, b.next = nil, *head
	if b.next != nil {
		b.next.prev = b
	}
	*head = b
}

func (b *Beat) unlink() {
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		*b.head() = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	}
	b.next, b.prev = nil, nil
}

func (b *Beat) head() **Beat { return &b.of.slots[b.due%uint64(len(b.of.slots))] }

// overdue is context.DeadlineExceeded, in plain words.
type overdue time.Duration

func (o overdue) Error() string        { return "not answered within " + bound.Format(time.Duration(o)) }
func (o overdue) Is(target error) bool { return target == context.DeadlineExceeded }
