package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// acceptWaiting is how many connections may wait for Accept. The server is told
// that there is no room for more.
const acceptWaiting = 64

// Listen has the server listen (RFC 4254, section 7.1) on a TCP address as it is
// seen there; port 0 is one that the server chooses, which the listener's Addr
// has. What it accepts comes to the listener, as connections like those of
// [Client.Dial]. OpenSSH listens on loopback only, unless its GatewayPorts says
// otherwise.
//
// It returns within the context and Budgets.Request. Accept returns when the
// client ends, for the same cause. Close lets go what was not accepted; the
// server is told in the background.
//
// SSH answers such requests in their order, the keepalive among them: a server
// that leaves this one unanswered, and sends nothing else, counts as silent.
func (c *Client) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	began := time.Now()
	host, port, err := splitPort(addr)
	if network != "tcp" {
		err = fmt.Errorf("network %q: a server can only be asked for tcp", network)
	}
	if err != nil {
		return nil, c.fail(Request, NotSent, began, err)
	}
	limited, cancel := within(ctx, "Request", c.budgets.Request)
	defer cancel()
	settled := c.listeners.asking()
	defer settled()
	bound, err := await(limited, c, func() (uint32, error) { return c.askListen(host, port) }, func(bound uint32) { c.askListenNoMore(host, bound) })
	if err != nil {
		if !errors.Is(err, ErrRefused) && limited.Err() == nil {
			err = c.because(err)
		}
		return nil, c.fail(Request, NotSent, began, fmt.Errorf("listen on %s: %w", addr, err))
	}
	l := &listener{client: c, host: host, port: bound, waiting: make(chan net.Conn, acceptWaiting), gone: make(chan struct{})}
	c.listeners.add(l)
	return l, nil
}

// binding is what tcpip-forward and cancel-tcpip-forward say.
type binding struct {
	Host string
	Port uint32
}

func (c *Client) askListen(host string, port uint32) (uint32, error) {
	ok, answer, err := c.conn.SendRequest("tcpip-forward", true, xssh.Marshal(binding{host, port}))
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, fmt.Errorf("%w: request tcpip-forward", ErrRefused)
	case port != 0:
		return port, nil
	}
	var chosen struct{ Port uint32 }
	if err := xssh.Unmarshal(answer, &chosen); err != nil || chosen.Port == 0 || chosen.Port > 65535 {
		return 0, errors.New("the server has not said which port it chose")
	}
	return chosen.Port, nil
}

// askListenNoMore does not wait for an answer.
func (c *Client) askListenNoMore(host string, port uint32) {
	c.crew.start(func() {
		_, _, _ = c.conn.SendRequest("cancel-tcpip-forward", false, xssh.Marshal(binding{host, port}))
	})
}

// listener is a port of the server.
type listener struct {
	client  *Client
	host    string
	port    uint32
	waiting chan net.Conn
	once    sync.Once
	gone    chan struct{} // closed by Close
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.gone:
		return nil, l.fail(net.ErrClosed)
	case <-l.client.wire.dead:
		return nil, l.fail(l.client.passed())
	case conn := <-l.waiting:
		return conn, nil
	}
}

func (l *listener) fail(err error) error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.client.listeners.remove(l) // from here on nothing is put to the others
		close(l.gone)
		for {
			select {
			case conn := <-l.waiting:
				_ = conn.Close()
				continue
			default:
			}
			break
		}
		l.client.askListenNoMore(l.host, l.port)
	})
	return nil
}

// Addr is where the server listens, as it was asked to.
func (l *listener) Addr() net.Addr {
	return tunnelAddr{"tcp", net.JoinHostPort(l.host, strconv.Itoa(int(l.port)))}
}

// listeners are those of a client.
type listeners struct {
	mu      sync.Mutex
	all     []*listener
	asked   int           // calls of Listen under way
	settled chan struct{} // closed when there are none any more; nil when there are none
}

// asking tells of a call of Listen, until settled is called.
func (ls *listeners) asking() (settled func()) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.asked++; ls.asked == 1 {
		ls.settled = make(chan struct{})
	}
	return func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		if ls.asked--; ls.asked == 0 {
			close(ls.settled)
			ls.settled = nil
		}
	}
}

// wait returns the listener of a connection. A server may send it before those
// who asked for it have seen that it agreed.
func (ls *listeners) wait(host string, port uint32, dead <-chan struct{}) *listener {
	for {
		found, settled := ls.find(host, port)
		if found != nil || settled == nil {
			return found
		}
		select {
		case <-settled:
		case <-dead:
			return nil
		}
	}
}

func (ls *listeners) add(l *listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.all = append(ls.all, l)
}

func (ls *listeners) remove(l *listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for i, other := range ls.all {
		if other == l {
			ls.all = append(ls.all[:i:i], ls.all[i+1:]...)
			return
		}
	}
}

// find returns whose connection it is. OpenSSH names the address as it was
// asked for, others as they understood it.
func (ls *listeners) find(host string, port uint32) (found *listener, settled <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.all {
		if l.port == port && (found == nil || l.host == host) {
			found = l
		}
	}
	return found, ls.settled
}

// put gives a connection to a listener, if that is still there.
func (ls *listeners) put(l *listener, conn net.Conn) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, other := range ls.all {
		if other != l {
			continue
		}
		select {
		case l.waiting <- conn:
			return true
		default:
			return false
		}
	}
	return false
}

// acceptChannels takes the channels that a server opens: for what it was asked
// to listen on. All others are refused.
func (c *Client) acceptChannels(channels <-chan xssh.NewChannel) {
	opening := make(chan struct{}, acceptWaiting)
	for channel := range channels {
		var from forwarded
		if channel.ChannelType() != "forwarded-tcpip" || xssh.Unmarshal(channel.ExtraData(), &from) != nil {
			_ = channel.Reject(xssh.UnknownChannelType, "not asked for")
			continue
		}
		select {
		case opening <- struct{}{}:
		default:
			_ = channel.Reject(xssh.ResourceShortage, "too many wait to be accepted")
			continue
		}
		c.crew.start(func() {
			defer func() { <-opening }()
			c.acceptForwarded(channel, from)
		})
	}
}

func (c *Client) acceptForwarded(channel xssh.NewChannel, from forwarded) {
	l := c.listeners.wait(from.Host, from.Port, c.wire.dead)
	switch {
	case l == nil:
		_ = channel.Reject(xssh.Prohibited, "not asked for")
		return
	case len(l.waiting) == cap(l.waiting):
		_ = channel.Reject(xssh.ResourceShortage, "too many wait to be accepted")
		return
	}
	accepted, requests, err := channel.Accept()
	if err != nil {
		return
	}
	remote := tunnelAddr{"tcp", net.JoinHostPort(from.Originator, strconv.Itoa(int(from.OriginPort)))}
	conn := newTunnel(c, accepted, requests, l.Addr(), remote)
	if !c.listeners.put(l, conn) {
		_ = conn.Close()
	}
}
