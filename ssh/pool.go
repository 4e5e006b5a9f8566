package ssh

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline"
	xssh "golang.org/x/crypto/ssh"
)

const (
	defaultSessions = 8 // sshd takes 10, and frees them late
	defaultDials    = 8 // sshd begins to drop connections when 10 have not logged in
	defaultRetries  = 2

	refusedPause = 50 * time.Millisecond
)

// Pool runs commands on many hosts, by one connection each, which it makes when
// it is needed and again when it has ended. It may be used by many goroutines,
// and must be closed.
//
// A command waits for its turn where the server takes no more sessions. How many
// these are is learned from its refusals, which do not reach the caller while
// there is something to wait for. A server that takes none although the pool runs
// none is connected to anew. What did not reach a server is tried again;
// what may have run is not. A host that was not reached is not dialed again
// before a pause is over that grows with each failure and is spread
// ([lifeline.Backoff]); all who ask for it wait for the same attempt.
type Pool struct {
	// Connect makes a connection, by [Dial], [Client.Jump] or [DialProgram]. It
	// must be given. Its context ends with the pool, not with that of a command:
	// others wait for the connection too.
	Connect func(ctx context.Context, host string) (*Client, error)

	// Sessions is how many commands run at a time on one host, unless the server
	// takes fewer. Zero means 8.
	Sessions int

	// Dials is how many connections are made at a time. Zero means 8, which one
	// jump host takes; give each jump host a pool of its own.
	Dials int

	// Retries is how many times what did not reach the server is tried again. Zero
	// means 2, less than zero none.
	Retries int

	// Backoff is the pause after attempts to connect that failed.
	Backoff lifeline.Backoff

	mu     sync.Mutex
	hosts  map[string]*pooled
	dials  chan struct{} // holds those under way; nil before the first use
	closed chan struct{}
	ended  bool
	crew   crew // attempts to connect
}

// pooled is one host of a pool. Its fields are under the pool's lock.
type pooled struct {
	name    string
	slots   *slots
	client  *Client  // may have ended
	attempt *attempt // under way; nil when there is none
	backoff lifeline.Backoff
	until   time.Time // before which there is no other attempt
}

// attempt is one attempt to connect, for all who wait for it.
type attempt struct {
	done   chan struct{}
	client *Client // these two are read only after done
	err    error
}

// Run runs a command on a host and returns as [Client.Run] does. Beside the
// command's own time it waits for the connection and for its turn, until the
// context ends.
func (p *Pool) Run(ctx context.Context, host, line string) (Result, error) {
	began, retries := time.Now(), cmp.Or(p.Retries, defaultRetries)
	for {
		client, h, err := p.client(ctx, host, began)
		var r Result
		if err == nil {
			r, err = p.run(ctx, h, client, line, began)
		}
		var again turnedAway
		switch {
		case errors.As(err, &again): // there is another command to wait for
			continue
		case noSession(err) && retries > 0 && client != nil:
			p.outlive(ctx, client, retries)
		case err == nil || retries <= 0 || !retriable(ctx, err):
			return r, err
		}
		retries--
	}
}

// outlive is for a connection on which the server takes no session although the
// pool runs none: it may count one for a moment after its end, and for ever when
// the command was given up and goes on. So there is another connection at last.
func (p *Pool) outlive(ctx context.Context, client *Client, retries int) {
	if retries == 1 {
		client.wire.kill(ErrTooManyAbandoned)
		return
	}
	timer := time.NewTimer(refusedPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// noSession reports whether the server refused a channel.
func noSession(err error) bool {
	var e *Error
	var refused *xssh.OpenChannelError
	return errors.As(err, &e) && e.Phase == Open && errors.As(err, &refused)
}

// retriable reports whether it is safe, and of use, to try again: nothing has
// run, and the connection is to blame.
func retriable(ctx context.Context, err error) bool {
	var e *Error
	if ctx.Err() != nil || !errors.As(err, &e) || e.Fate != NotSent {
		return false
	}
	for _, settled := range []error{ErrClosed, ErrRefused, ErrHostKey, ErrAuthentication} {
		if errors.Is(err, settled) {
			return false
		}
	}
	return e.Phase != Open && e.Phase != Request || errors.Is(err, ErrSilent) || errors.Is(err, ErrDisconnected) || errors.Is(err, ErrTooManyAbandoned)
}

// turnedAway is the error of a command that the server had no session for, but
// has for others of this pool.
type turnedAway struct{ error }

// run runs a command when it is its turn.
func (p *Pool) run(ctx context.Context, h *pooled, client *Client, line string, began time.Time) (Result, error) {
	if err := h.slots.take(ctx, p.closed); err != nil {
		return Result{}, &Error{Phase: Open, Host: h.name, Elapsed: time.Since(began), Err: err}
	}
	if client.Err() != nil { // it ended while others had their turn
		h.slots.give()
		return Result{}, turnedAway{client.Err()}
	}
	cmd := client.Command(line)
	r, err := cmd.result(ctx)
	if noSession(err) {
		if h.slots.refused() {
			err = turnedAway{err}
		}
		return r, err
	}
	if errors.Is(err, ErrTooManyAbandoned) {
		client.wire.kill(ErrTooManyAbandoned)
	}
	var e *Error
	if err == nil || errors.As(err, &e) && e.Fate == Exited {
		h.slots.started()
		p.mu.Lock()
		h.backoff.Reset()
		p.mu.Unlock()
	}
	h.release(client, cmd.opened)
	return r, err
}

// release gives the slot back when the server has closed the channel: until
// then it counts the session. When no command is left on the connection but
// those that were given up, and so many that no other can run, it is closed.
func (h *pooled) release(client *Client, s *session) {
	if s == nil {
		h.slots.give()
		return
	}
	select {
	case <-s.closed:
		h.slots.give()
		return
	default:
	}
	h.slots.stick(1)
	client.crew.start(func() {
		timer := time.NewTimer(s.budgets.WaitAfterExit) // most are closed in a moment
		defer timer.Stop()
		select {
		case <-s.closed:
		case <-timer.C:
			h.slots.retire(func() { client.wire.kill(ErrTooManyAbandoned) })
		}
		<-s.closed
		h.slots.stick(-1)
		h.slots.give()
	})
}

// Client returns the connection to a host, for what Run does not do, and makes
// it if there is none. It belongs to the pool: do not close it, and know that
// the pool may, when none of its own commands can run on it.
func (p *Pool) Client(ctx context.Context, host string) (*Client, error) {
	client, _, err := p.client(ctx, host, time.Now())
	return client, err
}

// client waits for a connection that lives.
func (p *Pool) client(ctx context.Context, host string, began time.Time) (*Client, *pooled, error) {
	failed := func(err error) (*Client, *pooled, error) {
		return nil, nil, &Error{Phase: Connect, Host: host, Elapsed: time.Since(began), Err: err}
	}
	if ctx.Err() != nil {
		return failed(context.Cause(ctx))
	}
	h, a, err := p.join(host)
	if err != nil {
		return failed(err)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return failed(context.Cause(ctx))
	}
	return a.client, h, a.err
}

// join returns the attempt to wait for, which may have succeeded already.
func (p *Pool) join(host string) (*pooled, *attempt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return nil, nil, ErrClosed
	case p.Connect == nil:
		return nil, nil, errors.New("Pool.Connect is nil: say how to connect")
	case p.hosts == nil:
		p.hosts, p.closed = make(map[string]*pooled), make(chan struct{})
		p.dials = make(chan struct{}, cmp.Or(max(p.Dials, 0), defaultDials))
	}
	h := p.hosts[host]
	if h == nil {
		h = &pooled{name: host, slots: newSlots(cmp.Or(max(p.Sessions, 0), defaultSessions)), backoff: p.Backoff}
		p.hosts[host] = h
	}
	if h.client != nil && h.client.Err() == nil {
		a := &attempt{done: make(chan struct{}), client: h.client}
		close(a.done)
		return h, a, nil
	}
	if h.attempt == nil {
		h.attempt = &attempt{done: make(chan struct{})}
		a, until := h.attempt, h.until
		p.crew.start(func() { p.connect(h, a, until) })
	}
	return h, h.attempt, nil
}

// connect makes an attempt when its pause is over, for all who wait for it.
func (p *Pool) connect(h *pooled, a *attempt, until time.Time) {
	defer close(a.done)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	p.crew.start(func() {
		select {
		case <-p.closed:
			cancel(ErrClosed)
		case <-ctx.Done():
		}
	})
	a.client, a.err = p.dial(ctx, h.name, until)
	p.mu.Lock()
	defer p.mu.Unlock()
	h.attempt = nil
	switch {
	case a.err != nil:
		h.until = time.Now().Add(h.backoff.Next())
	case p.ended:
		a.client.wire.kill(ErrClosed)
	default:
		h.client = a.client
		h.slots.reset()
	}
}

// dial connects when the pause is over and it is its turn.
func (p *Pool) dial(ctx context.Context, host string, until time.Time) (*Client, error) {
	failed := func() (*Client, error) {
		return nil, &Error{Phase: Connect, Host: host, Err: context.Cause(ctx)}
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return failed()
	}
	select {
	case p.dials <- struct{}{}:
		defer func() { <-p.dials }()
	case <-ctx.Done():
		return failed()
	}
	return p.Connect(ctx, host)
}

// Close ends all connections and all that runs on them, and waits for the
// goroutines as [Client.Close] does.
func (p *Pool) Close() error {
	p.mu.Lock()
	if !p.ended && p.closed != nil {
		close(p.closed)
	}
	p.ended = true
	var clients []*Client
	for _, h := range p.hosts {
		if h.client != nil {
			clients = append(clients, h.client)
			h.client.wire.kill(ErrClosed)
		}
	}
	p.mu.Unlock()
	var all sync.WaitGroup
	for _, client := range clients {
		all.Go(func() { _ = client.Close() })
	}
	all.Wait()
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case <-p.crew.ended():
	case <-timer.C:
	}
	return nil
}
