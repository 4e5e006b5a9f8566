package lifeline

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lifeline-go/lifeline/internal/sockopt"
	"github.com/lifeline-go/lifeline/internal/tcpinfo"
	"github.com/lifeline-go/lifeline/ledger"
)

// Wrap returns the connection under the recommended policy; see [Policy.Wrap].
func Wrap(conn net.Conn) net.Conn { return Policy{}.Wrap(conn) }

// Wrap puts an open TCP connection under the policy: of the result, a [*Conn],
// every Read and Write returns when the peer is found silent. From then on use
// only the result, and close it.
//
// Other connections of package net are put into the ledger, as those of a
// [Dialer] are. What is not of package net is returned as it is, also what is
// already a *Conn. Wrap what carries the bytes, below TLS and the like: what is
// around a TCP connection hides it.
func (p Policy) Wrap(conn net.Conn) net.Conn {
	wrapped, err := p.WrapContext(context.Background(), conn)
	if err != nil { // the process has no limit that could be reached, and does not end
		return conn
	}
	return wrapped
}

// WrapContext is Wrap for a connection that belongs to the scope of the context.
// A scope that is closed, or has as much open as it may, gives an error; the
// connection is closed then.
func (p Policy) WrapContext(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(p.keepAliveConfig()) // of one that has ended, which its next Read says
	}
	wrapped, err := p.own(ctx, nil, "wrap", conn)
	if c, ok := wrapped.(*Conn); ok && c != conn { // what was written before is watched too
		c.begin()
		c.end()
	}
	return wrapped, err
}

// watch returns the connection, whose options are set.
func (p Policy) watch(tcp *net.TCPConn, ticket *ledger.Ticket) net.Conn {
	raw, err := tcp.SyscallConn()
	if err != nil { // not an open connection, as all its methods will say
		ticket.Leave()
		return tcp
	}
	return owned(&Conn{tcp: tcp, raw: raw, watch: p.rule(), ticket: ticket}, ticket)
}

// Conn is a TCP connection whose peer cannot go silent without being noticed.
// It has the methods of [net.TCPConn] except those that change keepalive, and
// except File. Errors are those of package net, except for the three that end
// a connection from outside: a silent peer, a reset, and a cut by an
// administrator give an [*Error], to every Read and Write from then on.
//
// [net.Buffers] are written one by one: their gathering write is open to
// connections of package net only, and nobody would know of the data.
type Conn struct {
	tcp   *net.TCPConn
	raw   syscall.RawConn // of tcp, to look at it
	watch rule

	ticket *ledger.Ticket // which the ledger has of it

	// state is listed when the watcher knows the connection, and beyond that
	// counts the calls that are under way, twice each.
	state  atomic.Uint32
	closed atomic.Bool           // by the program
	cause  atomic.Pointer[Error] // of its end, when that came from outside
}

const (
	listed uint32 = 1
	using  uint32 = 2
)

var (
	_ net.Conn      = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ watched       = (*Conn)(nil)
)

// Read reads as [net.TCPConn.Read].
func (c *Conn) Read(p []byte) (int, error) {
	c.begin()
	n, err := c.tcp.Read(p)
	c.end()
	if err != nil {
		err = c.explain("read", err)
	}
	return n, err
}

// Write writes as [net.TCPConn.Write].
func (c *Conn) Write(p []byte) (int, error) {
	c.begin()
	n, err := c.tcp.Write(p)
	c.end()
	if err != nil {
		err = c.explain("write", err)
	}
	return n, err
}

// ReadFrom copies from r as [net.TCPConn.ReadFrom], by sendfile or splice where
// that can be.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	c.begin()
	n, err := c.readFrom(r)
	c.end()
	if err != nil {
		err = c.explainCopy("write", err)
	}
	return n, err
}

// readFrom shows package net a connection of its own where r is one of ours.
func (c *Conn) readFrom(r io.Reader) (int64, error) {
	switch from := r.(type) {
	case *Conn:
		from.begin()
		defer from.end()
		n, err := c.tcp.ReadFrom(from.tcp)
		return n, from.explainCopy("read", err)
	case *io.LimitedReader:
		if conn, ok := from.R.(*Conn); ok {
			conn.begin()
			defer conn.end()
			rest := io.LimitedReader{R: conn.tcp, N: from.N}
			n, err := c.tcp.ReadFrom(&rest)
			from.N = rest.N
			return n, conn.explainCopy("read", err)
		}
	}
	return c.tcp.ReadFrom(r)
}

// WriteTo copies to w as [net.TCPConn.WriteTo].
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	c.begin()
	n, err := c.tcp.WriteTo(w)
	c.end()
	return n, c.explainCopy("read", err)
}

// Close closes the connection. It waits for nothing and wakes every Read and
// Write. What was written is still sent, unless [Conn.SetLinger] says otherwise;
// nobody will know whether it arrived.
func (c *Conn) Close() error {
	again := c.closed.Swap(true)
	inFlight.closed.Store(true)
	err := closed(c.ticket, c.tcp)
	if !again && c.cause.Load() != nil && errors.Is(err, net.ErrClosed) {
		return nil // it was closed when its peer was found silent, which Read and Write have told
	}
	return err
}

// CloseWrite ends the stream to the peer, whose acknowledgement of that is
// waited for as for data.
func (c *Conn) CloseWrite() error {
	c.begin()
	defer c.end()
	return c.explain("close", c.tcp.CloseWrite())
}

// CloseRead shuts down the reading side.
func (c *Conn) CloseRead() error { return c.explain("close", c.tcp.CloseRead()) }

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.tcp.LocalAddr() }

// RemoteAddr returns the address of the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// SetDeadline bounds Read and Write from now on, as [net.Conn] says.
func (c *Conn) SetDeadline(t time.Time) error { return c.explain("set deadline", c.tcp.SetDeadline(t)) }

// SetReadDeadline bounds Read from now on.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.explain("set deadline", c.tcp.SetReadDeadline(t))
}

// SetWriteDeadline bounds Write from now on.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.explain("set deadline", c.tcp.SetWriteDeadline(t))
}

// SetNoDelay is [net.TCPConn.SetNoDelay].
func (c *Conn) SetNoDelay(on bool) error { return c.tcp.SetNoDelay(on) }

// SetLinger is [net.TCPConn.SetLinger].
func (c *Conn) SetLinger(seconds int) error { return c.tcp.SetLinger(seconds) }

// SetReadBuffer is [net.TCPConn.SetReadBuffer].
func (c *Conn) SetReadBuffer(bytes int) error { return c.tcp.SetReadBuffer(bytes) }

// SetWriteBuffer is [net.TCPConn.SetWriteBuffer].
func (c *Conn) SetWriteBuffer(bytes int) error { return c.tcp.SetWriteBuffer(bytes) }

// SyscallConn gives access to the socket. What is written through it is not
// watched until the next Read or Write, and its errors are the system's.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	c.ticket.Share()
	return c.tcp.SyscallConn()
}

// NetConn returns the connection of package net. The same holds for it as for
// [Conn.SyscallConn].
func (c *Conn) NetConn() net.Conn { return given(c.tcp, c.ticket) }

// begin must be called before anything is read or written, and end after it.
// Between them the connection stays with the watcher even when nothing is
// unacknowledged, and so it is afterwards until the watcher has looked.
func (c *Conn) begin() {
	if c.state.Add(using)&listed == 0 && c.state.Or(listed)&listed == 0 {
		inFlight.add(c, c.watch)
	}
}

func (c *Conn) end() {
	c.state.Add(^(using - 1))
	if !tcpinfo.Supported() { // where the kernel does not know when it was used
		c.ticket.Use()
	}
}

// settle takes the connection off the list first and looks then: whoever begins
// to read or write in between lists it again.
func (c *Conn) settle() bool {
	if !c.state.CompareAndSwap(listed, 0) {
		return false // somebody waits, or is about to
	}
	if n, err := tcpinfo.Unacknowledged(c.raw); err != nil || n == 0 {
		return true
	}
	return c.state.Or(listed)&listed != 0
}

func (c *Conn) gone() bool { return c.closed.Load() }

func (c *Conn) look() (tcpinfo.Info, error) { return tcpinfo.Read(c.raw) }

// kept asks how keepalive is set now: the program can change it through the
// connection of package net, and lifeline tune from outside.
func (c *Conn) kept(quiet time.Duration) bool {
	on, idle, interval, err := sockopt.KeepAlive(c.raw)
	return err == nil && on && quiet >= idle+2*interval
}

// condemn closes the connection, and with a reset: what is unsent will not be
// sent, and should the peer come back, it learns at once. It does so in a
// goroutine of its own, because package net's Close waits for functions that
// the program has given to its RawConn.
func (c *Conn) condemn(quiet time.Duration) {
	if c.closed.Load() || !c.cause.CompareAndSwap(nil, c.ended("write", ErrSilent, quiet, errSilent)) {
		return
	}
	c.ticket.Leave()
	go func() {
		_ = c.tcp.SetLinger(0)
		_ = c.tcp.Close()
	}()
}

func (c *Conn) ended(op string, kind error, quiet time.Duration, err error) *Error {
	return &Error{Promise: Silence, Op: op, Peer: c.tcp.RemoteAddr().String(), Quiet: quiet, Kind: kind, Err: err}
}

// explain returns what an error of this connection means.
//
// The kernel tells of an end once, to whom asks first, and from then on of the
// end of the stream or a broken pipe. So the first is remembered for all.
func (c *Conn) explain(op string, err error) error {
	if err == nil {
		return nil
	}
	if cause := c.cause.Load(); cause != nil {
		return cause.during(op)
	}
	if c.ticket.Ended() && errors.Is(err, net.ErrClosed) {
		return outlived(op, c.tcp, err)
	}
	kind := kindOf(err)
	if kind == nil {
		return err
	}
	var quiet time.Duration
	if kind == ErrSilent || kind == ErrCut { // a reset was heard just now
		if info, err := tcpinfo.Read(c.raw); err == nil {
			quiet = info.LastAck
		}
	}
	c.cause.CompareAndSwap(nil, c.ended(op, kind, quiet, err))
	return c.cause.Load().during(op)
}

// explainCopy is explain for an error that may be of the other end of a copy:
// it is this connection's when the connection has ended.
func (c *Conn) explainCopy(op string, err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	if c.cause.Load() == nil {
		if info, failed := tcpinfo.Read(c.raw); failed != nil || !info.Closed {
			return err
		}
	}
	return c.explain(op, err)
}
