package tcpevent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/need"
)

func openProbes(t *testing.T) *Events {
	t.Helper()
	e := open(t)
	need.Feature(t, "keepalive timers seen by BPF", e.watchesKeepalive())
	return e
}

// watchesKeepalive is why there are no probes.
func (e *Events) watchesKeepalive() error {
	if e.Probes() {
		return nil
	}
	return e.watchKeepalive()
}

func keepalive(t *testing.T, c net.Conn, idle time.Duration) {
	t.Helper()
	if err := c.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: idle, Count: 9}); err != nil {
		t.Fatal(err)
	}
}

// A connection that is idle is told of with each probe, and how many before it
// got no answer.
func TestProbe(t *testing.T) {
	t.Parallel()
	for name, addresses := range map[string][3]string{
		"IPv4": {"10.77.1.1/24", "10.77.1.2/24", "10.77.1.2:80"},
		"IPv6": {"fd77::1/64", "fd77::2/64", "[fd77::2]:80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := openProbes(t)
			near, far, client, _ := pair(t, addresses[0], addresses[1], addresses[2])
			began := time.Now()
			keepalive(t, client, time.Second)
			for _, unanswered := range []uint8{0, 1} {
				got := await(t, e, Probe, near.Netns())
				for got.Unanswered < unanswered {
					got = await(t, e, Probe, near.Netns())
				}
				took := time.Since(began)
				t.Logf("%d unanswered: %v after the last, told %v late: %+v", unanswered, took.Round(time.Millisecond), (monotonic(t) - got.At).Round(time.Microsecond), got)
				if late := monotonic(t) - got.At; late < 0 || late > patience {
					t.Errorf("it was due %v ago", late)
				}
				if got.Local.String() != client.LocalAddr().String() || got.Remote.String() != addresses[2] || got.State != fact.Established || got.Retransmits != 0 {
					t.Errorf("got %+v", got)
				}
				if unanswered == 0 {
					if got.Unanswered != 0 {
						t.Errorf("the peer answers, but got %+v", got)
					}
					far.Unplug()
				}
				began = time.Now()
			}
		})
	}
}

// monotonic is what the kernel's bpf_ktime_get_ns reads.
func monotonic(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// No probe is sent, and none told of, where keepalive is off, where data waits
// for its acknowledgement, and where the last word is younger than the idle time.
func TestNoProbe(t *testing.T) {
	t.Parallel()
	e := openProbes(t)
	l := lab.New(t)
	near, far, dead := l.Host("near"), l.Host("far"), l.Host("dead")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	l.Wire(near, "10.77.2.1/24", dead, "10.77.2.2/24")
	// Each has a peer of its own, so that none is hidden by another.
	connect := func(host *lab.Host, dev, address string) *net.TCPConn {
		host.Run("ip", "address", "replace", address+"/24", "dev", dev)
		listener := host.Listen("tcp", address+":80")
		client := near.Dial("tcp", address+":80")
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		return client.(*net.TCPConn)
	}
	off, talks, idle := connect(far, "eth0", "10.77.1.3"), connect(far, "eth0", "10.77.1.4"), connect(far, "eth0", "10.77.1.5")
	waits := connect(dead, "eth0", "10.77.2.3")
	for _, c := range []*net.TCPConn{off, idle} {
		if err := c.SetKeepAlive(false); err != nil {
			t.Fatal(err)
		}
	}
	dead.Unplug()
	if _, err := waits.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	const quiet = 2 * time.Second
	keepalive(t, talks, quiet)
	keepalive(t, waits, quiet)
	for until := time.Now().Add(2*quiet + quiet/4); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if _, err := talks.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := talks.SetKeepAlive(false); err != nil {
		t.Fatal(err)
	}
	keepalive(t, idle, time.Second)
	// Whatever was told before comes before.
	for got := (Event{}); got.Remote.String() != idle.RemoteAddr().String(); {
		if got = await(t, e, Probe, near.Netns()); got.Remote.String() != idle.RemoteAddr().String() {
			t.Errorf("got %+v", got)
		}
	}
}

// However many connections and peers are idle, 200 of their probes a second are
// told of, and what is not answered has a share of its own.
func TestProbesAreBounded(t *testing.T) { // alone: it takes the share of the others too
	e := openProbes(t)
	l := lab.New(t)
	near, far, other := l.Host("near"), l.Host("far"), l.Host("other")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	l.Wire(near, "10.77.2.1/24", other, "10.77.2.2/24")
	near.Route("10.78.0.0/16", "10.77.1.2")
	far.Run("ip", "route", "add", "local", "10.78.0.0/16", "dev", "lo")
	far.Listen("tcp", "0.0.0.0:80")
	other.Listen("tcp", "10.77.2.2:80")
	const peers = 800
	for i := range peers {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), 80)
		keepalive(t, near.Dial("tcp", address.String()), time.Second)
	}
	dead := near.Dial("tcp", "10.77.2.2:80")
	keepalive(t, dead, time.Second)
	if _, err := e.drain(t, 1200*time.Millisecond); err != nil { // the first probes
		t.Fatal(err)
	}
	other.Unplug()
	cost := e.cost(t)
	began := time.Now()
	events, err := e.drain(t, 4*time.Second)
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	var told, unanswered int
	for _, event := range events {
		switch {
		case event.Kind == Probe && event.Unanswered == 0:
			told++
		case event.Kind == Probe && event.Remote.String() == "10.77.2.2:80":
			unanswered++
		}
	}
	runs, cpu := cost()
	t.Logf("%d timers expired, at %v each", runs, cpu/time.Duration(max(runs, 1)))
	most := int((took + burst) / each)
	t.Logf("%d idle connections to as many peers for %v: told %d times, of the one that is dead %d times", peers, took.Round(time.Millisecond), told, unanswered)
	if told == 0 || told > 2*most { // each processor may slip one through at once
		t.Errorf("told %d times, of at most %d", told, most)
	}
	if unanswered == 0 {
		t.Error("what is not answered is not told of")
	}
}

// What each and burst of tcpevent.bpf.c are.
const each, burst = 5 * time.Millisecond, time.Second

// drain returns what happens in some time.
func (e *Events) drain(t *testing.T, in time.Duration) (all []Event, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), in)
	defer cancel()
	for {
		b, err := e.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, b.Events...)
	}
}

// What the expiry of a timer costs that is not one of keepalive: here, of 1000
// sockets whose SYN gets no answer.
func TestCost(t *testing.T) {
	e := openProbes(t)
	near, far, _, _ := pair(t, "10.77.1.1/24", "10.77.1.2/24", "10.77.1.2:80")
	far.Unplug()
	cost := e.cost(t)
	if err := near.Do(func() error {
		for range 1000 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			t.Cleanup(func() { unix.Close(fd) })
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 77, 1, 2}, Port: 80}); err != unix.EINPROGRESS {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	time.Sleep(1500 * time.Millisecond)
	runs, took := cost()
	t.Logf("%d timers expired in %v, at %v each", runs, time.Since(began).Round(time.Millisecond), took/time.Duration(max(runs, 1)))
	if runs == 0 || took/time.Duration(runs) > 20*time.Microsecond {
		t.Errorf("%d timers expired, and %v went into it", runs, took)
	}
}

// cost begins to measure and returns how often the program for probes ran since
// and how long it took in all.
func (e *Events) cost(t *testing.T) func() (runs uint64, took time.Duration) {
	t.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	need.Feature(t, "statistics of BPF programs", err)
	t.Cleanup(func() { stats.Close() })
	program := e.loaded.Programs[eventsProgProbe]
	read := func() *ebpf.ProgramStats {
		s, err := program.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := read()
	return func() (uint64, time.Duration) {
		after := read()
		return after.RunCount - before.RunCount, after.Runtime - before.Runtime
	}
}
