package lifeline

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/lifeline-go/lifeline/ledger"
)

// Listen listens under the recommended policy; see [ListenConfig.Listen].
func Listen(network, address string) (net.Listener, error) {
	var lc ListenConfig
	return lc.Listen(context.Background(), network, address)
}

// ListenConfig listens as [net.ListenConfig] does, and the TCP connections that
// are accepted are [*Conn]. It and they are in package ledger's list of what is
// open. The zero value is the recommended one.
type ListenConfig struct {
	Policy Policy

	// Scope owns the listener and what it accepts; nil means the scope of the
	// context. Beyond its limit connections are accepted and closed, and Accept
	// returns an error that is Temporary.
	Scope *Scope

	// Net is how to listen otherwise. Its keepalive does not hold, and neither
	// does multipath TCP, which has its own timers.
	Net net.ListenConfig
}

// Listen returns a listener for the address. It has the methods SetDeadline and
// SyscallConn, and NetListener, which returns that of package net. The context
// bounds the look-up of the address, not the listener.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if err := ledger.Room(ctx, lc.Scope); err != nil {
		return nil, refused("listen", address, err)
	}
	config := lc.Net
	config.KeepAliveConfig = lc.Policy.keepAliveConfig()
	config.SetMultipathTCP(false)
	ln, err := config.Listen(ctx, network, address)
	if isExhausted(err) {
		return nil, exhausted("listen", address, err)
	}
	listens, ok := ln.(listens)
	if err != nil || !ok {
		return ln, err
	}
	ticket, err := ledger.Enter(ctx, lc.Scope, "listen", ln)
	if err != nil {
		_ = ln.Close()
		return nil, refused("listen", address, err)
	}
	return owned(&listener{listens, lc.Policy, ticket}, ticket), nil
}

// listens is what the listeners of package net have in common.
type listens interface {
	net.Listener
	SetDeadline(t time.Time) error
	syscall.Conn
}

// listener wraps what it accepts.
type listener struct {
	listens
	policy Policy
	ticket *ledger.Ticket
}

// Accept waits for the next connection. Package net has set its keepalive.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.listens.Accept()
	switch {
	case err == nil:
		l.ticket.Use()
		return l.policy.own(context.Background(), l.ticket.Scope(), "accept", conn)
	case isExhausted(err):
		return nil, exhausted("accept", l.Addr().String(), err)
	case l.ticket.Ended() && errors.Is(err, net.ErrClosed):
		return nil, &Error{Promise: Leaks, Op: "accept", Peer: l.Addr().String(), Kind: ErrScopeClosed, Err: err}
	}
	return nil, err
}

func (l *listener) Close() error { return closed(l.ticket, l.listens) }

// NetListener returns the listener of package net. Close this one nevertheless.
func (l *listener) NetListener() net.Listener {
	l.ticket.Share()
	return l.listens
}
