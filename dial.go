package lifeline

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/lifeline-go/lifeline/ledger"
	"github.com/lifeline-go/lifeline/names"
)

// Dialer connects as [net.Dialer] does, and its TCP connections are [*Conn].
// All of them are in package ledger's list of what is open. The zero value is the
// recommended one.
//
// Its DialContext fits wherever a program takes one:
//
//	var dialer lifeline.Dialer
//	&http.Transport{DialContext: dialer.DialContext}
//	config.DialFunc = dialer.DialContext            // pgx
//	&redis.Options{Dialer: dialer.DialContext}      // go-redis
//	grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
//		return dialer.DialContext(ctx, "tcp", addr)
//	})
type Dialer struct {
	Policy Policy

	// Names looks up the name to connect to; nil means [names.Default], which
	// answers as the operating system would, within 3 s, and remembers servers
	// that do not answer. Where Net has a Resolver, that one is asked instead.
	Names *names.Resolver

	// Scope owns the connections; nil means the scope of the context of a dial.
	// What a pool dials for one request is used by others, so a pool that more
	// than one scope uses needs a scope of its own here.
	Scope *Scope

	// Net is how to connect otherwise: from which address, with which resolver.
	// Its Timeout and Deadline hold too where they are sooner; its keepalive
	// does not, and neither does multipath TCP, which has its own timers.
	Net net.Dialer
}

// Dial is [Dialer.DialContext] without a context.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects within [Policy.Connect], name look-up included, or
// until the context is done. It tries all addresses of the name, those of both
// families in turn: the next one when one fails, and beside it when it has not
// answered for Net.FallbackDelay (300 ms unless set). An attempt that was not
// answered gives an [*Error], and so does a scope that is closed or has as much
// open as it may, and a process that may open no more files; other errors are
// those of package net.
//
// Connections other than TCP have the methods of those of package net, and
// NetConn, which returns that.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := ledger.Room(ctx, d.Scope); err != nil {
		return nil, refused("dial", address, err)
	}
	policy, began := d.Policy.settled(), time.Now()
	within, cancel := context.WithTimeout(ctx, policy.Connect)
	defer cancel()
	dialer := d.Net
	dialer.KeepAliveConfig = policy.keepAliveConfig()
	dialer.SetMultipathTCP(false)
	conn, err := d.connect(within, &dialer, network, address)
	if err != nil {
		return nil, unanswered(ctx, address, time.Since(began), err)
	}
	return policy.own(ctx, d.Scope, "dial", conn)
}

// unanswered returns the error of an attempt to connect. When the caller's own
// context is over, that is what the caller wants to know.
func unanswered(ctx context.Context, address string, took time.Duration, err error) error {
	if isExhausted(err) {
		return exhausted("dial", address, err)
	}
	var timeout net.Error
	if ctx.Err() != nil || !errors.As(err, &timeout) || !timeout.Timeout() {
		return err
	}
	if own, ok := ctx.Deadline(); ok && !time.Now().Before(own) {
		return err // package net is a moment ahead of the context
	}
	promise := Calls
	if name := (*net.DNSError)(nil); errors.As(err, &name) {
		promise = Names
	}
	return &Error{Promise: promise, Op: "dial", Peer: address, Quiet: took, Kind: ErrUnanswered, Err: err}
}
