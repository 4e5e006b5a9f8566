//go:build linux

// Package guard does what the policy allows the agent to do by itself: it cuts
// connections to peers that a finding says are silent, keeps connections of named
// cgroups tuned, and resets what this machine forwards when it is about to go.
//
// Nothing is done without a policy that allows it, and nothing that the audit log
// does not have before it is done. The acts themselves are those of package act
// and below: paced, and stopped by the first sign of life.
package guard

import (
	"context"
	"crypto/rand"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/audit"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/policy"
	"github.com/lifeline-go/lifeline/agent/state"
)

// Agent is who watches, and publishes what was done.
type Agent interface {
	State() *state.State
	Wait(ctx context.Context, seq uint64) (*state.State, error)
	SetActs(state.Doings)
}

// Options say for whom to act and where to write it down. Agent and Audit are
// needed.
type Options struct {
	Agent Agent
	Audit string          // path of the audit log
	Of    node.Namespaces // whose connections may be touched

	// NoHand is why nobody can ask for an act by hand, in words; "" where somebody
	// can.
	NoHand string

	// Told is called with each act when it begins and when it has ended, by one
	// goroutine at a time; nil means that nobody wants to know.
	Told func(state.Act)
}

// Guard acts. Use [New], [Guard.SetPolicy], and [Guard.Run] once; then
// [Guard.Close].
type Guard struct {
	options Options
	policy  atomic.Pointer[policy.Policy]
	self    int32         // whose sockets are never touched: this process
	changed chan struct{} // the policy has

	cutting chan struct{} // its one place is taken by who cuts, so that the pace is that of all
	evac    evacuation
	waits   atomic.Int64 // time.Duration that systemd waits at a shutdown; 0 = not known
	plans   plans
	hands   hands
	closing chan struct{}
	once    sync.Once

	book book
}

// New returns a Guard that has no policy, and so does nothing. It reads what was
// done before.
func New(o Options) *Guard {
	g := &Guard{options: o, self: int32(os.Getpid()), changed: make(chan struct{}, 1), cutting: make(chan struct{}, 1), closing: make(chan struct{})}
	g.policy.Store(&policy.Policy{})
	g.book.acts, _ = audit.Read(o.Audit) // who may not read it may not act either, and is told so then
	g.publish()
	return g
}

// SetPolicy puts a policy in force. What is under way and not allowed by it any
// more stops; what is still allowed goes on.
func (g *Guard) SetPolicy(p *policy.Policy) {
	g.policy.Store(p)
	g.prepare(p)
	select {
	case g.changed <- struct{}{}:
	default: // it is known that it has
	}
}

// SystemdWaits says for how long systemd would wait at a shutdown, so that a
// policy that wants more is told so.
func (g *Guard) SystemdWaits(most time.Duration) {
	g.waits.Store(int64(most))
	g.prepare(g.policy.Load())
}

// Run acts until ctx ends, and returns nil then. An act that is under way stops,
// but an evac does not: it has a bound of its own.
func (g *Guard) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { g.followFindings(ctx) })
	parts.Go(func() { g.followCgroups(ctx) })
	parts.Wait()
	return nil
}

// Close stops what was asked for by hand, waits for what is under way, and lets
// go of the audit log.
func (g *Guard) Close() error {
	g.once.Do(func() { close(g.closing) })
	g.hands.wait()
	g.evac.running.Wait()
	return g.book.close()
}

func newID() string { return rand.Text()[:12] }
