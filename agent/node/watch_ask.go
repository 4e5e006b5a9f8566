package node

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

const (
	// mostPokes is how many peers are poked at the same time, and pokesPerSecond
	// how many pokes may begin. A poke of the living takes 0.1 ms of a processor,
	// one of the dead ten times that. Who has to wait is asked later, those with
	// the most connections first.
	mostPokes      = 32
	pokesPerSecond = 50

	// A suspect that answered is left alone for a while, and for longer each time:
	// a path that loses much would have it poked all the time. Who is only quiet was
	// heard by that poke, and is asked as often as the user wants.
	shortestRest = time.Second
	longestRest  = 30 * time.Second

	// returns is how often a silent peer is asked whether it is back, and for how
	// long it is listened to.
	returns   = 5 * time.Second
	returning = 300 * time.Millisecond

	// ownersApart: the search for who owns the sockets takes at most one part in
	// so many of the time, unless that were over slowestOwners.
	ownersApart   = 50
	slowestOwners = 3 * time.Second
)

// end is a peer in one namespace.
type end struct {
	netns uint32
	iface uint32
	addr  netip.Addr
}

// askee is what is known of a peer that was poked.
type askee struct {
	busy  bool
	next  time.Time // not before
	again time.Time // nor, as a suspect, before
	back  time.Time // nor, to see whether it is back, before
	rest  time.Duration
	used  time.Time
	pings act.Pings
}

// asker pokes peers beside the looks of a watch, whose goroutine is the only one
// that calls its methods.
type asker struct {
	running sync.WaitGroup
	answers chan answer
	peers   map[end]*askee
	busy    int
	allowed float64 // pokes that may begin
	counted time.Time
	refused *fact.Blind // why nobody is poked; nil while that is not so
	owners  finder
}

// answer is what came of one poke.
type answer struct {
	end    end
	began  time.Time
	silent bool // what was asked is whether it is back
	quiet  bool // it was asked for being quiet, and nothing else
	act.Confirmation
	err error
}

// newAsker returns one that pokes nobody where the rights for it are missing.
func newAsker(passive bool) *asker {
	a := &asker{answers: make(chan answer, mostPokes), peers: make(map[end]*askee), allowed: pokesPerSecond, counted: time.Now()}
	switch {
	case passive:
		a.refused = &fact.Blind{}
	case !capability.Held(unix.CAP_NET_ADMIN) || !capability.Held(unix.CAP_SYS_PTRACE):
		a.refuse(fs.ErrPermission, "CAP_NET_ADMIN and CAP_SYS_PTRACE")
	default:
		a.running.Go(a.owners.prepare)
	}
	return a
}

// refuse ends all asking: verdicts rest on looking alone.
func (a *asker) refuse(err error, needs string) {
	a.refused = &fact.Blind{Source: "pokes", Needs: needs,
		Error: "peers with few connections cannot be poked, so a verdict on them takes 5 to 15 s: " + err.Error()}
}

// blind is what a reader should know: nothing when nobody is to be poked.
func (a *asker) blind() []fact.Blind {
	if a.refused == nil || a.refused.Source == "" {
		return nil
	}
	return []fact.Blind{*a.refused}
}

// close waits for the pokes, whose context must have ended.
func (a *asker) close() {
	a.running.Wait()
	a.owners.close()
}

// ask pokes those of some peers whose turn it is, until ctx ends at the latest.
// quiet says that they are no suspects.
func (a *asker) ask(ctx context.Context, m *fact.Machine, suspects []verdict.Suspect, quiet bool) {
	if a.refused != nil {
		return
	}
	now := time.Now()
	a.allowed = min(a.allowed+now.Sub(a.counted).Seconds()*pokesPerSecond, pokesPerSecond)
	a.counted = now
	slices.SortStableFunc(suspects, func(x, y verdict.Suspect) int { return cmp.Compare(y.Count, x.Count) })
	for i := range suspects {
		s := &suspects[i]
		key := end{s.Netns, s.Interface, s.Addr}
		p := a.peers[key]
		if p == nil {
			p = &askee{}
			a.peers[key] = p
		}
		p.used = now
		ns := m.Namespace(s.Netns)
		early := now.Before(p.next) || s.Silent && now.Before(p.back) || !s.Silent && !quiet && now.Before(p.again)
		if p.busy || early || ns == nil || len(s.Sockets) == 0 {
			continue
		}
		if a.busy == mostPokes || a.allowed < 1 {
			break
		}
		p.busy = true
		a.busy++
		a.allowed--
		r := answer{end: key, silent: s.Silent, quiet: quiet, Confirmation: act.Confirmation{Pings: p.pings}}
		space, sockets := *ns, s.Sockets
		a.running.Go(func() { a.answers <- a.poke(ctx, r, space, sockets) })
	}
	for key, p := range a.peers {
		if !p.busy && now.Sub(p.used) > 2*longestRest {
			delete(a.peers, key)
		}
	}
}

// poke runs beside everything else. There is room for its answer.
func (a *asker) poke(ctx context.Context, r answer, ns fact.Namespace, sockets []*fact.Socket) answer {
	if r.silent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, returning)
		defer cancel()
	}
	a.owners.find(sockets)
	r.Confirmation, r.err = act.Confirm(ctx, ns, sockets, r.Pings)
	r.began = time.Now().Add(-r.Took)
	return r
}

// take notes what a poke brought, decides when the next one may be, and returns
// what the verdict should hear of it.
func (a *asker) take(r answer) verdict.Answer {
	a.busy--
	p := a.peers[r.end]
	p.busy, p.pings = false, r.Pings
	now := time.Now()
	switch {
	case r.silent:
		p.back = now.Add(returns)
	case r.Verdict == act.Alive && r.quiet:
	case r.Verdict == act.Alive:
		if now.Sub(p.again) > longestRest {
			p.rest = 0
		}
		p.rest = min(max(2*p.rest, shortestRest), longestRest)
		p.again = now.Add(p.rest)
	case r.Verdict == act.Silent, errors.Is(r.err, act.ErrLate):
		p.back = now.Add(returns)
	default:
		p.next = now.Add(returns)
	}
	var refused *act.Error
	if errors.As(r.err, &refused) && (errors.Is(r.err, errors.ErrUnsupported) || errors.Is(r.err, unix.EPERM)) {
		a.refuse(refused.Err, refused.Needs)
	}
	return verdict.Answer{Netns: r.end.netns, Interface: r.end.iface, Addr: r.end.addr, Began: r.began,
		Alive: r.Verdict == act.Alive, Silent: r.Verdict == act.Silent, Exchanges: r.Exchanges}
}

// finder knows who owns sockets, for pokes that run side by side.
type finder struct {
	mu   sync.Mutex
	node *Node
	next time.Time // when to look anew, at the earliest
}

// prepare opens what is costly to open, before there is a hurry.
func (f *finder) prepare() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read()
	f.node.owned = owned{}
}

func (f *finder) read() {
	if f.node == nil {
		f.node = New()
	}
	begun := time.Now()
	f.node.readOwners()
	f.next = time.Now().Add(min(ownersApart*time.Since(begun), slowestOwners))
}

// find gives sockets their owners.
func (f *finder) find(sockets []*fact.Socket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := func(s *fact.Socket) bool {
		s.Owners = f.node.owned.of(s.Inode)
		return len(s.Owners) > 0
	}
	if f.node != nil && slices.ContainsFunc(sockets, known) {
		for _, s := range sockets {
			known(s)
		}
		return
	}
	if time.Now().Before(f.next) {
		return
	}
	f.read()
	for _, s := range sockets {
		known(s)
	}
}

func (f *finder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node != nil {
		_ = f.node.Close()
	}
}
