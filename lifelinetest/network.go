package lifelinetest

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Network is a network in memory for tests: listeners and connections between
// them, with the [Faults] that a test sets at any time. Nothing of it leaves the
// process, and it works in the bubbles of package testing/synctest, where a silence
// of minutes takes no time. The zero value is a network without faults.
//
//	var network lifelinetest.Network
//	ln, err := network.Listen("server:80")
//	client := http.Client{Transport: &http.Transport{DialContext: network.DialContext}}
//	…
//	network.Set(lifelinetest.Faults{Silent: true}) // from now on nothing arrives
//
// It has no kernel: what a real one does about a silent peer (keepalive,
// retransmissions, an end after minutes) it does not do.
type Network struct {
	mu        sync.Mutex
	faults    Faults
	listeners map[string]*listener
	links     map[*link]struct{} // open connections
	port      int                // the last that was given to a client
}

// Faults are what is wrong with a network. The zero value is nothing.
type Faults struct {
	// Silent: nothing arrives, in either direction, as behind a cable that was
	// pulled: neither data, nor that an end was closed. Writes succeed until
	// Buffer is full. When it is over, all arrives.
	Silent bool

	// Stalled: whoever accepted the connections gets nothing to read, as a program
	// that hangs reads nothing; what it writes arrives.
	Stalled bool

	// Refused: nobody is there to connect to. Open connections stay.
	Refused bool

	// Delay is the time that data takes to arrive, each way.
	Delay time.Duration

	// Segment is how much a Read returns at most; 0 means as much as there is. A
	// protocol must not care.
	Segment int

	// CutAfter resets each connection when that many bytes were written on it,
	// both directions together, in the middle of a Write, which then returns how
	// many it has written. 0 means never.
	CutAfter int64

	// Buffer is how much can be under way in each direction before Write waits;
	// 0 means 64 KiB.
	Buffer int
}

const defaultBuffer = 64 << 10

// Set sets the faults of the network, for all connections that there are and
// will be.
func (n *Network) Set(f Faults) {
	n.mu.Lock()
	n.faults = f
	links := n.open()
	n.mu.Unlock()
	for _, l := range links {
		l.set(f)
	}
}

// Reset resets all open connections: what was under way is lost, and Read and
// Write at both ends return ECONNRESET. Listeners stay.
func (n *Network) Reset() {
	n.mu.Lock()
	links := n.open()
	n.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
}

// Open returns how many connections have an end that was not closed.
func (n *Network) Open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.links)
}

// open returns the open connections. The caller holds the lock.
func (n *Network) open() (all []*link) {
	for l := range n.links {
		all = append(all, l)
	}
	return all
}

// Listen listens on an address, which can be any text: names need not resolve.
func (n *Network) Listen(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, failed("listen", nil, where(address), syscall.EADDRINUSE)
	}
	if n.listeners == nil {
		n.listeners = make(map[string]*listener)
	}
	l := &listener{network: n, address: where(address), waiting: make(chan *conn, 128), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// Dial is [Network.DialContext] without a context.
func (n *Network) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

// DialContext connects to a listener. It returns ECONNREFUSED where there is none,
// and waits for the context while the network is silent. Which network is asked
// for does not matter.
func (n *Network) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	for {
		n.mu.Lock()
		f, l := n.faults, n.listeners[address]
		n.mu.Unlock()
		switch {
		case f.Silent: // a SYN is sent again every second
			if err := sleep(ctx, time.Second); err != nil {
				return nil, failed("dial", nil, where(address), err)
			}
			continue
		case f.Refused || l == nil:
			return nil, failed("dial", nil, where(address), syscall.ECONNREFUSED)
		}
		if err := sleep(ctx, f.Delay); err != nil {
			return nil, failed("dial", nil, where(address), err)
		}
		return n.connect(ctx, l)
	}
}

// connect gives one end of a new connection to the listener and returns the other.
func (n *Network) connect(ctx context.Context, l *listener) (net.Conn, error) {
	client, server := n.link(l.address)
	select {
	case l.waiting <- server:
		return client, nil
	case <-l.closed:
		err := failed("dial", nil, l.address, syscall.ECONNREFUSED)
		return nil, errors.Join(err, client.Close(), server.Close())
	case <-ctx.Done():
		err := failed("dial", nil, l.address, ctx.Err())
		return nil, errors.Join(err, client.Close(), server.Close())
	}
}

// sleep waits for so long, or until the context is done.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// where is the address of an end.
type where string

func (where) Network() string  { return "memory" }
func (w where) String() string { return string(w) }

// failed returns an error as package net has them.
func failed(op string, from, to net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "memory", Source: from, Addr: to, Err: err}
}

// listener accepts the connections to one address.
type listener struct {
	network *Network
	address where
	waiting chan *conn
	closed  chan struct{}
	once    sync.Once
}

// Accept waits for the next connection, or Close.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, failed("accept", nil, l.address, net.ErrClosed)
	default:
	}
	select {
	case c := <-l.waiting:
		return c, nil
	case <-l.closed:
		return nil, failed("accept", nil, l.address, net.ErrClosed)
	}
}

// Close ends the listener, and resets the connections that were not accepted.
func (l *listener) Close() error {
	err := failed("close", nil, l.address, net.ErrClosed)
	l.once.Do(func() {
		err = nil
		l.network.mu.Lock()
		delete(l.network.listeners, string(l.address))
		l.network.mu.Unlock()
		close(l.closed)
	})
	for {
		select {
		case c := <-l.waiting:
			c.link.reset()
			_ = c.Close()
		default:
			return err
		}
	}
}

func (l *listener) Addr() net.Addr { return l.address }
