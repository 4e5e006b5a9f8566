package ssh

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

const (
	// closePatience bounds what Close waits for goroutines, which end by
	// themselves unless a function of the caller holds them.
	closePatience = 500 * time.Millisecond

	// deathNotice is how long the connection's own end may come later than the
	// end of a channel that it caused: x/crypto tells the channels first.
	deathNotice = 200 * time.Millisecond

	// closeGrace is how long a server may take to close a channel that was closed
	// here, before the channel counts as abandoned.
	closeGrace = 5 * time.Second

	// mostAbandoned is how many channels may be given up and not closed by the
	// server. Each costs memory here and often a session there.
	mostAbandoned = 100
)

// Client is a connection to an SSH server. Its methods may be called by many
// goroutines. It must be closed.
type Client struct {
	host      string
	conn      xssh.Conn
	wire      *wire
	budgets   Budgets // settled
	liveness  Liveness
	maxOutput int
	crew      crew
	listeners listeners
	abandoned atomic.Int64 // calls and channels that were given up and have not ended
}

// start sets the goroutines of an authenticated connection to work.
func (c *Client) start(channels <-chan xssh.NewChannel, requests <-chan *xssh.Request) {
	ask := make(chan struct{}, 1)
	c.crew.start(func() {
		err := c.conn.Wait()
		c.wire.kill(fmt.Errorf("%w: %w", ErrDisconnected, err))
	})
	c.crew.start(func() { c.askAlive(ask) })
	c.crew.start(func() {
		c.wire.watch(c.liveness, func() {
			select {
			case ask <- struct{}{}:
			default: // one is unanswered, so another would not be answered sooner
			}
		})
	})
	c.crew.start(func() { answerRequests(requests) })
	c.crew.start(func() { c.acceptChannels(channels) })
}

// askAlive sends one keepalive at a time and waits for its answer for as long
// as the connection lives: so no answer can come too late, and be taken for
// that to a later one.
func (c *Client) askAlive(ask <-chan struct{}) {
	for {
		select {
		case <-c.wire.dead:
			return
		case <-ask:
		}
		_, _, _ = c.conn.SendRequest("keepalive@openssh.com", true, nil) // what matters is that something comes
		select {
		case <-ask: // asked while the answer was on its way
		default:
		}
	}
}

// answerRequests refuses what a server asks. It must be drained, or x/crypto
// reads no more.
func answerRequests(requests <-chan *xssh.Request) {
	for request := range requests {
		_ = request.Reply(false, nil)
	}
}

// rejectChannels refuses the channels that a server opens, of which it was
// asked for none.
func rejectChannels(channels <-chan xssh.NewChannel) {
	for channel := range channels {
		_ = channel.Reject(xssh.UnknownChannelType, "not asked for")
	}
}

// Host returns the address as it was dialed.
func (c *Client) Host() string { return c.host }

// Metadata returns what was said in the handshake: user, versions, addresses.
func (c *Client) Metadata() xssh.ConnMetadata { return c.conn }

// Done is closed when the connection has ended; [Client.Err] says why.
func (c *Client) Done() <-chan struct{} { return c.wire.dead }

// Err returns how the connection ended, an [*Error], and nil while it lives.
func (c *Client) Err() error {
	select {
	case <-c.wire.dead:
		return &Error{Phase: Idle, Host: c.host, Err: c.wire.cause}
	default:
		return nil
	}
}

// LastHeard returns when the last byte came from the server.
func (c *Client) LastHeard() time.Time { return c.wire.lastHeard() }

// Bound returns how long calls of this client can take at most; a command with
// budgets of its own has its own. Nothing takes longer than its context, but
// for [Budgets].Cancel.
func (c *Client) Bound() Bound {
	b := c.budgets
	return Bound{
		Silence: c.liveness.Silence,
		Dial:    sum(b.Connect, b.Handshake, b.Authentication),
		Start:   sum(b.ChannelOpen, b.Request),
		Command: sum(b.Total, b.Cancel),
	}
}

// Close ends the connection and all calls on it, and waits for the goroutines
// of this package, for half a second at most: longer than that only a function
// of the caller holds one. Remote commands are not told; cancel their context
// first. Closing again does nothing.
func (c *Client) Close() error {
	c.wire.kill(ErrClosed)
	deadline := time.NewTimer(closePatience)
	defer deadline.Stop()
	for _, ended := range []<-chan struct{}{c.wire.closed, c.crew.ended()} {
		select {
		case <-ended:
		case <-deadline.C:
			return nil
		}
	}
	return nil
}

// shut closes a channel and waits until the server has closed it too. From a
// while on it counts as abandoned.
func (c *Client) shut(channel xssh.Channel, closed <-chan struct{}) {
	_ = channel.Close()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
		c.abandoned.Add(1)
		<-closed
		c.abandoned.Add(-1)
	}
}

// fail makes the error of a call.
func (c *Client) fail(phase Phase, fate Fate, began time.Time, err error) *Error {
	return &Error{Phase: phase, Host: c.host, Elapsed: time.Since(began), Fate: fate, Err: err}
}

// because returns why the connection ended, if that is what made err: x/crypto
// forgets it.
func (c *Client) because(err error) error {
	timer := time.NewTimer(deathNotice)
	defer timer.Stop()
	select {
	case <-c.wire.dead:
		return c.wire.cause
	case <-timer.C:
		return err
	}
}

// await runs f, which may wait in x/crypto for ever, and returns when it does,
// or when the context or the connection ends. If f returns only after that, late
// gets what it returned; it must not wait. Until then f counts as abandoned.
func await[T any](ctx context.Context, c *Client, f func() (T, error), late func(T)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	outcomes, left := make(chan outcome), make(chan struct{})
	var none T
	if err := c.over(ctx); err != nil {
		return none, err
	}
	c.crew.start(func() {
		value, err := f()
		select {
		case outcomes <- outcome{value, err}:
		case <-left:
			if err == nil && late != nil {
				late(value)
			}
			c.abandoned.Add(-1)
		}
	})
	leave := func(err error) (T, error) {
		c.abandoned.Add(1)
		close(left)
		return none, err
	}
	select {
	case o := <-outcomes:
		return o.value, o.err
	case <-ctx.Done():
		return leave(context.Cause(ctx))
	case <-c.wire.dead:
		return leave(c.wire.cause)
	}
}

// over returns why nothing can be begun any more.
func (c *Client) over(ctx context.Context) error {
	select {
	case <-c.wire.dead:
		return c.wire.cause
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
		return nil
	}
}

// A crew is goroutines that somebody waits for, with a bound. A
// sync.WaitGroup may not be waited for while more begin.
type crew struct {
	mu   sync.Mutex
	busy int
	free chan struct{} // closed when nobody is busy; nil when nobody waits
}

func (c *crew) start(f func()) {
	c.mu.Lock()
	c.busy++
	c.mu.Unlock()
	go func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.busy--; c.busy == 0 && c.free != nil {
				close(c.free)
				c.free = nil
			}
		}()
		f()
	}()
}

// ended is closed when all have ended.
func (c *crew) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy == 0 {
		none := make(chan struct{})
		close(none)
		return none
	}
	if c.free == nil {
		c.free = make(chan struct{})
	}
	return c.free
}

// address adds the port of SSH where there is none.
func address(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return net.JoinHostPort(host, "22")
}
