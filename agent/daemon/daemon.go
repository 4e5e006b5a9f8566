// Package daemon keeps watch: it asks every source again and again, each at its
// own pace and none able to hold up another, and publishes what is known as one
// [state.State] after another.
package daemon

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// calmest is how far apart States are at the least.
	calmest = 250 * time.Millisecond

	// pulse is how often is looked for sources that are late.
	pulse = time.Second

	// remembered is how often a State comes although nothing changed: what the
	// agent itself uses is in it.
	remembered = 10 * time.Second

	// goodbye is how long sources may take to end.
	goodbye = 4 * time.Second
)

// Options say what to watch. The zero Options watch all, and send no more than
// lifeline check and lifeline silence --watch do: questions to nameservers, and
// pokes to suspects.
type Options struct {
	Version string           // of the agent, as it is published
	Rights  profile.Standing // of the agent, as they are published; they allow and forbid nothing
	Naming  node.Naming      // what to look at of names; the nameservers are asked whatever its Probe says, unless Passive
	Passive bool             // send nothing: ask no nameserver, poke nobody
	History string           // where its history is kept, as it is published; "" = nowhere

	Namespaces node.Namespaces // what is looked at; leaks are always those of all
}

// Daemon watches this machine. Use [New], then [Daemon.Run], once.
type Daemon struct {
	options Options
	host    string
	run     string // its name
	started time.Time
	sources []*source

	mu    sync.Mutex // of known, and what the sources say of themselves
	known known
	dirty chan struct{} // something in known has changed

	usages    []usage // of publish alone
	published atomic.Pointer[state.State]
	news      struct {
		sync.Mutex
		next chan struct{} // closed when there is a new State
	}

	peersLooked atomic.Pointer[time.Time] // when the watch of peers looked last; nil = not yet

	notStored atomic.Pointer[string] // why no history is written; nil = nobody said yet

	// looking is held by who reads the census, so that its room is not used again
	// meanwhile.
	looking sync.RWMutex
	census  *fact.Machine
	spaces  node.Spaces // for those who count something in each namespace
	purse   purse       // of the census
}

// New returns a Daemon that has not begun. It looks at nothing yet.
func New(o Options) *Daemon {
	d := &Daemon{options: o, run: rand.Text()[:12], started: time.Now(), dirty: make(chan struct{}, 1)}
	d.host, _ = os.Hostname() // the census knows it too
	d.news.next = make(chan struct{})
	d.sources = d.all()
	d.publish()
	return d
}

// State returns the latest State; there always is one.
func (d *Daemon) State() *state.State { return d.published.Load() }

// SetHistory says how it stands with the history: problem is why it is not
// written, "" when it is. The next State says so, at once when that is news.
func (d *Daemon) SetHistory(problem string) {
	if was := d.notStored.Swap(&problem); was == nil || *was != problem {
		d.take(func(*known) {})
	}
}

// SetActs says what was done to connections, and what may be. Nothing of it is
// changed afterwards. When something was done that is counted anew at once.
func (d *Daemon) SetActs(now state.Doings) {
	acts := now.Acts
	anew := len(acts) > 0 && acts[0].Ended != nil && acts[0].Done > 0
	d.take(func(k *known) {
		was := k.doings.Acts
		anew = anew && len(was) > 0 && (was[0].ID != acts[0].ID || was[0].Ended == nil) // what was done before this run is counted already
		k.doings = now
	})
	if anew {
		d.hurry(fromCensus)
	}
}

// Wait returns the latest State as soon as its number is greater than seq. It
// ends with the error of ctx.
func (d *Daemon) Wait(ctx context.Context, seq uint64) (*state.State, error) {
	for {
		d.news.Lock()
		next := d.news.next
		d.news.Unlock()
		if s := d.State(); s.Seq > seq {
			return s, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Connections returns what a query finds in the last census. Before the first it
// finds nothing, at the zero time.
func (d *Daemon) Connections(_ context.Context, q state.Query) (state.Connections, error) {
	d.looking.RLock()
	defer d.looking.RUnlock()
	if d.census == nil {
		return state.Connections{List: []state.Connection{}}, nil
	}
	return connections(d.census, q)
}

// WhatIf returns what the death of a network, or of the one peer that it is,
// would do, by the last census, to all or to those of one network namespace.
// Before the first the error is [state.ErrNotYet].
func (d *Daemon) WhatIf(_ context.Context, dead netip.Prefix, netns uint32) (state.Loss, error) {
	d.looking.RLock()
	defer d.looking.RUnlock()
	if d.census == nil {
		return state.Loss{}, state.ErrNotYet
	}
	d.mu.Lock()
	flows := d.known.flows
	d.mu.Unlock()
	return whatIf(d.census, flows, dead, netns), nil
}

// Run watches until ctx ends, and returns nil then. A source that does not end
// within 4 s is left behind, and named in the error.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan *source, len(d.sources)) // who is left behind is not kept waiting
	for _, s := range d.sources {
		go func() {
			d.follow(ctx, s)
			ended <- s
		}()
	}
	d.publishing(ctx)
	stop()
	left := slices.Clone(d.sources)
	late := time.NewTimer(goodbye)
	defer late.Stop()
	for len(left) > 0 {
		select {
		case s := <-ended:
			left = slices.DeleteFunc(left, func(l *source) bool { return l == s })
		case <-late.C:
			var names []string
			for _, s := range left {
				names = append(names, s.name)
			}
			return fmt.Errorf("did not end within %v, and was left behind: %s", goodbye, strings.Join(names, ", "))
		}
	}
	return nil
}

// publishing makes States until ctx ends.
func (d *Daemon) publishing(ctx context.Context) {
	beat := time.NewTicker(pulse)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.dirty:
		case <-beat.C:
			if !d.turned(time.Now()) && time.Since(d.State().Time) < remembered {
				continue
			}
		}
		d.publish()
		select { // what comes meanwhile is in the next
		case <-ctx.Done():
			return
		case <-time.After(calmest):
		}
	}
}

// take lets a source add to what is known.
func (d *Daemon) take(add func(*known)) {
	d.mu.Lock()
	add(&d.known)
	d.mu.Unlock()
	select {
	case d.dirty <- struct{}{}:
	default: // it is dirty already
	}
}

// publish makes a State of what is known now.
func (d *Daemon) publish() {
	now := time.Now()
	s := &state.State{Schema: "lifeline/v1", Host: d.host, Time: now, Run: d.run, Seq: 1}
	if last := d.State(); last != nil {
		s.Seq = last.Seq + 1
	}
	s.Agent = d.self(now)
	d.mu.Lock()
	d.known.fill(s, now)
	for _, source := range d.sources {
		s.Sources = append(s.Sources, source.state(now))
	}
	d.mu.Unlock()
	s.Promises = promises(s)
	d.published.Store(s)
	d.news.Lock()
	close(d.news.next)
	d.news.next = make(chan struct{})
	d.news.Unlock()
}
