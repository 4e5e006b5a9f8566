package ssh

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// A tunnel's goroutines are ahead of its Read and Write by so many buffers.
const tunnelAhead = 2

// tunnel is a net.Conn over a channel. Neither Read nor Write of a channel can
// be interrupted, so they are called by goroutines, which end with the channel;
// those who call the tunnel wait for buffers, and for deadlines and Close too.
type tunnel struct {
	client  *Client
	channel xssh.Channel
	local   net.Addr
	remote  net.Addr
	begin   sync.Once     // of the goroutines that receive and send
	once    sync.Once     // of Close
	gone    chan struct{} // closed by Close
	closed  chan struct{} // closed with the channel

	in       *pipe
	unread   []byte // of current; both are of who has the turn to read
	current  []byte
	inEnded  error // read only after in.full is closed
	out      *pipe
	finished bool          // no more is written; of who has the turn to write
	broken   chan struct{} // closed when nothing can be written any more
	outEnded error         // read only after broken
	sent     chan struct{} // closed when all that will ever be sent was
}

// pipe is one direction: buffers go around between a goroutine and those who
// call.
type pipe struct {
	full     chan []byte   // has room for all buffers
	empty    chan []byte   // so has this one
	turn     chan struct{} // holds one who calls
	deadline deadline
}

func newPipe() *pipe {
	p := &pipe{full: make(chan []byte, tunnelAhead), empty: make(chan []byte, tunnelAhead), turn: make(chan struct{}, 1)}
	for range tunnelAhead {
		p.empty <- nil // made when it is needed first
	}
	p.deadline.passed = make(chan struct{})
	return p
}

func newTunnel(c *Client, channel xssh.Channel, requests <-chan *xssh.Request, local, remote net.Addr) *tunnel {
	t := &tunnel{
		client: c, channel: channel, local: local, remote: remote, gone: make(chan struct{}), closed: make(chan struct{}),
		in: newPipe(), out: newPipe(), broken: make(chan struct{}), sent: make(chan struct{}),
	}
	c.crew.start(func() { answerRequests(requests); close(t.closed) })
	c.crew.start(func() { _, _ = io.Copy(io.Discard, channel.Stderr()) })
	return t
}

// start sets the goroutines to work that Read and Write wait for.
func (t *tunnel) start() {
	t.begin.Do(func() {
		t.client.crew.start(t.receive)
		t.client.crew.start(t.send)
	})
}

// Take is for package sftp, to which copies and handing over matter: instead of
// Read and Write, it has goroutines of the client's call receive and send with
// the channel itself. Close does not end what these wait for, only the end of
// the channel does. When receive returns, what still comes is dropped; when send
// does, that ends the stream. Nothing may have been read or written before.
func (t *tunnel) Take(receive func(io.Reader), send func(io.Writer)) {
	t.begin.Do(func() {
		t.client.crew.start(func() {
			receive(t.channel)
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{t.channel})
		})
		t.client.crew.start(func() {
			defer close(t.sent)
			send(t.channel)
			_ = t.channel.CloseWrite()
		})
	})
}

// receive reads until the channel has no more, also when nobody wants it any
// more: x/crypto keeps what is not read.
func (t *tunnel) receive() {
	defer close(t.in.full)
	for {
		var buf []byte
		select {
		case buf = <-t.in.empty:
		case <-t.gone:
			t.inEnded = net.ErrClosed
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{t.channel})
			return
		}
		if buf == nil {
			buf = make([]byte, 32<<10)
		}
		n, err := t.channel.Read(buf)
		if n > 0 {
			t.in.full <- buf[:n]
		}
		if err != nil {
			t.inEnded = t.reason(err)
			return
		}
	}
}

// send writes what Write has taken, and then the end of the stream.
func (t *tunnel) send() {
	defer close(t.sent)
	for buf := range t.out.full {
		if _, err := t.channel.Write(buf); err != nil {
			if err = t.reason(err); err == io.EOF {
				err = io.ErrClosedPipe
			}
			t.outEnded = err
			close(t.broken)
			return
		}
		t.out.empty <- buf[:cap(buf)]
	}
	_ = t.channel.CloseWrite()
}

// reason is the end of the stream, or why the way has ended.
func (t *tunnel) reason(err error) error {
	select {
	case <-t.client.wire.dead:
		return t.client.passed()
	default:
		return err
	}
}

// enter waits for the turn to read or write.
func (t *tunnel) enter(p *pipe, deadline <-chan struct{}) error {
	t.start()
	select {
	case <-t.gone:
		return t.fail("use", net.ErrClosed)
	case <-deadline:
		return t.fail("use", os.ErrDeadlineExceeded)
	default:
	}
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-t.gone:
		return t.fail("use", net.ErrClosed)
	case <-deadline:
		return t.fail("use", os.ErrDeadlineExceeded)
	}
}

// Read returns what has come, io.EOF when the other side will write no more, or
// why the connection has ended.
func (t *tunnel) Read(p []byte) (int, error) {
	deadline := t.in.deadline.channel()
	if err := t.enter(t.in, deadline); err != nil {
		return 0, err
	}
	defer func() { <-t.in.turn }()
	if len(t.unread) == 0 {
		select {
		case buf, ok := <-t.in.full:
			if !ok {
				return 0, t.fail("read", t.inEnded)
			}
			t.current, t.unread = buf, buf
		case <-deadline:
			return 0, t.fail("read", os.ErrDeadlineExceeded)
		case <-t.gone:
			return 0, t.fail("read", net.ErrClosed)
		}
	}
	n := copy(p, t.unread)
	if t.unread = t.unread[n:]; len(t.unread) == 0 {
		t.in.empty <- t.current[:cap(t.current)]
	}
	return n, nil
}

// Write returns when all was taken, as that of a TCP connection does: some of it
// may not have been sent.
func (t *tunnel) Write(p []byte) (n int, err error) {
	deadline := t.out.deadline.channel()
	if err := t.enter(t.out, deadline); err != nil {
		return 0, err
	}
	defer func() { <-t.out.turn }()
	if t.finished {
		return 0, t.fail("write", io.ErrClosedPipe)
	}
	for len(p) > 0 {
		var buf []byte
		select {
		case buf = <-t.out.empty:
		case <-t.broken:
			return n, t.fail("write", t.outEnded)
		case <-deadline:
			return n, t.fail("write", os.ErrDeadlineExceeded)
		case <-t.gone:
			return n, t.fail("write", net.ErrClosed)
		}
		if buf == nil {
			buf = make([]byte, 32<<10)
		}
		taken := copy(buf, p)
		t.out.full <- buf[:taken]
		n, p = n+taken, p[taken:]
	}
	return n, nil
}

// fail makes the error of a call, as package net does. The end is no error.
func (t *tunnel) fail(op string, err error) error {
	if err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: t.remote.Network(), Source: t.local, Addr: t.remote, Err: err}
}

// CloseWrite tells the other side that nothing more comes, after all that was
// written.
func (t *tunnel) CloseWrite() error {
	if err := t.enter(t.out, t.out.deadline.channel()); err != nil {
		return err
	}
	defer func() { <-t.out.turn }()
	t.finish()
	return nil
}

// finish is for who has the turn to write.
func (t *tunnel) finish() {
	if !t.finished {
		t.finished = true
		close(t.out.full)
	}
}

// Close ends Read and Write at once. What was written is sent, and the server
// told, in the background.
func (t *tunnel) Close() error {
	t.once.Do(func() {
		close(t.gone)
		t.start()                      // for what the channel still has
		t.in.deadline.set(time.Time{}) // no timer outlives it
		t.out.deadline.set(time.Time{})
		t.client.crew.start(func() {
			t.out.turn <- struct{}{} // whose Write returns now
			t.finish()
			timer := time.NewTimer(closeGrace)
			defer timer.Stop()
			select {
			case <-t.sent:
			case <-t.closed:
			case <-timer.C:
			}
			t.client.shut(t.channel, t.closed)
		})
	})
	return nil
}

func (t *tunnel) LocalAddr() net.Addr  { return t.local }
func (t *tunnel) RemoteAddr() net.Addr { return t.remote }

func (t *tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

func (t *tunnel) SetReadDeadline(at time.Time) error { return t.set(&t.in.deadline, at) }

func (t *tunnel) SetWriteDeadline(at time.Time) error { return t.set(&t.out.deadline, at) }

func (t *tunnel) set(d *deadline, at time.Time) error {
	d.set(at)
	select {
	case <-t.gone:
		d.set(time.Time{})
		return t.fail("set", net.ErrClosed)
	default:
		return nil
	}
}

// deadline is a time that can be moved while it is waited for.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	moved  int
	passed chan struct{} // closed when it has passed; a new one when it is moved after that
}

func (d *deadline) channel() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

func (d *deadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moved++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.passed:
		d.passed = make(chan struct{})
	default:
	}
	if at.IsZero() {
		return
	}
	left, mine := time.Until(at), d.moved
	if left <= 0 {
		close(d.passed)
		return
	}
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.moved == mine {
			close(d.passed)
		}
	})
}
