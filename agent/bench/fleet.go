package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
)

// storySize is how many connections the node of the story forwarded.
const storySize = 4224

// fleet is connections that this process holds both ends of, each on its host.
type fleet struct {
	clients, servers []net.Conn
	ended            []time.Time // when the reads of the servers returned
	left             atomic.Int64
	done             chan struct{} // closed when none is left
}

// open dials n connections from a host, spread over a time, to an address that
// leads to where the listener is.
func open(ctx context.Context, from *lab.Host, l net.Listener, address string, n int, spread time.Duration) (*fleet, error) {
	f := &fleet{}
	began := time.Now()
	err := from.Do(func() error {
		for i := range n {
			if err := pause(ctx, time.Until(began.Add(spread*time.Duration(i)/time.Duration(n)))); err != nil {
				return err
			}
			client, err := net.DialTimeout("tcp", address, 10*time.Second) // an address, so it is this thread that makes the socket
			if err != nil {
				return err
			}
			f.clients = append(f.clients, client)
			server, err := l.Accept()
			if err != nil {
				return err
			}
			f.servers = append(f.servers, server)
		}
		return nil
	})
	if err != nil {
		f.close()
		return nil, fmt.Errorf("open %d connections: %w", n, err)
	}
	return f, nil
}

// read has every server read, as a program would, until its connection ends.
func (f *fleet) read() {
	f.ended, f.done = make([]time.Time, len(f.servers)), make(chan struct{})
	f.left.Store(int64(len(f.servers)))
	for i, c := range f.servers {
		go func() {
			for b := make([]byte, 64); ; {
				if _, err := c.Read(b); err != nil {
					break
				}
			}
			f.ended[i] = time.Now()
			if f.left.Add(-1) == 0 {
				close(f.done)
			}
		}()
	}
}

// beat has the servers write a byte each, every so often and evenly spread,
// until stop is called.
func (f *fleet) beat(every time.Duration) (stop func()) {
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every / time.Duration(len(f.servers)))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			case <-tick.C:
				_, _ = f.servers[i%len(f.servers)].Write([]byte{1})
			}
		}
	})
	return sync.OnceFunc(func() { close(ended); wg.Wait() })
}

// over reports how many of the servers' connections have ended. Where some have
// not it takes a few seconds to be sure.
func (f *fleet) over() (n int) {
	deadline := time.Now().Add(3 * time.Second)
	for _, c := range f.servers {
		_ = c.SetReadDeadline(deadline)
		var late net.Error
		if _, err := c.Read(make([]byte, 1)); err != nil && !(errors.As(err, &late) && late.Timeout()) {
			n++
		}
	}
	return n
}

func (f *fleet) close() {
	for _, c := range f.clients {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	for _, c := range f.servers {
		_ = c.Close()
	}
}

// pause waits, or ends with the context.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// twoHosts wires a pod to a node, whose link address the pod does not forget:
// to a neighbour that is lost the kernel says a word, and a dead node says none.
func twoHosts(l *lab.Lab) (pod, router *lab.Host) {
	pod, router = l.Host("pod"), l.Host("node")
	l.Wire(pod, "10.77.1.3/24", router, "10.77.1.2/24")
	pod.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	return pod, router
}

// connections are those of a host to the node, as one look shows them, with
// their owners.
func connections(ctx context.Context, n *node.Node, h *lab.Host) (*fact.Machine, []*fact.Socket, error) {
	of, err := node.ParseNamespaces(h.Path())
	if err != nil {
		return nil, nil, err
	}
	m, err := n.Look(ctx, node.Want{Sockets: sockdiag.Want{TCP: true}, Namespaces: of})
	if err != nil {
		return nil, nil, err
	}
	return m, act.Select(m, census.Filter{States: []fact.State{fact.Established}}, 0), nil
}

// best is the least of several measurements: what a noisy machine adds is no
// merit of what is measured.
func best(all []time.Duration) time.Duration {
	least := all[0]
	for _, d := range all {
		least = min(least, d)
	}
	return least
}

// listen listens on a host until it is closed.
func listen(h *lab.Host, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}
