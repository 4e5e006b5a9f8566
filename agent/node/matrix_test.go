package node

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/need"
)

// soak makes TestLossIsNoSilence lose for so long in all, again and again.
var soak = flag.Duration("soak", 0, "how long the loss of TestLossIsNoSilence goes on; 0: once")

const (
	losing = 30 * time.Second // one loss
	intact = 10 * time.Second // between two of a soak, so that the next one begins on a path that is well

	// longest is how long a verdict may take on a machine that is busy with other
	// things. Most take 1 to 3 s; those with few connections on a path that is
	// known to lose wait for more unanswered pokes, and take 4 to 20 s.
	longest = 2 * time.Minute
)

// However much a path loses, each way, its peer is alive: for a watch that was
// there when the loss began, which is harder, and for one that began meanwhile,
// at both ends. Then the node dies, with the loss still there, and the same
// watches say so: it was not blindness that kept them quiet.
func TestLossIsNoSilence(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1000, 20, 3, 1} {
		for _, loss := range []int{5, 20, 40} {
			t.Run(fmt.Sprintf("%d connections at %d %%", conns, loss), func(t *testing.T) {
				t.Parallel()
				underLoss(t, conns, loss)
			})
		}
	}
}

func underLoss(t *testing.T, conns, loss int) {
	need.Program(t, "nft")
	c := connected(t, conns, probing)
	c.chat(t)
	watches := map[string]<-chan verdict.Change{"the pod": watch(t, c.pod, PeerWatch{}), "the node": watch(t, c.node, PeerWatch{})}
	time.Sleep(2 * time.Second)
	start := time.Now()
	for round := 1; ; round++ {
		c.lose(loss)
		if round == 1 {
			time.Sleep(time.Second)
			watches["the pod, watched since it loses"] = watch(t, c.pod, PeerWatch{})
		}
		for began := time.Now(); time.Since(began) < losing; time.Sleep(100 * time.Millisecond) {
			spared(t, watches, began)
		}
		if time.Since(start) > *soak {
			break
		}
		c.pod.Run("nft", "flush", "ruleset")
		for began := time.Now(); time.Since(began) < intact; time.Sleep(100 * time.Millisecond) {
			spared(t, watches, began)
		}
	}
	if conns < 8 {
		delete(watches, "the node") // where nobody sends, and nothing is lost
	}
	c.dies(t, watches, longest)
}

// probing is keepalive that asks often and never gives up.
var probing = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 127}

// lose drops so many per cent of what reaches the pod and of what leaves it.
func (c *crowd) lose(percent int) {
	for _, hook := range []string{"input", "output"} {
		drop(c.pod, hook, percent)
	}
}

// chat has every fourth connection carry a byte each 100 ms to 1 s, for five of
// each ten seconds, and leaves the others idle. The ends take turns in who sends.
// What comes is read.
func (c *crowd) chat(t *testing.T) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var senders []net.Conn
	for i := 0; i < len(c.client); i += 4 {
		from, to := c.server[i], c.client[i]
		if i%8 == 4 {
			from, to = to, from
		}
		senders = append(senders, from)
		wg.Go(func() { _, _ = io.Copy(io.Discard, to) })
	}
	wg.Go(func() {
		due := make([]time.Time, len(senders))
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			now := time.Now()
			if now.Sub(began)%(10*time.Second) > 5*time.Second {
				continue
			}
			for i, conn := range senders {
				if now.Before(due[i]) {
					continue
				}
				due[i] = now.Add(100*time.Millisecond + rand.N(900*time.Millisecond))
				_ = conn.SetWriteDeadline(now.Add(50 * time.Millisecond))
				_, _ = conn.Write([]byte{1})
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		for _, conn := range append(c.client, c.server...) {
			_ = conn.Close()
		}
		wg.Wait()
	})
}

// spared fails the test for each verdict that fell, none of which is true.
func spared(t *testing.T, watches map[string]<-chan verdict.Change, began time.Time) {
	t.Helper()
	for who, said := range watches {
		select {
		case change := <-said:
			t.Errorf("at %s a living peer got a verdict after %v: %+v", who, change.Time.Sub(began).Round(time.Millisecond), change)
		default:
		}
	}
}

// dies kills the node and waits until all watches have said so.
func (c *crowd) dies(t *testing.T, watches map[string]<-chan verdict.Change, within time.Duration) {
	t.Helper()
	died := time.Now()
	c.node.Unplug()
	var wg sync.WaitGroup
	for who, said := range watches {
		wg.Go(func() { toldDead(t, who, said, died, within) })
	}
	wg.Wait()
}

func toldDead(t *testing.T, who string, said <-chan verdict.Change, died time.Time, within time.Duration) {
	select {
	case fell := <-said:
		if fell.Verdict != verdict.Silent || fell.Time.Before(died) {
			t.Errorf("at %s: %+v", who, fell)
		}
		t.Logf("at %s silent after %v: %v", who, fell.Time.Sub(died).Round(time.Millisecond), fell.Evidence)
	case <-time.After(within):
		t.Errorf("at %s nobody says within %v that the peer died", who, within)
	}
}

// A peer that reads nothing for a minute, so that its window is closed at one
// end or the other, is alive; and so is one whose process is stopped.
func TestSlowIsNotSilent(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{20, 1} {
		t.Run(fmt.Sprintf("%d connections with a closed window", conns), func(t *testing.T) {
			t.Parallel()
			c := connected(t, conns, probing)
			watches := map[string]<-chan verdict.Change{"the pod": watch(t, c.pod, PeerWatch{}), "the node": watch(t, c.node, PeerWatch{})}
			c.fill()
			for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
				spared(t, watches, began)
			}
			c.fresh(t, 8).chat(t) // the others back off for too long to wait for
			time.Sleep(time.Second)
			c.dies(t, watches, longest)
		})
	}
}

// fill sends until nothing more fits, from the pod and from the node in turn.
func (c *crowd) fill() {
	chunk := make([]byte, 1<<18)
	for i := range c.server {
		from, to := c.server[i], c.client[i]
		if i%2 == 1 {
			from, to = to, from
		}
		_ = to.(*net.TCPConn).SetReadBuffer(4096)
		_ = from.(*net.TCPConn).SetWriteBuffer(4096)
		_ = from.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		for err := error(nil); err == nil; {
			_, err = from.Write(chunk)
		}
	}
}

// fresh is as many new connections between the same two, beside those of c.
func (c *crowd) fresh(t *testing.T, conns int) *crowd {
	t.Helper()
	more := &crowd{node: c.node, pod: c.pod}
	listener := c.pod.Listen("tcp", "10.77.1.3:8081")
	for range conns {
		more.client = append(more.client, c.node.Dial("tcp", "10.77.1.3:8081"))
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		more.server = append(more.server, server)
	}
	return more
}

// The kernel acknowledges for a process that is stopped.
func TestStoppedIsNotSilent(t *testing.T) {
	t.Parallel()
	c := stoppable(t, 20)
	watches := map[string]<-chan verdict.Change{"the pod": watch(t, c.pod, PeerWatch{})}
	c.beat(t, time.Second)
	c.process.signal(t, unix.SIGSTOP)
	for began := time.Now(); time.Since(began) < 32*time.Second; time.Sleep(100 * time.Millisecond) {
		spared(t, watches, began)
	}
	c.dies(t, watches, longest)
}

// puppet is a crowd whose node's ends are in a process of their own.
type puppet struct {
	crowd
	process *child
}

// stoppable is connected, with a process on the node that dials, and reads
// until it is stopped.
func stoppable(t *testing.T, conns int) *puppet {
	t.Helper()
	l := lab.New(t)
	c := &puppet{crowd: crowd{node: l.Host("node"), pod: l.Host("pod")}}
	l.Wire(c.node, "10.77.1.2/24", c.pod, "10.77.1.3/24")
	c.pod.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	listener := c.pod.Listen("tcp", "10.77.1.3:8080")
	program, args := itself(t, "dial", "10.77.1.3:8080", fmt.Sprint(conns))
	c.process = start(t, c.node.Command(program, args...))
	for range conns {
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		if err := server.(*net.TCPConn).SetKeepAliveConfig(probing); err != nil {
			t.Fatal(err)
		}
		c.server = append(c.server, server)
	}
	return c
}
