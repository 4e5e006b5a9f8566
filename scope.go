package lifeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/lifeline-go/lifeline/ledger"
)

// Scope is an owner of connections: what is still open in it when it is closed
// is closed with it. See [ledger.Scope].
//
//	scope := lifeline.NewScope("build 42")
//	defer scope.Close() // and tells what was left open, with the line that opened it
//	err := run(scope.Context(ctx))
//
// Read and Write of a connection that its scope closed return an [*Error] that is
// [ErrScopeClosed], as does an attempt to open one in it. Beyond its limit
// ([ledger.Scope.SetLimit]) they return one that is [ErrTooMany].
type Scope = ledger.Scope

// NewScope returns a scope. Its own method NewScope returns one within it.
func NewScope(name string) *Scope { return ledger.NewScope(name) }

// own puts a connection of package net into the ledger, and TCP under the
// policy, which has set the keepalive. On error it closes the connection.
func (p Policy) own(ctx context.Context, scope *Scope, op string, conn net.Conn) (net.Conn, error) {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn, *net.UDPConn, *net.IPConn:
	default:
		return conn, nil // nobody would tell the ledger of its Close
	}
	ticket, err := ledger.Enter(ctx, scope, op, conn)
	if err != nil {
		_ = conn.Close()
		return nil, refused(op, conn.RemoteAddr().String(), err)
	}
	switch conn := conn.(type) {
	case *net.TCPConn:
		p.armRetries(conn)
		return p.watch(conn, ticket), nil
	case *net.UnixConn:
		return owned(&unixConn{conn, ticket}, ticket), nil
	case *net.UDPConn:
		return owned(&udpConn{conn, ticket}, ticket), nil
	}
	return owned(&ipConn{conn.(*net.IPConn), ticket}, ticket), nil
}

// owned tells the ledger when the garbage collector finds that nobody can close
// what the ticket is for.
func owned[T any](of *T, ticket *ledger.Ticket) *T {
	runtime.AddCleanup(of, (*ledger.Ticket).Drop, ticket)
	return of
}

// refused returns the error of what a scope does not let be opened.
func refused(op, peer string, err error) *Error {
	kind := ErrTooMany
	if errors.Is(err, ledger.ErrClosed) {
		kind = ErrScopeClosed
	}
	return &Error{Promise: Leaks, Op: op, Peer: peer, Kind: kind, Err: err}
}

// exhausted returns the error of a process that may not open more files, with
// what has most of them open, as far as the ledger knows.
func exhausted(op, peer string, err error) *Error {
	if open, most, of := ledger.Most(); of > 0 {
		err = fmt.Errorf("%w; of %d connections in the ledger, %d were opened by %s", err, open, of, most)
	}
	return &Error{Promise: Leaks, Op: op, Peer: peer, Kind: ErrTooMany, Err: err}
}
