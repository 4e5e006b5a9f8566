package lifeline

import (
	"errors"
	"net"

	"github.com/lifeline-go/lifeline/ledger"
)

// unixConn, udpConn and ipConn are connections of package net that are in the
// ledger. Their peers are on this machine, or promise no answer, so that there is
// nothing to watch.
type unixConn struct {
	*net.UnixConn
	ticket *ledger.Ticket
}

type udpConn struct {
	*net.UDPConn
	ticket *ledger.Ticket
}

type ipConn struct {
	*net.IPConn
	ticket *ledger.Ticket
}

// NetConn returns the connection of package net. Close this one nevertheless.
func (c *unixConn) NetConn() net.Conn { return given(c.UnixConn, c.ticket) }

// NetConn is as for unix sockets.
func (c *udpConn) NetConn() net.Conn { return given(c.UDPConn, c.ticket) }

// NetConn is as for unix sockets.
func (c *ipConn) NetConn() net.Conn { return given(c.IPConn, c.ticket) }

func (c *unixConn) Read(p []byte) (int, error) {
	n, err := c.UnixConn.Read(p)
	return n, used(c.ticket, "read", c.UnixConn, err)
}

func (c *unixConn) Write(p []byte) (int, error) {
	n, err := c.UnixConn.Write(p)
	return n, used(c.ticket, "write", c.UnixConn, err)
}

func (c *udpConn) Read(p []byte) (int, error) {
	n, err := c.UDPConn.Read(p)
	return n, used(c.ticket, "read", c.UDPConn, err)
}

func (c *udpConn) Write(p []byte) (int, error) {
	n, err := c.UDPConn.Write(p)
	return n, used(c.ticket, "write", c.UDPConn, err)
}

func (c *ipConn) Read(p []byte) (int, error) {
	n, err := c.IPConn.Read(p)
	return n, used(c.ticket, "read", c.IPConn, err)
}

func (c *ipConn) Write(p []byte) (int, error) {
	n, err := c.IPConn.Write(p)
	return n, used(c.ticket, "write", c.IPConn, err)
}

func (c *unixConn) Close() error { return closed(c.ticket, c.UnixConn) }
func (c *udpConn) Close() error  { return closed(c.ticket, c.UDPConn) }
func (c *ipConn) Close() error   { return closed(c.ticket, c.IPConn) }

func given(conn net.Conn, ticket *ledger.Ticket) net.Conn {
	ticket.Share()
	return conn
}

// used notes that a connection was used, and returns what an error of that means.
func used(ticket *ledger.Ticket, op string, conn net.Conn, err error) error {
	ticket.Use()
	if err != nil && ticket.Ended() && errors.Is(err, net.ErrClosed) {
		return outlived(op, conn, err)
	}
	return err
}

// outlived returns the error of a connection whose scope is closed.
func outlived(op string, conn net.Conn, err error) *Error {
	return &Error{Promise: Leaks, Op: op, Peer: conn.RemoteAddr().String(), Kind: ErrScopeClosed, Err: err}
}

// closed closes a connection, or a listener, that is in the ledger. That its
// scope has done so before is no error.
func closed(ticket *ledger.Ticket, what interface{ Close() error }) error {
	ticket.Leave()
	err := what.Close()
	if errors.Is(err, net.ErrClosed) && ticket.Over() {
		return nil
	}
	return err
}
