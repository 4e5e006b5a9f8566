package lifeline

import (
	"context"
	"net"
	"syscall"
	"time"
)

// Listen listens under the recommended policy; see [ListenConfig.Listen].
func Listen(network, address string) (net.Listener, error) {
	var lc ListenConfig
	return lc.Listen(context.Background(), network, address)
}

// ListenConfig listens as [net.ListenConfig] does, and the TCP connections that
// are accepted are [*Conn]. The zero value is the recommended one.
type ListenConfig struct {
	Policy Policy

	// Net is how to listen otherwise. Its keepalive does not hold, and neither
	// does multipath TCP, which has its own timers.
	Net net.ListenConfig
}

// Listen returns a listener for the address. Listeners other than TCP are those
// of package net. The context bounds the look-up of the address, not the
// listener.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	config := lc.Net
	config.KeepAliveConfig = lc.Policy.keepAliveConfig()
	config.SetMultipathTCP(false)
	ln, err := config.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := ln.(*net.TCPListener); ok {
		return &listener{tcp, lc.Policy}, nil
	}
	return ln, nil
}

// listener wraps what it accepts.
type listener struct {
	tcp    *net.TCPListener
	policy Policy
}

// Accept waits for the next connection. Package net has set its keepalive.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.tcp.AcceptTCP()
	if err != nil {
		return nil, err
	}
	l.policy.armRetries(conn)
	return l.policy.watch(conn), nil
}

func (l *listener) Close() error                          { return l.tcp.Close() }
func (l *listener) Addr() net.Addr                        { return l.tcp.Addr() }
func (l *listener) SetDeadline(t time.Time) error         { return l.tcp.SetDeadline(t) }
func (l *listener) SyscallConn() (syscall.RawConn, error) { return l.tcp.SyscallConn() }
