package lifelinetest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// link is one connection: two directions, and who is at each end.
type link struct {
	network *Network
	mu      sync.Mutex
	faults  Faults
	written int64 // in both directions
	isReset bool
	ends    [2]*conn      // who dialed, who accepted
	changed chan struct{} // closed and made anew with every change, to wake all who wait
}

// conn is one end of a link. What it is to read is in it.
type conn struct {
	link         *link
	peer         *conn
	local, there where

	// Guarded by the mutex of the link.
	arrives  []segment // what the peer wrote
	size     int       // of it
	finished bool      // the peer writes no more
	closed   bool      // by this end
	deaf     bool      // CloseRead
	read     time.Time // deadlines
	write    time.Time
}

// A segment is what one Write sent.
type segment struct {
	data []byte
	at   time.Time // when it arrives
}

// link returns the ends of a new connection.
func (n *Network) link(address where) (client, server *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.port++
	l := &link{network: n, faults: n.faults, changed: make(chan struct{})}
	client = &conn{link: l, local: where(fmt.Sprintf("client:%d", n.port)), there: address}
	server = &conn{link: l, local: address, there: client.local, peer: client}
	client.peer = server
	l.ends = [2]*conn{client, server}
	if n.links == nil {
		n.links = make(map[*link]struct{})
	}
	n.links[l] = struct{}{}
	return client, server
}

// wake wakes all who wait for a change. The caller holds the lock.
func (l *link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) set(f Faults) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = f
	l.wake()
}

// reset ends the connection for both.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut()
}

// cut is reset for a caller that holds the lock.
func (l *link) cut() {
	l.isReset = true
	for _, c := range l.ends {
		c.arrives, c.size = nil, 0
	}
	l.wake()
}

func (l *link) forget() {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	delete(l.network.links, l)
}

// Read returns what has arrived, and waits for it.
func (c *conn) Read(p []byte) (int, error) {
	for {
		n, wait, until, err := c.take(p)
		if n > 0 || err != nil {
			return n, c.failed("read", err)
		}
		pause(wait, until)
	}
}

// take reads what is there. With nothing there it returns what to wait for: a
// change, or a time.
func (c *conn) take(p []byte) (n int, wait <-chan struct{}, until time.Time, err error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	held := l.faults.Silent || l.faults.Stalled && c == l.ends[1]
	switch {
	case c.closed:
		return 0, nil, until, net.ErrClosed
	case over(c.read, now):
		return 0, nil, until, os.ErrDeadlineExceeded
	case l.isReset:
		return 0, nil, until, syscall.ECONNRESET
	case c.deaf:
		return 0, nil, until, io.EOF
	case len(p) == 0:
		return 0, nil, until, nil
	case len(c.arrives) > 0 && !held && !c.arrives[0].at.After(now):
		most := len(p)
		if l.faults.Segment > 0 {
			most = min(most, l.faults.Segment)
		}
		first := &c.arrives[0]
		n = copy(p[:most], first.data)
		if first.data = first.data[n:]; len(first.data) == 0 {
			c.arrives = c.arrives[1:]
		}
		c.size -= n
		l.wake()
		return n, nil, until, nil
	case len(c.arrives) == 0 && c.finished && !held:
		return 0, nil, until, io.EOF
	}
	until = c.read
	if len(c.arrives) > 0 && !held {
		until = sooner(until, c.arrives[0].at)
	}
	return 0, l.changed, until, nil
}

// Write sends, and waits while as much is under way as may be.
func (c *conn) Write(p []byte) (written int, err error) {
	for {
		n, wait, err := c.send(p[written:])
		written += n
		if err != nil || written == len(p) {
			return written, c.failed("write", err)
		}
		if wait != nil {
			pause(wait, c.deadline())
		}
	}
}

// send writes as much as there is room for. With no room it returns what to wait
// for.
func (c *conn) send(p []byte) (n int, wait <-chan struct{}, err error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	buffer := l.faults.Buffer
	if buffer <= 0 {
		buffer = defaultBuffer
	}
	room := buffer - c.peer.size
	switch {
	case c.closed:
		return 0, nil, net.ErrClosed
	case over(c.write, time.Now()):
		return 0, nil, os.ErrDeadlineExceeded
	case l.isReset:
		return 0, nil, syscall.ECONNRESET
	case c.peer.finished: // this end has called CloseWrite
		return 0, nil, syscall.EPIPE
	case c.peer.closed && !l.faults.Silent:
		l.cut()
		return 0, nil, syscall.ECONNRESET
	case len(p) == 0:
		return 0, nil, nil
	case room <= 0:
		return 0, l.changed, nil
	}
	n = min(len(p), room)
	if left := l.faults.CutAfter - l.written; l.faults.CutAfter > 0 && int64(n) >= left {
		n = int(max(left, 0))
		l.written += int64(n)
		l.cut()
		return n, nil, syscall.ECONNRESET
	}
	l.written += int64(n)
	c.peer.arrives = append(c.peer.arrives, segment{append([]byte(nil), p[:n]...), time.Now().Add(l.faults.Delay)})
	c.peer.size += n
	l.wake()
	return n, nil, nil
}

// pause waits for a change, or a time that is not zero.
func pause(change <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-change
		return
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-change:
	case <-timer.C:
	}
}

// failed returns an error as package net has them. The end of the stream is none.
func (c *conn) failed(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return failed(op, c.local, c.there, err)
}

// Close ends this end. The peer reads what was written, and then the end of the
// stream.
func (c *conn) Close() error {
	l := c.link
	l.mu.Lock()
	if c.closed {
		l.mu.Unlock()
		return c.failed("close", net.ErrClosed)
	}
	c.closed, c.peer.finished = true, true
	c.arrives, c.size = nil, 0
	both := c.peer.closed
	l.wake()
	l.mu.Unlock()
	if both {
		l.forget()
	}
	return nil
}

// CloseWrite ends the stream to the peer.
func (c *conn) CloseWrite() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.failed("close", net.ErrClosed)
	}
	c.peer.finished = true
	c.link.wake()
	return nil
}

// CloseRead ends reading at this end.
func (c *conn) CloseRead() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.failed("close", net.ErrClosed)
	}
	c.deaf = true
	c.link.wake()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.there }

// SetDeadline, SetReadDeadline and SetWriteDeadline are those of [net.Conn].
func (c *conn) SetDeadline(t time.Time) error      { return c.limit(&c.read, &c.write, t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.limit(&c.read, nil, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.limit(&c.write, nil, t) }

func (c *conn) limit(one, other *time.Time, t time.Time) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.failed("set deadline", net.ErrClosed)
	}
	*one = t
	if other != nil {
		*other = t
	}
	c.link.wake()
	return nil
}

func (c *conn) deadline() time.Time {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.write
}

// over reports whether a deadline that is set has passed.
func over(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// sooner returns the sooner of two times, of which a zero one does not count.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
