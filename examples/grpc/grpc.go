// Package grpc is the recipe for gRPC.
package grpc

import (
	"context"
	"net"

	"google.golang.org/grpc"
)

// Client returns a client over connections that dial makes, which is the
// DialContext of a lifeline.Dialer:
//
//	var dialer lifeline.Dialer
//	conn, err := Client("dns:///api.example.org:443", dialer.DialContext, credentials)
//
// Calls and streams whose server goes silent return Unavailable. A status has a
// text and no cause, so errors.As does not find the *lifeline.Error; its text is
// that of the error.
//
// gRPC dials with a context of its own, in which no call's scope is to be found. A
// ClientConn belongs to the scope of its dialer: lifeline.Dialer{Scope: scope}.
//
// There is no need for grpc.WithKeepaliveParams, and none of its user time-out,
// which ends slow readers: gRPC sets that on connections of package net only.
// For a program that hangs on a host that lives, keepalive parameters do what
// they always do.
func Client(target string, dial func(ctx context.Context, network, address string) (net.Conn, error), more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, append(more, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return dial(ctx, "tcp", address)
	}))...)
}
