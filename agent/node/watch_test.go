package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/need"
)

// crowd is connections between a node and a pod, held by this process.
type crowd struct {
	node, pod *lab.Host
	client    []net.Conn // the node's ends
	server    []net.Conn // the pod's
}

// connected wires a node to a pod and opens n connections from it. keepalive is
// that of the pod's ends; nothing on the node ever reads.
func connected(t *testing.T, n int, keepalive net.KeepAliveConfig) *crowd {
	t.Helper()
	l := lab.New(t)
	c := &crowd{node: l.Host("node"), pod: l.Host("pod")}
	l.Wire(c.node, "10.77.1.2/24", c.pod, "10.77.1.3/24")
	c.pod.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000") // to a lost neighbour the kernel says a word
	listener := c.pod.Listen("tcp", "10.77.1.3:8080")
	dialer := net.Dialer{KeepAlive: -1}
	err := c.node.Do(func() error {
		for range n {
			client, err := dialer.Dial("tcp", "10.77.1.3:8080")
			if err != nil {
				return err
			}
			t.Cleanup(func() { client.Close() })
			server, err := listener.Accept()
			if err != nil {
				return err
			}
			t.Cleanup(func() { server.Close() })
			if err := server.(*net.TCPConn).SetKeepAliveConfig(keepalive); err != nil {
				return err
			}
			c.client, c.server = append(c.client, client), append(c.server, server)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// beat writes a byte on each of the pod's connections every so often, spread
// evenly, until the test ends.
func (c *crowd) beat(t *testing.T, every time.Duration) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every / time.Duration(len(c.server)))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = c.server[i%len(c.server)].Write([]byte{1})
			}
		}
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
}

// watch watches a host until the test ends, and returns its verdicts.
func watch(t *testing.T, h *lab.Host, w PeerWatch) <-chan verdict.Change {
	t.Helper()
	one, err := ParseNamespaces(h.Path())
	if err != nil {
		t.Fatal(err)
	}
	w.Of = one
	ctx, cancel := context.WithCancel(context.Background())
	said := make(chan verdict.Change, 64)
	began := make(chan struct{})
	var once sync.Once
	n := New()
	var wg sync.WaitGroup
	wg.Go(func() {
		err := n.WatchPeers(ctx, w, func(_ *fact.Machine, changes []verdict.Change) error {
			once.Do(func() { close(began) })
			for _, c := range changes {
				said <- c
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); _ = n.Close() })
	select {
	case <-began:
	case <-time.After(10 * time.Second):
		t.Fatal("the watch does not begin")
	}
	return said
}

func next(t *testing.T, said <-chan verdict.Change, within time.Duration) verdict.Change {
	t.Helper()
	select {
	case c := <-said:
		return c
	case <-time.After(within):
		t.Fatalf("no verdict within %v", within)
		return verdict.Change{}
	}
}

// A node dies without a word: the verdict falls, says whose the connections
// are, and is lifted when the node is back.
func TestWatchPeersFindsTheDead(t *testing.T) {
	for _, test := range []struct {
		name      string
		conns     int
		beat      time.Duration
		keepalive net.KeepAliveConfig
		watch     PeerWatch
		within    time.Duration // generous: what is measured is logged
	}{
		{"200 that send", 200, 5 * time.Second, net.KeepAliveConfig{Enable: true}, PeerWatch{}, 60 * time.Second},
		{"200 idle", 200, 0, net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: 2 * time.Second}, PeerWatch{}, 60 * time.Second},
		{"3 that send, not poked", 3, time.Second, net.KeepAliveConfig{Enable: true}, PeerWatch{Passive: true}, 90 * time.Second},
		{"1 that sends", 1, time.Second, net.KeepAliveConfig{Enable: true}, PeerWatch{}, 60 * time.Second},
		{"3 that send", 3, time.Second, net.KeepAliveConfig{Enable: true}, PeerWatch{}, 60 * time.Second},
		{"20 that send", 20, time.Second, net.KeepAliveConfig{Enable: true}, PeerWatch{}, 60 * time.Second},
		{"1 idle", 1, 0, net.KeepAliveConfig{Enable: false}, PeerWatch{Ask: time.Second}, 60 * time.Second},
		{"3 idle", 3, 0, net.KeepAliveConfig{Enable: false}, PeerWatch{Ask: time.Second}, 60 * time.Second},
		{"20 idle", 20, 0, net.KeepAliveConfig{Enable: false}, PeerWatch{Ask: time.Second}, 60 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := connected(t, test.conns, test.keepalive)
			if test.beat > 0 {
				c.beat(t, test.beat)
			}
			said := watch(t, c.pod, test.watch)
			time.Sleep(2 * time.Second)
			died := time.Now()
			c.node.Unplug()
			fell := next(t, said, test.within)
			t.Logf("silent after %v, told after %v: %+v", fell.Time.Sub(died).Round(time.Millisecond), time.Since(died).Round(time.Millisecond), fell.Evidence)
			if fell.Verdict != verdict.Silent || fell.Addr.String() != "10.77.1.2" || fell.Count != test.conns || fell.Time.Before(died) {
				t.Errorf("got %+v", fell)
			}
			if len(fell.Processes) != 1 || fell.Processes[0].PID != int32(os.Getpid()) || test.keepalive.Enable && (!fell.Idle.OK || !fell.Last.OK) {
				t.Errorf("whose they are and how long the kernel takes: %+v", fell)
			}
			c.node.Plug()
			if lifted := next(t, said, 60*time.Second); lifted.Verdict != verdict.Alive || lifted.Silent <= 0 {
				t.Errorf("after the node is back: %+v", lifted)
			}
		})
	}
}

// Under loss each way nobody is silent.
func TestWatchPeersSparesALossyPath(t *testing.T) {
	for _, test := range []struct{ loss, conns int }{{5, 20}, {20, 3}, {40, 100}, {40, 3}, {40, 1}} {
		loss, conns := test.loss, test.conns
		t.Run(fmt.Sprintf("%d connections at %d %%", conns, loss), func(t *testing.T) {
			t.Parallel()
			need.Program(t, "nft")
			c := connected(t, conns, net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 100})
			for _, hook := range []string{"input", "output"} {
				drop(c.pod, hook, loss)
			}
			c.beat(t, time.Second)
			said := watch(t, c.pod, PeerWatch{})
			select {
			case change := <-said:
				t.Errorf("a living peer got a verdict: %+v", change)
			case <-time.After(10 * time.Second):
			}
		})
	}
}

// A peer that does not read closes its window, and is alive.
func TestWatchPeersSparesASlowReader(t *testing.T) {
	t.Parallel()
	c := connected(t, 20, net.KeepAliveConfig{Enable: true})
	said := watch(t, c.pod, PeerWatch{})
	chunk := make([]byte, 1<<20)
	for i, server := range c.server {
		if err := c.client[i].(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		_ = server.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		for err := error(nil); err == nil; {
			_, err = server.Write(chunk)
		}
	}
	select {
	case change := <-said:
		t.Errorf("a slow reader got a verdict: %+v", change)
	case <-time.After(8 * time.Second):
	}
}

// drop loses so many per cent of all packets of a host in one direction.
func drop(h *lab.Host, hook string, percent int) {
	h.Run("nft", "add", "table", "ip", "loss")
	h.Run("nft", "add", "chain", "ip", "loss", hook, "{ type filter hook "+hook+" priority 0; }")
	h.Run("nft", "add", "rule", "ip", "loss", hook, "numgen", "random", "mod", "100", "<", fmt.Sprint(percent), "drop")
}

// A stopped watch returns at once, and one of a namespace that is gone says so.
func TestWatchPeersEnds(t *testing.T) {
	h := lab.New(t).Host("a")
	one, err := ParseNamespaces(h.Path())
	if err != nil {
		t.Fatal(err)
	}
	n := New()
	defer n.Close()
	stop := errors.New("enough")
	var told atomic.Int32
	err = n.WatchPeers(context.Background(), PeerWatch{Of: one}, func(m *fact.Machine, changes []verdict.Change) error {
		told.Add(1)
		if len(changes) > 0 || len(m.Namespaces) != 1 || m.Time.IsZero() {
			t.Errorf("the first look: %+v %+v", m, changes)
		}
		return stop
	})
	if !errors.Is(err, stop) || told.Load() != 1 {
		t.Errorf("told %d times, ended with %v", told.Load(), err)
	}
	err = n.WatchPeers(context.Background(), PeerWatch{Of: Namespaces{inode: 1, text: "blue"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "blue is gone") {
		t.Errorf("a namespace that is gone: %v", err)
	}
}

// Whoever acts on a verdict is given all sockets, also where the look that brought
// it was one at those of the peer alone: whether another peer was heard decides.
func TestWatchPeersBriefHasAll(t *testing.T) {
	t.Parallel()
	c := connected(t, 40, net.KeepAliveConfig{Enable: true, Idle: time.Minute})
	pod, err := ParseNamespaces(c.pod.Path())
	if err != nil {
		t.Fatal(err)
	}
	n := New()
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	enough := errors.New("enough")
	c.beat(t, time.Second)
	unplug := time.AfterFunc(5*time.Second, c.node.Unplug) // the kernel is listened to by then
	defer unplug.Stop()
	err = n.WatchPeers(ctx, PeerWatch{Of: pod, Brief: true}, func(m *fact.Machine, changes []verdict.Change) error {
		if len(changes) == 0 {
			return nil
		}
		if !slices.ContainsFunc(m.Sockets, func(s fact.Socket) bool { return s.State == fact.Listen }) {
			t.Errorf("%+v is told with %d sockets, among which is no listener", changes, len(m.Sockets))
		}
		return enough
	})
	if !errors.Is(err, enough) {
		t.Errorf("the watch ended with %v", err)
	}
}

// Flows that only pass through are told with both ends, as they really are.
func TestTransit(t *testing.T) {
	need.Program(t, "nft")
	l := lab.New(t)
	client, router, server := l.Host("client"), l.Host("router"), l.Host("server")
	l.Wire(client, "10.77.1.1/24", router, "10.77.1.2/24")
	l.Wire(router, "10.77.2.1/24", server, "10.77.2.2/24")
	router.Sysctl("net.ipv4.ip_forward", "1")
	server.Route("default", "10.77.2.1")
	router.Run("nft", "add", "table", "ip", "nat")
	router.Run("nft", "add", "chain", "ip", "nat", "prerouting", "{ type nat hook prerouting priority -100; }")
	router.Run("nft", "add", "rule", "ip", "nat", "prerouting", "tcp", "dport", "30080", "dnat", "to", "10.77.2.2:8080")
	listener := server.Listen("tcp", "10.77.2.2:8080")
	for range 3 {
		client.Dial("tcp", "10.77.1.2:30080")
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	n := New()
	defer n.Close()
	m := lookAt(t, n, router.Path())
	Transit(m)
	flows := verdict.Forwarded(m, netip.Prefix{})
	if len(flows) != 3 || flows[0].ReplySource.String() != "10.77.2.2:8080" || flows[0].Destination.String() != "10.77.1.2:30080" {
		t.Errorf("got %+v, blind %+v", flows, m.Blind)
	}
	for dead, want := range map[string]int{"10.77.1.2/32": 3, "10.77.2.2/32": 3, "10.77.2.1/32": 3, "10.77.9.9/32": 0} {
		if loss := verdict.WhatIf(m, netip.MustParsePrefix(dead)); len(loss.Transit) != want {
			t.Errorf("%s dies: %d flows, want %d", dead, len(loss.Transit), want)
		}
	}
	quiet := lookAt(t, n, client.Path())
	if Transit(quiet); len(verdict.Forwarded(quiet, netip.Prefix{})) != 0 {
		t.Errorf("the client forwards %+v", quiet.Conntrack)
	}
}
