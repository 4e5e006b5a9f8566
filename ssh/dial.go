package ssh

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline"
	xssh "golang.org/x/crypto/ssh"
)

const defaultMaxOutput = 16 << 20

// Config says how to connect. User must be given, KnownHosts or HostKey, and
// mostly Keys, Agent or Auth; for the rest the zero value is the recommended
// one. Signers, keys and callbacks are those of golang.org/x/crypto/ssh.
type Config struct {
	User string

	// Keys are tried after those of the agent; see [ReadKey].
	Keys []xssh.Signer
	// Agent is the socket of an ssh-agent, of which SSH_AUTH_SOCK is usually the
	// name. An agent that is not there is as one without keys, if there are Keys.
	// It may take its time, as one that asks a person does: it is part of
	// Budgets.Authentication.
	Agent string
	// Auth is how else to authenticate, after Keys and Agent. Of each kind of
	// method x/crypto tries the first only: with Keys or Agent, none by public
	// keys.
	Auth []xssh.AuthMethod
	// AuthCallback chooses how to authenticate next, before Keys, Agent and Auth
	// are; see [xssh.ClientAuthCallback].
	AuthCallback xssh.ClientAuthCallback

	// KnownHosts says which keys servers have; it is not asked if HostKey is given.
	KnownHosts *KnownHosts
	// HostKey accepts the server's key or says why not. It may wait for a person:
	// its time is part of Budgets.Authentication. When the keys are exchanged
	// again later, the key that was accepted is, without asking.
	HostKey xssh.HostKeyCallback
	// HostKeyAlgorithms are what the server is asked to show its key in, in the
	// order of preference; those of the keys that are known for this host. Empty
	// means what x/crypto prefers.
	HostKeyAlgorithms []string

	// Banner is given what the server says to users before they are known. It
	// comes from the server as it is: do not print it to a terminal unfiltered.
	Banner func(message string)

	Budgets  Budgets
	Liveness Liveness

	// Policy is for the TCP connection. Its Connect is Budgets.Connect where that
	// is given, and its Silence that of Liveness where it is not given.
	Policy lifeline.Policy
	// Net is how to connect otherwise, as in [lifeline.Dialer].
	Net net.Dialer
	// Network is tcp, tcp4 or tcp6. Empty means tcp.
	Network string

	// Protocol chooses ciphers and the like.
	Protocol xssh.Config

	// Name is what the host is called in errors and by [Client.Host]. Empty means
	// as it was dialed.
	Name string

	// MaxOutput is how much [Command.Output] and the like keep of each stream, in
	// bytes. Zero means 16 MiB.
	MaxOutput int
}

func (c Config) settled() Config {
	c.Budgets.Connect = cmp.Or(max(c.Budgets.Connect, 0), max(c.Policy.Connect, 0))
	c.Budgets = c.Budgets.or(recommended)
	c.Liveness = c.Liveness.settled()
	c.Policy.Connect = c.Budgets.Connect
	c.Policy.Silence = cmp.Or(max(c.Policy.Silence, 0), c.Liveness.Silence)
	c.MaxOutput = cmp.Or(max(c.MaxOutput, 0), defaultMaxOutput)
	return c
}

// called returns what the host is called in errors.
func (c Config) called(host string) string { return cmp.Or(c.Name, host) }

// check says what a Config lacks.
func (c Config) check() error {
	switch {
	case c.User == "":
		return errors.New("Config.User is empty: say as whom to log in")
	case c.HostKey == nil && c.KnownHosts == nil:
		return errors.New("Config.KnownHosts and Config.HostKey are nil: say how to check the server's key")
	}
	return nil
}

// Dial connects to a server and authenticates. The address is a host, with :22
// unless it has a port. It returns within the context, and within
// Budgets.Connect, Handshake and Authentication one after the other.
func Dial(ctx context.Context, host string, config Config) (*Client, error) {
	began, config := time.Now(), config.settled()
	if err := config.check(); err != nil {
		return nil, &Error{Phase: Connect, Host: config.called(host), Err: err}
	}
	dialer := lifeline.Dialer{Policy: config.Policy, Net: config.Net}
	conn, err := dialer.DialContext(ctx, cmp.Or(config.Network, "tcp"), address(host))
	if err != nil {
		switch {
		case ctx.Err() != nil:
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case errors.Is(err, lifeline.ErrUnanswered):
			err = fmt.Errorf("%w: %w", &BudgetError{"Connect", config.Policy.Connect}, err)
		}
		return nil, &Error{Phase: Connect, Host: config.called(host), Elapsed: time.Since(began), Err: err}
	}
	return newClient(ctx, conn, host, config, began)
}

// NewClient authenticates over a connection that is there, of which it becomes
// the owner: also when it fails, the connection is closed. Host is whose key is
// asked for. Closing the connection must unblock its Read and Write.
func NewClient(ctx context.Context, conn net.Conn, host string, config Config) (*Client, error) {
	config = config.settled()
	if err := config.check(); err != nil {
		_ = conn.Close()
		return nil, &Error{Phase: Handshake, Host: config.called(host), Err: err}
	}
	return newClient(ctx, conn, host, config, time.Now())
}

// greeted is what x/crypto returns when all is well.
type greeted struct {
	conn     xssh.Conn
	channels <-chan xssh.NewChannel
	requests <-chan *xssh.Request
	err      error
}

func newClient(ctx context.Context, conn net.Conn, host string, config Config, began time.Time) (*Client, error) {
	g := &greeting{config: config, wire: newWire(conn), shown: make(chan struct{}), over: make(chan struct{})}
	defer close(g.over)
	done := make(chan greeted, 1)
	go func() {
		var r greeted
		var c *xssh.ClientConfig
		if c, r.err = g.clientConfig(address(host)); r.err == nil {
			r.conn, r.channels, r.requests, r.err = xssh.NewClientConn(g.wire, address(host), c)
		}
		done <- r
	}()
	phase, r := g.wait(ctx, done)
	if r.err != nil {
		g.wire.kill(r.err)
		return nil, &Error{Phase: phase, Host: config.called(host), Elapsed: time.Since(began), Err: r.err}
	}
	c := &Client{host: config.called(host), conn: r.conn, wire: g.wire, budgets: config.Budgets, liveness: config.Liveness, maxOutput: config.MaxOutput}
	c.start(r.channels, r.requests)
	return c, nil
}

// greeting is a handshake under way.
type greeting struct {
	config  Config
	wire    *wire
	over    chan struct{} // closed when the handshake is over
	shown   chan struct{} // closed when the server has shown its host key
	once    sync.Once
	known   atomic.Pointer[[]byte] // the key that was accepted
	refused atomic.Pointer[error]  // why it was not
}

// wait returns when the handshake does, or when its time is over, and in which
// phase that was.
func (g *greeting) wait(ctx context.Context, done chan greeted) (Phase, greeted) {
	phase, shown := Handshake, g.shown
	limited, cancel := within(ctx, "Handshake", g.config.Budgets.Handshake)
	defer func() { cancel() }()
	for {
		select {
		case r := <-done:
			select {
			case <-shown: // before the end, though it was not seen first
				phase = Authentication
			default:
			}
			r.err = g.reason(phase, r.err)
			return phase, r
		case <-shown:
			phase, shown = Authentication, nil
			cancel()
			limited, cancel = within(ctx, "Authentication", g.config.Budgets.Authentication)
		case <-limited.Done():
			go discard(done)
			return phase, greeted{err: context.Cause(limited)}
		}
	}
}

// discard serves a connection that came too late until it has ended.
func discard(done <-chan greeted) {
	if r := <-done; r.err == nil {
		go rejectChannels(r.channels)
		answerRequests(r.requests)
	}
}

// reason returns why a handshake failed.
func (g *greeting) reason(phase Phase, err error) error {
	if err == nil {
		return nil
	}
	if refused := g.refused.Load(); refused != nil {
		return fmt.Errorf("%w: %w", ErrHostKey, *refused)
	}
	select {
	case <-g.wire.dead:
		if errors.Is(g.wire.cause, ErrSilent) {
			return g.wire.cause
		}
		return fmt.Errorf("%w: %w", g.wire.cause, err)
	default:
	}
	if phase == Authentication {
		return fmt.Errorf("%w: %w", ErrAuthentication, err)
	}
	return err
}

// clientConfig reads known_hosts, which a file system may keep it waiting for.
func (g *greeting) clientConfig(host string) (*xssh.ClientConfig, error) {
	c := &xssh.ClientConfig{
		Config:            g.config.Protocol,
		User:              g.config.User,
		Auth:              g.config.Auth,
		AuthCallback:      g.config.AuthCallback,
		HostKeyCallback:   g.hostKey,
		HostKeyAlgorithms: g.config.HostKeyAlgorithms,
	}
	if keys := g.keys(); keys != nil {
		c.Auth = append([]xssh.AuthMethod{keys}, c.Auth...)
	}
	if g.config.HostKey == nil {
		known, algorithms, err := g.config.KnownHosts.load(host)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrHostKey, err)
		}
		if len(c.HostKeyAlgorithms) == 0 {
			c.HostKeyAlgorithms = algorithms
		}
		g.config.HostKey = func(_ string, _ net.Addr, key xssh.PublicKey) error {
			return g.config.KnownHosts.check(known, key, g.wire.dead)
		}
	}
	if banner := g.config.Banner; banner != nil {
		c.BannerCallback = func(message string) error {
			return g.call(func() error { banner(message); return nil })
		}
	}
	return c, nil
}

// hostKey asks the caller once for each key, and no key exchange later on.
func (g *greeting) hostKey(host string, remote net.Addr, key xssh.PublicKey) error {
	g.once.Do(func() { close(g.shown) })
	blob := key.Marshal()
	if known := g.known.Load(); known != nil && bytes.Equal(*known, blob) {
		return nil
	}
	err := g.call(func() error { return g.config.HostKey(host, remote, key) })
	if err != nil {
		g.refused.Store(&err)
		return err
	}
	g.known.Store(&blob)
	return nil
}

// call calls a function of the caller's, and returns without it when the
// connection has ended: x/crypto must not be held by it.
func (g *greeting) call(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-g.wire.dead:
		return g.wire.cause
	}
}
