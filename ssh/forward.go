package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// Dial connects from the server to an address as it is seen there; names are
// resolved there. The network is tcp or, where the server is OpenSSH, unix. It
// returns within the context and Budgets.ChannelOpen; the error, an [*Error] in
// phase Open, is [ErrRefused] when the server could not connect.
//
// The connection has deadlines, and a CloseWrite, which the other side sees as
// the end of what it reads. It ends when the client does, for the same cause.
// Write returns when the data were taken, and Close sends what was written in
// the background. It must be closed.
func (c *Client) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	began := time.Now()
	limited, cancel := within(ctx, "ChannelOpen", c.budgets.ChannelOpen)
	defer cancel()
	conn, err := c.dial(limited, network, addr)
	if err != nil {
		return nil, c.fail(Open, NotSent, began, fmt.Errorf("to %s: %w", addr, err))
	}
	return conn, nil
}

// dial opens a channel to an address (RFC 4254, section 7.2, and section 2.4 of
// OpenSSH's PROTOCOL).
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	switch network {
	case "tcp":
		host, port, err := splitPort(addr)
		if err != nil {
			return nil, err
		}
		return c.openTunnel(ctx, "direct-tcpip", xssh.Marshal(forwarded{host, port, "127.0.0.1", 0}), tunnelAddr{network, addr})
	case "unix":
		message := xssh.Marshal(struct {
			Path, Reserved string
			AlsoReserved   uint32
		}{Path: addr})
		return c.openTunnel(ctx, "direct-streamlocal@openssh.com", message, tunnelAddr{network, addr})
	}
	return nil, fmt.Errorf("network %q: use tcp or unix", network)
}

// Subsystem starts a subsystem of the server, as sftp is one, and returns the
// connection to it, which is as those of [Client.Dial]. It returns within the
// context, Budgets.ChannelOpen and Budgets.Request.
func (c *Client) Subsystem(ctx context.Context, name string) (net.Conn, error) {
	began := time.Now()
	limited, cancel := within(ctx, "ChannelOpen", c.budgets.ChannelOpen)
	defer cancel()
	conn, err := c.openTunnel(limited, "session", nil, tunnelAddr{"subsystem", name})
	if err != nil {
		return nil, c.fail(Open, NotSent, began, err)
	}
	asked, cancel := within(ctx, "Request", c.budgets.Request)
	defer cancel()
	ok, err := await(asked, c, func() (bool, error) {
		return conn.channel.SendRequest("subsystem", true, xssh.Marshal(struct{ Name string }{name}))
	}, nil)
	switch {
	case err == nil && ok:
		return conn, nil
	case err == nil:
		err = fmt.Errorf("%w: subsystem %q", ErrRefused, name)
	case asked.Err() == nil:
		err = c.because(err)
	}
	_ = conn.Close()
	return nil, c.fail(Request, NotSent, began, err)
}

// openTunnel opens a channel. If it is confirmed too late, it is closed then.
func (c *Client) openTunnel(ctx context.Context, kind string, message []byte, to tunnelAddr) (*tunnel, error) {
	if c.abandoned.Load() >= mostAbandoned {
		return nil, ErrTooManyAbandoned
	}
	opened, err := await(ctx, c, func() (*tunnel, error) {
		channel, requests, err := c.conn.OpenChannel(kind, message)
		if err != nil {
			return nil, err
		}
		return newTunnel(c, channel, requests, c.conn.LocalAddr(), to), nil
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
	return opened, nil
}

// forwarded is what direct-tcpip and forwarded-tcpip say of a connection.
type forwarded struct {
	Host       string
	Port       uint32
	Originator string
	OriginPort uint32
}

// tunnelAddr is an address as the server sees it.
type tunnelAddr struct{ network, name string }

func (a tunnelAddr) Network() string { return a.network }
func (a tunnelAddr) String() string  { return a.name }

func splitPort(addr string) (host string, port uint32, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no port number", text)
	}
	return host, uint32(number), nil
}
