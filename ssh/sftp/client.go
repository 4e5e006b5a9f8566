package sftp

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
)

// Copying is the phase of an [*ssh.Error] of this package, once it has begun.
const Copying ssh.Phase = "copy"

// What an error can be about, for errors.Is, beside what package ssh has, and
// [io/fs.ErrNotExist] and [io/fs.ErrPermission].
var (
	// ErrName: a server has a name in a directory that is none.
	ErrName = errors.New("a name that could lead out of the directory: the server is broken or hostile")
	// ErrNoSpace: the server's file system is full.
	ErrNoSpace = errors.New("no space left on the server's file system")
	// ErrChanged: the source became shorter while it was copied.
	ErrChanged = errors.New("the source became shorter while it was copied: copy it again")
	// ErrEnded: the server has ended the session, as it does when sftp-server dies.
	ErrEnded = errors.New("the server has ended sftp")
	// ErrProtocol: the server says what it may not.
	ErrProtocol = errors.New("the server does not speak sftp version 3")
)

const (
	// mostPacket is what a server may send at once; OpenSSH's limit.
	mostPacket = 256 << 10
	// safeChunk is what every server takes in one request (section 6.4).
	safeChunk = 32 << 10
	// paused is what a timer must be late by to say that the process was stopped.
	paused = 2 * time.Second
)

// Options of a client. The zero value is the recommended one.
type Options struct {
	// Idle bounds the time in which the server answers none of the requests that
	// it has. The channel is closed then, and the connection lives on. Zero means
	// 30 s.
	Idle time.Duration
}

// Client is the channel over which files are copied. Its methods may be called
// by many goroutines. It must be closed.
type Client struct {
	over    *ssh.Client
	channel net.Conn
	idle    time.Duration
	known   map[string]string // the server's extensions
	chunk   int               // bytes of a file in one request
	queue   chan []byte       // packets to send
	spare   chan []byte       // those that were sent
	greeted chan struct{}     // closed when known is
	crew    sync.WaitGroup

	once  sync.Once
	dead  chan struct{} // closed by kill
	cause error         // read only after dead

	mu      sync.Mutex
	next    uint32
	pending map[uint32]*call
	since   time.Time // since when the server owes an answer
}

// call is a request whose answer has not come.
type call struct {
	kind   byte
	into   []byte      // where the data of a read go
	answer chan answer // has room for it
}

type answer struct {
	kind byte
	body []byte
	n    int // so many bytes are in into
}

// New starts sftp over a connection. It returns within the context,
// Budgets.ChannelOpen and Budgets.Request of the connection, and Options.Idle.
func New(ctx context.Context, over *ssh.Client, options Options) (*Client, error) {
	began := time.Now()
	channel, err := over.Subsystem(ctx, "sftp")
	if err != nil {
		return nil, err
	}
	c := &Client{
		over: over, channel: channel, idle: cmp.Or(max(options.Idle, 0), 30*time.Second), known: map[string]string{}, chunk: safeChunk,
		queue: make(chan []byte), spare: make(chan []byte, 4), greeted: make(chan struct{}), dead: make(chan struct{}), pending: map[uint32]*call{},
	}
	for range cap(c.spare) {
		c.spare <- nil
	}
	channel.(taken).Take(c.receive, c.send)
	c.crew.Go(c.watch)
	if err := c.greet(ctx); err != nil {
		c.kill(err)
		return nil, c.fail(began, err)
	}
	if err := c.learnLimits(ctx); err != nil {
		_ = c.Close()
		return nil, c.fail(began, err)
	}
	return c, nil
}

// taken is what the channel of a subsystem can, beside being a net.Conn.
type taken interface {
	Take(receive func(io.Reader), send func(io.Writer))
}

// greet exchanges versions.
func (c *Client) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.idle, &ssh.BudgetError{Budget: "Idle", Limit: c.idle})
	defer cancel()
	hello := <-c.spare
	select {
	case c.queue <- packet(append(hello, 0, 0, 0, 0, kindInit)).uint32(3).sealed():
	case <-c.dead:
		return c.cause
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-c.greeted:
		return nil
	case <-c.dead:
		return c.cause
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// receiveVersion takes the server's.
func (c *Client) receiveVersion(in io.Reader) error {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 5 || size > mostPacket || head[4] != kindVersion {
		return fmt.Errorf("%w: what it says first is no version; does a shell's start-up file print?", ErrProtocol)
	}
	body := make([]byte, size-1)
	if _, err := io.ReadFull(in, body); err != nil {
		return err
	}
	r := reader{rest: body}
	if version := r.uint32(); version != 3 {
		return fmt.Errorf("%w: it answers with version %d", ErrProtocol, version)
	}
	for len(r.rest) > 0 {
		name := r.string()
		c.known[name] = r.string()
	}
	close(c.greeted)
	return nil
}

// ended says why nothing more comes.
func (c *Client) ended(err error) error {
	var gone *ssh.Error
	switch {
	case errors.As(c.over.Err(), &gone):
		return gone.Err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return ErrEnded
	}
	return err
}

// kill ends all calls, for the first cause.
func (c *Client) kill(cause error) {
	c.once.Do(func() {
		c.cause = cause
		close(c.dead)
		_ = c.channel.Close()
	})
}

// Close ends the channel and all calls on it. The connection lives on.
func (c *Client) Close() error {
	c.kill(net.ErrClosed)
	c.crew.Wait()
	return nil
}

// fail makes the error of a call.
func (c *Client) fail(began time.Time, err error) error {
	return &ssh.Error{Phase: Copying, Host: c.over.Host(), Elapsed: time.Since(began), Err: err}
}

// send writes the packets.
func (c *Client) send(out io.Writer) {
	for {
		select {
		case p := <-c.queue:
			if _, err := out.Write(p); err != nil {
				c.kill(c.ended(err))
				return
			}
			c.spare <- p // has room for all
		case <-c.dead:
			return
		}
	}
}

// receive gives the answers to those who wait for them. What is read of a file
// goes from the channel straight to where it is wanted; the buffer is for the
// few bytes before it.
func (c *Client) receive(channel io.Reader) {
	in := bufio.NewReaderSize(channel, 64)
	err := c.receiveVersion(in)
	for err == nil {
		err = c.receiveOne(in)
	}
	c.kill(c.ended(err))
}

func (c *Client) receiveOne(in *bufio.Reader) error {
	var head [9]byte
	if _, err := io.ReadFull(in, head[:4]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 5 || size > mostPacket {
		return fmt.Errorf("%w: a packet of %d bytes", ErrProtocol, size)
	}
	if _, err := io.ReadFull(in, head[4:]); err != nil {
		return err
	}
	id := binary.BigEndian.Uint32(head[5:])
	c.mu.Lock()
	waiting := c.pending[id]
	delete(c.pending, id)
	c.since = time.Now()
	c.mu.Unlock()
	if waiting == nil {
		return fmt.Errorf("%w: an answer to nothing", ErrProtocol)
	}
	got, left := answer{kind: head[4]}, size-5
	if got.kind == kindData && waiting.kind == kindRead {
		var length [4]byte
		if left < 4 {
			return fmt.Errorf("%w: data without a length", ErrProtocol)
		}
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return err
		}
		got.n = int(binary.BigEndian.Uint32(length[:]))
		if left -= 4; uint64(got.n) != uint64(left) || got.n > len(waiting.into) || got.n == 0 {
			return fmt.Errorf("%w: %d bytes in answer to a read of %d", ErrProtocol, got.n, len(waiting.into))
		}
		if _, err := io.ReadFull(in, waiting.into[:got.n]); err != nil {
			return err
		}
	} else {
		got.body = make([]byte, left)
		if _, err := io.ReadFull(in, got.body); err != nil {
			return err
		}
	}
	waiting.answer <- got
	return nil
}

// watch ends the channel of a server that answers nothing for too long. A
// process that was stopped has not listened.
func (c *Client) watch() {
	every := c.idle / 4
	timer := time.NewTimer(every)
	defer timer.Stop()
	due := time.Now().Add(every)
	for {
		select {
		case <-c.dead:
			return
		case <-timer.C:
		}
		now := time.Now()
		c.mu.Lock()
		if now.Sub(due) > max(every, paused) {
			c.since = now
		}
		quiet := now.Sub(c.since)
		owes := len(c.pending) > 0
		c.mu.Unlock()
		wait := every
		if owes {
			if quiet >= c.idle {
				c.kill(&ssh.BudgetError{Budget: "Idle", Limit: c.idle})
				return
			}
			wait = min(every, c.idle-quiet)
		}
		due = now.Add(wait)
		timer.Reset(wait)
	}
}

// buffer returns what a packet can be made in.
func (c *Client) buffer(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-c.spare:
		if cap(buf) < c.chunk+packetRoom {
			buf = make([]byte, 0, c.chunk+packetRoom)
		}
		return buf[:0], nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.dead:
		return nil, c.cause
	}
}

// packetRoom is what a packet has beside a chunk; handles are at most 256 bytes
// (section 6.3).
const packetRoom = 4 + 1 + 4 + 4 + 256 + 8 + 4

// begin sends a request; fill adds what it says.
func (c *Client) begin(ctx context.Context, kind byte, into []byte, fill func(packet) (packet, error)) (*call, error) {
	buf, err := c.buffer(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.next++
	id := c.next
	c.mu.Unlock()
	p, err := fill(newPacket(buf, kind, id))
	if err != nil {
		c.spare <- buf
		return nil, err
	}
	made := &call{kind: kind, into: into, answer: make(chan answer, 1)}
	c.mu.Lock()
	if len(c.pending) == 0 {
		c.since = time.Now()
	}
	c.pending[id] = made
	c.mu.Unlock()
	select {
	case c.queue <- p.sealed():
		return made, nil
	case <-c.dead:
		return nil, c.cause
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
		c.spare <- buf
		return nil, context.Cause(ctx)
	}
}

// end waits for the answer to a request.
func (c *Client) end(ctx context.Context, made *call) (answer, error) {
	select {
	case a := <-made.answer:
		return a, nil
	default:
	}
	select {
	case a := <-made.answer:
		return a, nil
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	case <-c.dead:
		return answer{}, c.cause
	}
}
