package names

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Install makes [Default] what [net.DefaultResolver] asks, and returns a function
// that undoes it. See [Resolver.Install].
func Install() (undo func()) { return Default.Install() }

// Install makes the resolver what [net.DefaultResolver] asks, and with it
// net.Dial, net/http and every library that does not bring a resolver of its own.
// The function that it returns puts back what was there. Call both where no
// lookup runs yet, at the start of the program.
func (r *Resolver) Install() (undo func()) {
	before := net.DefaultResolver
	net.DefaultResolver = r.Net()
	return func() { net.DefaultResolver = before }
}

// Net returns a resolver of package net that asks this one. Package net still
// reads /etc/hosts and the search list itself; every question that it then would
// send to a nameserver is answered by [Resolver.Exchange], in memory. On macOS and
// Windows package net asks the operating system already, and is left to do so.
func (r *Resolver) Net() *net.Resolver {
	if r.left() {
		return new(net.Resolver)
	}
	return &net.Resolver{
		PreferGo: true, // Dial is for Go's own resolver
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return &inMemory{exchange: func(deadline time.Time, query []byte) ([]byte, error) {
				if !deadline.IsZero() {
					within, cancel := context.WithDeadline(ctx, deadline)
					defer cancel()
					return r.Exchange(within, query)
				}
				return r.Exchange(ctx, query)
			}}, nil
		},
	}
}

// inMemory is a connection to a nameserver that is a function. It is a stream,
// so that messages have their length before them, RFC 1035 section 4.2.2, and any
// size.
type inMemory struct {
	exchange func(deadline time.Time, query []byte) ([]byte, error)

	mu       sync.Mutex
	deadline time.Time
	closed   bool
	asked    []byte
	answer   []byte
}

func (c *inMemory) Write(text []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.asked = append(c.asked, text...)
	return len(text), nil
}

// Read answers the question when its answer is asked for.
func (c *inMemory) Read(to []byte) (int, error) {
	c.mu.Lock()
	query, ok := c.question()
	deadline := c.deadline
	c.mu.Unlock()
	if ok {
		answer, err := c.exchange(deadline, query)
		if err == context.DeadlineExceeded {
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			return 0, err
		}
		c.mu.Lock()
		c.answer = append(binary.BigEndian.AppendUint16(c.answer, uint16(len(answer))), answer...)
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(to, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

// question takes a whole message out of what was written.
func (c *inMemory) question() ([]byte, bool) {
	if len(c.asked) < 2 {
		return nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(c.asked))
	if len(c.asked) < end {
		return nil, false
	}
	query := c.asked[2:end]
	c.asked = c.asked[end:]
	return query, true
}

func (c *inMemory) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *inMemory) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *inMemory) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *inMemory) SetWriteDeadline(time.Time) error  { return nil } // writing does not wait
func (c *inMemory) LocalAddr() net.Addr               { return nowhere{} }
func (c *inMemory) RemoteAddr() net.Addr              { return nowhere{} }

type nowhere struct{}

func (nowhere) Network() string { return "memory" }
func (nowhere) String() string  { return "lifeline" }
