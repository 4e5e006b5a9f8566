package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// The addresses of a busy machine: its pod and who dials it, from as many
// addresses as there are clients, and a peer that will die.
const (
	podAddress    = "10.77.1.2"
	clientAddress = "10.77.1.1"
	podFar        = "10.77.2.1"
	farAddress    = "10.77.2.2"
	clientNetwork = "10.78.0.0/16"
	clients       = 200
)

const (
	// workers is how many processes make connections at a time. Each lives for
	// workerLife and is followed by another one, every fourth in a network
	// namespace of its own, which comes and goes with it.
	workers    = 10
	workerLife = 10 * time.Second

	// renewal is how often one of the programs is replaced by a new one.
	renewal = time.Minute
)

// busyNode is a machine on which much goes on.
type busyNode struct {
	pod, client, far *lab.Host
	dir              string
	all              holders
	farHolders       holders
	farListeners     []io.Closer

	working        sync.WaitGroup
	end            context.CancelFunc
	starts, spaces atomic.Int64
	opens          atomic.Int64 // by the workers that have ended
	failed         atomic.Pointer[error]
	rate           int // of one worker
	servers        []string
}

// newBusyNode makes one on which nothing goes on yet.
func newBusyNode(l *lab.Lab, dir string, f *agentFlags) *busyNode {
	n := &busyNode{pod: l.Host("pod"), client: l.Host("client"), far: l.Host("far"), dir: dir, rate: f.connects / workers, end: func() {}}
	l.Wire(n.pod, podAddress+"/24", n.client, clientAddress+"/24")
	l.Wire(n.pod, podFar+"/24", n.far, farAddress+"/24")
	n.pod.Route(clientNetwork, clientAddress)
	n.client.Run("ip", "route", "add", "local", clientNetwork, "dev", "lo") // all of them are its own
	return n
}

// fill opens as many sockets, and starts all that comes and goes.
func (n *busyNode) fill(ctx context.Context, sockets int) error {
	const each = 15_000        // a process may have 20,000 files
	connections := sockets / 2 // both ends are here
	parts := (connections + each - 1) / each
	type dialled struct {
		holder
		err error
	}
	started := make(chan dialled, parts)
	begun, failed := 0, error(nil)
	for i := range parts {
		address := net.JoinHostPort(podAddress, strconv.Itoa(8080+i))
		share := connections/parts + min(1, connections%parts/(i+1))
		server, err := startHolder(ctx, n.pod, "serve", address)
		if failed = err; err != nil {
			break
		}
		n.all, begun = append(n.all, server), begun+1
		go func() {
			client, err := startHolder(ctx, n.client, "dial", address, strconv.Itoa(share), "0", strconv.Itoa(clients))
			started <- dialled{client, err}
		}()
	}
	for range begun {
		client := <-started
		if failed = errors.Join(failed, client.err); client.err == nil {
			n.all = append(n.all, client.holder)
		}
	}
	if failed != nil {
		return fmt.Errorf("processes to hold connections: %w", failed)
	}
	return n.work(ctx)
}

// work starts all that comes and goes.
func (n *busyNode) work(ctx context.Context) error {
	if n.rate == 0 {
		return nil
	}
	for i := range 2 {
		address := net.JoinHostPort(podAddress, strconv.Itoa(9080+i))
		h, err := startHolder(ctx, n.pod, "answer", address)
		if err != nil {
			return err
		}
		n.all, n.servers = append(n.all, h), append(n.servers, address)
	}
	for i := range workers {
		if err := n.renew(i); err != nil {
			return err
		}
	}
	ctx, n.end = context.WithCancel(ctx)
	for i := range workers {
		n.working.Go(func() {
			// They begin one after the other, and so go one after the other.
			wait := time.NewTimer(workerLife * time.Duration(i) / workers)
			defer wait.Stop()
			select {
			case <-ctx.Done():
			case <-wait.C:
			}
			for k := 0; ctx.Err() == nil; k++ {
				if err := n.one(ctx, i, k); err != nil && ctx.Err() == nil {
					n.failed.Store(&err)
					return
				}
			}
		})
	}
	n.working.Go(func() { n.renewing(ctx) })
	return nil
}

func (n *busyNode) program(i int) string { return filepath.Join(n.dir, "worker-"+strconv.Itoa(i)) }

// renew puts a new program in the place of one, as a deployment does.
func (n *busyNode) renew(i int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	fresh := n.program(i) + ".new"
	if err := os.WriteFile(fresh, text, 0o755); err != nil {
		return err
	}
	return os.Rename(fresh, n.program(i))
}

func (n *busyNode) renewing(ctx context.Context) {
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := n.renew(rand.IntN(workers)); err != nil {
				n.failed.Store(&err)
			}
		}
	}
}

// one is the life of a worker.
func (n *busyNode) one(ctx context.Context, i, k int) error {
	args := []string{n.program(i), "hold", "work", n.servers[i%len(n.servers)], strconv.Itoa(n.rate), workerLife.String()}
	cmd := n.client.Command(args[0], args[1:]...)
	if (i+k)%4 == 0 {
		args[3] = "127.0.0.1:0" // its own
		n.spaces.Add(1)
		cmd = exec.Command("unshare", append([]string{"--net", "--", "sh", "-c", `ip link set lo up && exec "$@"`, "worker"}, args...)...)
	}
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = input.Close() })()
	cmd.Stderr = os.Stderr
	n.starts.Add(1)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("a worker: %w", err)
	}
	opened, err := strconv.ParseInt(string(out), 10, 64)
	n.opens.Add(opened)
	return err
}

// opened is how many connections the workers made that have ended, started how
// many there were, namespaces how many of them had one of their own.
func (n *busyNode) opened() int64     { return n.opens.Load() }
func (n *busyNode) started() int64    { return n.starts.Load() }
func (n *busyNode) namespaces() int64 { return n.spaces.Load() }

// trouble is why not all goes on as it should.
func (n *busyNode) trouble() error {
	if err := n.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// openFar opens connections with the peer that will die, or more of them, which are
// sent to.
func (n *busyNode) openFar(ctx context.Context, many int) error {
	address, first := net.JoinHostPort(farAddress, "8080"), len(n.farHolders)
	if first == 0 {
		server, err := startHolder(ctx, n.far, "serve", address)
		if err != nil {
			return err
		}
		n.farHolders = append(n.farHolders, server)
	}
	client, err := startHolder(ctx, n.pod, "dial", address, strconv.Itoa(many), (time.Second * 5 / time.Duration(many)).String(), "0", "0s")
	if err != nil {
		return err
	}
	n.farHolders = append(n.farHolders, client)
	n.farHolders[first:].start()
	return nil
}

func (n *busyNode) closeFar() {
	for _, h := range n.farHolders {
		_ = h.cmd.Process.Kill()
	}
	n.farHolders.stop()
	n.farHolders = nil
}

func (n *busyNode) listenFar(many int) error {
	for range many {
		l, err := listen(n.pod, podAddress+":0")
		if err != nil {
			return err
		}
		n.farListeners = append(n.farListeners, l)
	}
	return nil
}

// instead adds what a user would have run in place of the agent: ss in each
// namespace, every 10 s.
func (n *busyNode) instead(ctx context.Context, t *table) error {
	var sum cost
	for _, h := range []*lab.Host{n.pod, n.client} {
		one, err := program("nsenter", "--net="+h.Path(), "--", "ss", "-tanp")(ctx)
		if err != nil {
			return err
		}
		sum.cpu += one.cpu
		sum.memory = max(sum.memory, one.memory)
	}
	t.row("instead: ss -tanp in two namespaces, every 10 s", fmt.Sprintf("%s, %s", percent(sum.cpu.Seconds()/10), mebibytes(sum.memory)), "-", 0)
	return nil
}

func (n *busyNode) stop() {
	n.end()
	n.working.Wait()
	for _, l := range n.farListeners {
		_ = l.Close()
	}
	n.closeFar()
	n.all.stop()
}

// answer accepts connections, answers the first byte of each, and closes it when
// its client does.
func (h *held) answer(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	h.keep(l)
	go answering(l)
	return nil
}

func answering(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// workFor makes so many connections in a second for a while, and prints how many
// it made. The host of an address with port 0 is this process.
func workFor(address string, rate int, life time.Duration) error {
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		defer l.Close()
		go answering(l)
		address = l.Addr().String()
	}
	ended := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(ended) }()
	over := time.NewTimer(life)
	defer over.Stop()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for made := 0; ; made++ {
		select {
		case <-ended:
		case <-over.C:
		case <-tick.C:
			if err := exchange(address); err != nil {
				return err
			}
			continue
		}
		_, err := fmt.Print(made)
		return err
	}
}

// exchange is one connection: it sends a byte, gets it back, and ends.
func exchange(address string) error {
	d := net.Dialer{Timeout: 10 * time.Second}
	if host, _, _ := net.SplitHostPort(address); host == podAddress {
		d.LocalAddr = clientAt(rand.IntN(clients))
	}
	c, err := d.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return errors.Join(err, c.Close())
}

// clientAt is the address of a client, at a port that the kernel chooses.
func clientAt(i int) net.Addr {
	a := netip.MustParsePrefix(clientNetwork).Addr().As4()
	a[2], a[3] = byte(1+i/250), byte(1+i%250)
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(a), 0))
}
