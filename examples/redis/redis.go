// Package redis is the recipe for Redis with go-redis.
package redis

import (
	"context"
	"net"

	"github.com/redis/go-redis/v9"
)

// Client returns a client over connections that dial makes, which is the
// DialContext of a lifeline.Dialer:
//
//	var dialer lifeline.Dialer
//	client := Client(redis.Options{Addr: "10.0.0.7:6379"}, dialer.DialContext)
//
// Ordinary commands have the bounds of go-redis: a read time-out of 3 s, and
// three more attempts. Commands that wait (BLPOP, XREAD BLOCK) and
// subscriptions have none when they are to wait for ever: these return when the
// server goes silent, with an error in which errors.As finds the
// *lifeline.Error. A command that go-redis tries again has the error of its last
// attempt, which may be that of a new connection: ErrUnanswered.
//
// A client dials for whoever comes first, and others use the connection, so a
// client belongs to a scope that lives as long as it: lifeline.Dialer{Scope: scope}.
func Client(options redis.Options, dial func(ctx context.Context, network, address string) (net.Conn, error)) *redis.Client {
	options.Dialer = dial
	return redis.NewClient(&options)
}
