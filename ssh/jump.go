package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// Jump connects to a host by way of this client's server, as ssh -J does. The
// name is resolved there. It returns within the context and the config's
// budgets: Connect is that of the way, which is a channel of this connection.
//
// When this connection ends, so does that of the result, for the same cause;
// closing the result leaves this connection open. Each asks its own server for
// signs of life. Longer chains are made by Jump of the result.
func (c *Client) Jump(ctx context.Context, host string, config Config) (*Client, error) {
	began, config := time.Now(), config.settled()
	if err := config.check(); err != nil {
		return nil, &Error{Phase: Connect, Host: config.called(host), Err: err}
	}
	failed := func(err error) (*Client, error) {
		return nil, &Error{Phase: Connect, Host: config.called(host), Elapsed: time.Since(began), Err: fmt.Errorf("by way of %s: %w", c.host, err)}
	}
	limited, cancel := within(ctx, "Connect", config.Budgets.Connect)
	defer cancel()
	conn, err := c.tunnel(limited, address(host))
	if err != nil {
		return failed(err)
	}
	inner, err := newClient(ctx, conn, host, config, began)
	if err != nil {
		return nil, err
	}
	c.crew.start(func() {
		select {
		case <-c.wire.dead:
			inner.wire.kill(c.passed())
		case <-inner.wire.dead:
		}
	})
	return inner, nil
}

// passed is why what goes by way of this connection ends with it.
func (c *Client) passed() error { return fmt.Errorf("the way by %s: %w", c.host, c.wire.cause) }

// tunnel opens a connection from the server to an address (RFC 4254, section
// 7.2).
func (c *Client) tunnel(ctx context.Context, to string) (net.Conn, error) {
	if c.abandoned.Load() >= mostAbandoned {
		return nil, ErrTooManyAbandoned
	}
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q is no port number", port)
	}
	message := xssh.Marshal(struct {
		Host       string
		Port       uint32
		Originator string
		OriginPort uint32
	}{host, uint32(number), "127.0.0.1", 0})
	tunnel, err := await(ctx, c, func() (*tunnel, error) {
		channel, requests, err := c.conn.OpenChannel("direct-tcpip", message)
		if err != nil {
			return nil, err
		}
		return newTunnel(c, channel, requests, tunnelAddr(to)), nil
	}, func(t *tunnel) { _ = t.Close() })
	if refused := (*xssh.OpenChannelError)(nil); errors.As(err, &refused) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil && ctx.Err() == nil {
		return nil, c.because(err)
	}
	if err != nil {
		return nil, err
	}
	return tunnel, nil
}

// tunnel is a net.Conn over a channel. Neither Read nor Write of a channel can
// be interrupted, so they are called by goroutines, which end with the channel.
type tunnel struct {
	client  *Client
	channel xssh.Channel
	address tunnelAddr
	in      *io.PipeReader
	out     *io.PipeWriter
	once    sync.Once
	closed  chan struct{} // with the channel
}

func newTunnel(c *Client, channel xssh.Channel, requests <-chan *xssh.Request, address tunnelAddr) *tunnel {
	in, fromServer := io.Pipe()
	toServer, out := io.Pipe()
	t := &tunnel{client: c, channel: channel, address: address, in: in, out: out, closed: make(chan struct{})}
	c.crew.start(func() { answerRequests(requests); close(t.closed) })
	c.crew.start(func() { _, _ = io.Copy(io.Discard, channel.Stderr()) })
	c.crew.start(func() {
		buf := buffers.Get().(*[32 << 10]byte)
		defer buffers.Put(buf)
		_, err := io.CopyBuffer(fromServer, struct{ io.Reader }{channel}, buf[:])
		_ = fromServer.CloseWithError(t.reason(err))
		_, _ = io.CopyBuffer(io.Discard, struct{ io.Reader }{channel}, buf[:]) // when it was closed on this side
	})
	c.crew.start(func() {
		_, err := io.Copy(struct{ io.Writer }{channel}, struct{ io.Reader }{toServer})
		_ = toServer.CloseWithError(t.reason(err))
	})
	return t
}

// reason is the end of the stream, or why the way has ended.
func (t *tunnel) reason(err error) error {
	select {
	case <-t.client.wire.dead:
		return t.client.passed()
	default:
	}
	if err == nil {
		return io.EOF
	}
	return err
}

func (t *tunnel) Read(p []byte) (int, error)  { return t.in.Read(p) }
func (t *tunnel) Write(p []byte) (int, error) { return t.out.Write(p) }

// Close ends Read and Write at once; the server is told in the background.
func (t *tunnel) Close() error {
	t.once.Do(func() {
		_ = t.in.CloseWithError(net.ErrClosed)
		_ = t.out.CloseWithError(net.ErrClosed)
		t.client.crew.start(func() { t.client.shut(t.channel, t.closed) })
	})
	return nil
}

func (t *tunnel) LocalAddr() net.Addr              { return t.client.conn.LocalAddr() }
func (t *tunnel) RemoteAddr() net.Addr             { return t.address }
func (t *tunnel) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (t *tunnel) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (t *tunnel) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// tunnelAddr is a host and port as the server sees them.
type tunnelAddr string

func (tunnelAddr) Network() string  { return "tcp" }
func (a tunnelAddr) String() string { return string(a) }
