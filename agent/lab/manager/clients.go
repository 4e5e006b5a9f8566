//go:build linux

package manager

import (
	"context"
	"io"
	"net"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/lifeline-go/lifeline/ssh"
)

// credentials parses what a Go client needs.
func (l login) credentials() (xssh.Signer, xssh.HostKeyCallback, error) {
	key, err := xssh.ParsePrivateKey(l.key)
	if err != nil {
		return nil, nil, err
	}
	host, _, _, _, err := xssh.ParseAuthorizedKey(l.host)
	if err != nil {
		return nil, nil, err
	}
	return key, xssh.FixedHostKey(host), nil
}

func (l login) config() (*xssh.ClientConfig, error) {
	key, host, err := l.credentials()
	if err != nil {
		return nil, err
	}
	return &xssh.ClientConfig{User: l.user, Auth: []xssh.AuthMethod{xssh.PublicKeys(key)}, HostKeyCallback: host}, nil
}

// plain is golang.org/x/crypto/ssh as its documentation shows it.
type plain struct{ login }

func (p plain) connect(_ context.Context, addr string) (connection, error) {
	config, err := p.config()
	if err != nil {
		return nil, err
	}
	client, err := xssh.Dial("tcp", addr, config)
	if err != nil {
		return nil, err
	}
	return plainConn{client}, nil
}

type plainConn struct{ client *xssh.Client }

func (c plainConn) run(_ context.Context, line string, output io.Writer) error {
	session, err := c.client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	session.Stdout = output
	return session.Run(line)
}

func (c plainConn) close(context.Context) { _ = c.client.Close() }

// workaround is what the story's authors do since: the TCP connection is their
// own, with a short keepalive, and has a deadline for each step.
type workaround struct{ login }

func (w workaround) connect(_ context.Context, addr string) (connection, error) {
	config, err := w.config()
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: workaroundCall, KeepAlive: workaroundCall}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(workaroundCall)); err != nil {
		return nil, err
	}
	c, channels, requests, err := xssh.NewClientConn(conn, addr, config)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return workaroundConn{conn, xssh.NewClient(c, channels, requests)}, nil
}

type workaroundConn struct {
	conn   net.Conn
	client *xssh.Client
}

func (c workaroundConn) run(_ context.Context, line string, output io.Writer) error {
	if err := c.conn.SetDeadline(time.Now().Add(workaroundCall)); err != nil {
		return err
	}
	session, err := c.client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	if err := c.conn.SetDeadline(time.Now().Add(workaroundRun)); err != nil {
		return err
	}
	defer func() { _ = c.conn.SetDeadline(time.Time{}) }() // an error says that it is closed
	session.Stdout = output
	return session.Run(line)
}

func (c workaroundConn) close(context.Context) { _ = c.client.Close() }

// guarded is package ssh, with nothing set that the lab was not told to set.
type guarded struct {
	login
	silence time.Duration
}

func (g guarded) connect(ctx context.Context, addr string) (connection, error) {
	key, host, err := g.credentials()
	if err != nil {
		return nil, err
	}
	client, err := ssh.Dial(ctx, addr, ssh.Config{User: g.user, Auth: []xssh.AuthMethod{xssh.PublicKeys(key)}, HostKey: host,
		Liveness: ssh.Liveness{Silence: g.silence}})
	if err != nil {
		return nil, err
	}
	return guardedConn{client}, nil
}

type guardedConn struct{ client *ssh.Client }

func (c guardedConn) run(ctx context.Context, line string, output io.Writer) error {
	cmd := c.client.Command(line)
	cmd.Stdout = output
	return cmd.Run(ctx)
}

func (c guardedConn) close(context.Context) { _ = c.client.Close() }
