package ssh

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline"
)

// Forwarding says how connections are forwarded. The zero value is the
// recommended one.
type Forwarding struct {
	// Most is how many connections there may be at a time. More wait to be
	// accepted. Zero means 100.
	Most int
	// Failed is told of each connection that could not be made on, with where it
	// came from. It is called by many goroutines. The others go on.
	Failed func(from net.Addr, err error)
	// Policy is for the connections that ForwardRemote makes here.
	Policy lifeline.Policy
}

// ForwardLocal passes the connections of a listener here on to an address as
// the server sees it, as ssh -L does, each within Budgets.ChannelOpen. It
// returns when ctx ends, the listener or the client: the listener and all
// connections are closed then, and nothing is left behind. The end of each
// direction is passed on by itself; a connection that fails on one side is
// closed on both.
//
// Who can reach the listener reaches the address: listen on loopback.
func (c *Client) ForwardLocal(ctx context.Context, ln net.Listener, to string, f Forwarding) error {
	return c.forward(ctx, ln, f, func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, "tcp", to) })
}

// ForwardRemote has the server listen on a TCP address (see [Client.Listen]) and
// passes what it accepts on to an address as it is seen here, as ssh -R does. It
// ends as [Client.ForwardLocal] does.
func (c *Client) ForwardRemote(ctx context.Context, at, to string, f Forwarding) error {
	ln, err := c.Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	dialer := lifeline.Dialer{Policy: f.Policy}
	return c.forward(ctx, ln, f, func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", to) })
}

// forward relays what a listener accepts until something ends.
func (c *Client) forward(ctx context.Context, ln net.Listener, f Forwarding, dial func(context.Context) (net.Conn, error)) error {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	var relays sync.WaitGroup
	defer relays.Wait()
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer func() { stop(); _ = ln.Close() }()
	watched := make(chan struct{})
	defer close(watched)
	relays.Go(func() {
		select {
		case <-c.wire.dead:
			cancel(c.wire.cause)
		case <-watched:
		}
	})
	room := make(chan struct{}, cmp.Or(max(f.Most, 0), 100))
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return c.fail(Run, NotSent, began, context.Cause(ctx))
		}
		from, err := accept(ctx, ln)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return c.fail(Run, NotSent, began, err)
		}
		relays.Go(func() {
			defer func() { <-room }()
			defer from.Close()
			to, err := dial(ctx)
			if err != nil {
				if f.Failed != nil && ctx.Err() == nil {
					f.Failed(from.RemoteAddr(), err)
				}
				return
			}
			defer to.Close()
			relay(ctx, from, to)
		})
	}
}

// acceptPause is what is waited after an Accept that may succeed later, as when
// there are too many files open.
const acceptPause = 100 * time.Millisecond

func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for {
		conn, err := ln.Accept()
		var passing interface{ Temporary() bool }
		if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) || !errors.As(err, &passing) || !passing.Temporary() {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(acceptPause):
		}
	}
}

// relay copies in both directions until both have ended, one has failed, or ctx
// ends.
func relay(ctx context.Context, a, b net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _, _ = a.Close(), b.Close() })
	defer stop()
	one := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		half, ok := to.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			cancel()
		}
	}
	var back sync.WaitGroup
	back.Go(func() { one(a, b) })
	one(b, a)
	back.Wait()
}
