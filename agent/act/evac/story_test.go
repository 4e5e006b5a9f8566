//go:build linux

package evac

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// flow is both ends of a connection.
type flow struct{ client, server net.Conn }

// connect opens n connections to what the listener hears on address.
func connect(t testing.TB, from *lab.Host, l net.Listener, address string, n int) []flow {
	t.Helper()
	flows := make([]flow, 0, n)
	t.Cleanup(func() {
		for _, f := range flows {
			f.client.Close()
			f.server.Close()
		}
	})
	err := from.Do(func() error {
		for range n {
			client, err := net.DialTimeout("tcp", address, 10*time.Second) // an address, so it is this thread that makes the socket
			if err != nil {
				return err
			}
			server, err := l.Accept()
			if err != nil {
				client.Close()
				return err
			}
			flows = append(flows, flow{client, server})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return flows
}

// isReset reports that the kernel has reset the connection, or does so soon.
func isReset(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, unix.ECONNRESET)
}

// wantReset checks that both ends of all flows were reset.
func wantReset(t testing.TB, what string, flows []flow) {
	t.Helper()
	clients, servers := 0, 0
	for _, f := range flows {
		if isReset(f.client) {
			clients++
		}
		if isReset(f.server) {
			servers++
		}
	}
	if clients != len(flows) || servers != len(flows) {
		t.Errorf("%s: %d clients and %d servers of %d were reset", what, clients, servers, len(flows))
	}
}

// wantAlive checks that a byte gets through the flows, there and back.
func wantAlive(t testing.TB, what string, flows []flow) {
	t.Helper()
	for i, f := range flows {
		for _, way := range [][2]net.Conn{{f.client, f.server}, {f.server, f.client}} {
			_ = way[1].SetReadDeadline(time.Now().Add(10 * time.Second))
			got := make([]byte, 2)
			n, err := way[0].Write([]byte{1})
			if err == nil {
				n, err = way[1].Read(got)
			}
			if err != nil || n != 1 || got[0] != 1 {
				t.Errorf("%s: flow %d is not alive: got %v, %v", what, i, got[:n], err)
				return
			}
		}
	}
}

// run runs an evac on the node of the story, and checks that it leaves no rule.
func run(t testing.TB, s *lab.Story, o Options) Result {
	t.Helper()
	r, err := runUntil(t, context.Background(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func runUntil(t testing.TB, ctx context.Context, s *lab.Story, o Options) (r Result, err error) {
	t.Helper()
	before := rules(s)
	err = s.Node.Do(func() (err error) {
		r, err = Run(ctx, o)
		return err
	})
	after := rules(s)
	if strings.Contains(after, TableName) {
		t.Errorf("the rules are still there:\n%s", after)
	}
	if !strings.Contains(before, TableName) && after != before {
		t.Errorf("other rules were touched; before:\n%s\nafter:\n%s", before, after)
	}
	return r, err
}

// rules is all that nf_tables has on the node.
func rules(s *lab.Story) string {
	program, err := exec.LookPath("nft")
	if err != nil {
		return "" // the test that needs it has asked for it
	}
	out, err := s.Node.Command(program, "list", "ruleset").Output()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

func checkCounts(t testing.TB, r Result, flows int) {
	t.Helper()
	if len(r.Flows) != flows || r.Begun != flows || r.Clients != flows || r.Servers != flows || r.Unanswered != 0 || r.Unsent != nil {
		r.Flows = r.Flows[:min(3, len(r.Flows))]
		t.Errorf("%+v; want %d flows, and both ends of each told", r, flows)
	}
}

func TestBothEndsAreReset(t *testing.T) {
	for _, with := range []lab.NAT{lab.NFTables, lab.IPTables} {
		t.Run(string(with), func(t *testing.T) {
			s := lab.NewStory(t, with)
			l4, l6 := s.Pod.Listen("tcp", lab.StoryPod), s.Pod.Listen("tcp", lab.StoryPod6)
			plain4, plain6 := s.Pod.Listen("tcp", "10.77.2.2:9090"), s.Pod.Listen("tcp", "[fd77:2::2]:9090")
			out := s.LB.Listen("tcp", "10.77.1.2:80")
			flows := slices.Concat(
				connect(t, s.LB, l4, lab.StoryNodePort, 200),
				connect(t, s.LB, l6, lab.StoryNodePort6, 100),
				connect(t, s.LB, plain4, "10.77.2.2:9090", 50),
				connect(t, s.LB, plain6, "[fd77:2::2]:9090", 50),
				connect(t, s.LB, l4, lab.StoryPod, 20), // masqueraded only
				connect(t, s.Pod, out, "10.77.1.2:80", 20),
			)
			wantAlive(t, "before", flows)
			r := run(t, s, Options{})
			t.Logf("%d flows, both ends: %v", len(flows), r.Took)
			checkCounts(t, r, len(flows))
			wantReset(t, "all", flows)
		})
	}
}

// The story in its full size, as fast as it goes.
func TestTheStory(t *testing.T) {
	const connections = 4224
	s := lab.NewStory(t, lab.NFTables)
	flows := connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod), lab.StoryNodePort, connections)
	start := time.Now()
	r := run(t, s, Options{})
	t.Logf("%d flows, both ends: %v; the whole call with making and removing the rules: %v", connections, r.Took, time.Since(start))
	checkCounts(t, r, connections)
	wantReset(t, "all", flows)
}

func TestSpreadOverTime(t *testing.T) {
	const connections, within = 300, 3 * time.Second
	s := lab.NewStory(t, lab.NFTables)
	flows := connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod), lab.StoryNodePort, connections)
	begun := make(map[int]int) // by quarters of the time
	r := run(t, s, Options{Within: within, Progress: func(p Progress) {
		begun[int(4*p.Elapsed/within)] = p.Begun
	}})
	t.Logf("%d flows within %v: %v; after each quarter %v", connections, within, r.Took, begun)
	checkCounts(t, r, connections)
	if r.Took < within*8/10 || r.Took > within+2*time.Second {
		t.Errorf("took %v, want nearly %v", r.Took, within)
	}
	if half := begun[1]; half < connections/4 || half > connections*3/4 {
		t.Errorf("%d of %d were reset in the first half", half, connections)
	}
	wantReset(t, "all", flows)
}

// A flow that begins while others are being reset is reset too.
func TestFlowThatBeganMeanwhile(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	l := s.Pod.Listen("tcp", lab.StoryPod)
	flows := connect(t, s.LB, l, lab.StoryNodePort, 50)
	var late []flow
	r := run(t, s, Options{Within: 3 * time.Second, Progress: func(p Progress) {
		if late == nil && p.Begun >= 10 {
			late = connect(t, s.LB, l, lab.StoryNodePort, 5)
		}
	}})
	checkCounts(t, r, 55)
	if r.Late != 5 {
		t.Errorf("%d began meanwhile, want 5", r.Late)
	}
	wantReset(t, "the first", flows)
	wantReset(t, "those that began meanwhile", late)
}

// Two flows of one client may have the same port, and lead to the same server
// by two addresses: each is told.
func TestFlowsThatLookTheSame(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	l := s.Pod.Listen("tcp", lab.StoryPod)
	var flows []flow
	for _, address := range []string{lab.StoryNodePort, lab.StoryPod} {
		err := s.LB.Do(func() error {
			d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 77, 1, 2), Port: 4711},
				Control: func(_, _ string, c syscall.RawConn) (err error) {
					if failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }); failed != nil {
						return failed
					}
					return err
				}}
			client, err := d.Dial("tcp", address)
			if err != nil {
				return err
			}
			t.Cleanup(func() { client.Close() })
			server, err := l.Accept()
			if err != nil {
				return err
			}
			t.Cleanup(func() { server.Close() })
			flows = append(flows, flow{client, server})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wantAlive(t, "before", flows)
	checkCounts(t, run(t, s, Options{}), 2)
	wantReset(t, "both", flows)
}

// What the node itself has open, and what Only does not name, goes on.
func TestOthersGoOn(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	pod4, pod6 := s.Pod.Listen("tcp", lab.StoryPod), s.Pod.Listen("tcp", lab.StoryPod6)
	flows := connect(t, s.LB, pod4, lab.StoryNodePort, 20)
	own := slices.Concat(
		connect(t, s.LB, s.Node.Listen("tcp", "10.77.1.1:22"), "10.77.1.1:22", 5),
		connect(t, s.Node, pod4, lab.StoryPod, 5),
		connect(t, s.Node, s.Node.Listen("tcp", "127.0.0.1:22"), "127.0.0.1:22", 5),
	)
	spared := connect(t, s.LB, pod6, lab.StoryNodePort6, 20)
	o := Options{Only: []netip.Prefix{netip.MustParsePrefix("10.77.2.0/24")}}

	var p Plan
	err := s.Node.Do(func() (err error) {
		p, err = Look(o)
		return err
	})
	if err != nil || len(p.Flows) != 20 || p.Spared != 20 || p.Offloaded != 0 {
		t.Errorf("plan: %d flows, %d spared, %d offloaded, %v; want 20, 20, 0", len(p.Flows), p.Spared, p.Offloaded, err)
	}
	wantAlive(t, "after a look", flows)

	checkCounts(t, run(t, s, o), 20)
	wantReset(t, "those meant", flows)
	wantAlive(t, "the node's own", own)
	wantAlive(t, "those of another network", spared)
}

// Ends whose nudge got lost are nudged again.
func TestLostNudges(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	flows := connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod), lab.StoryNodePort, 30)
	s.Pod.Nft(`table ip lossy {
	chain input {
		type filter hook input priority filter
		tcp dport 8080 quota until 400 bytes drop
	}
}`)
	r := run(t, s, Options{})
	checkCounts(t, r, 30)
	if r.Took < nudgeAgain {
		t.Errorf("took %v, so nothing was lost", r.Took)
	}
	wantReset(t, "all", flows)
}

// nudgeAll nudges both ends of all flows of the node, which are reset by it only
// if the rules say so: here they do not.
func nudgeAll(t *testing.T, s *lab.Story, octets, times int) {
	t.Helper()
	err := s.Node.Do(func() (err error) {
		p, err := Look(Options{})
		if err != nil {
			return err
		}
		n, err := newNudger()
		if err != nil {
			return err
		}
		defer n.close()
		a, _, err := arm(len(p.Flows))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.remove()) }()
		for range times {
			for _, f := range p.Flows {
				if err := errors.Join(n.send(f.ReplyTo, f.ReplySource, octets), n.send(f.Destination, f.Source, octets)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Who has just answered a keepalive probe, or whatever did not fit, does not
// answer an empty nudge: here not for a minute.
func TestEndsThatHaveJustAnswered(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	flows := slices.Concat(
		connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod), lab.StoryNodePort, 20),
		connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod6), lab.StoryNodePort6, 20),
	)
	for _, h := range []*lab.Host{s.LB, s.Pod} {
		h.Sysctl("net.ipv4.tcp_invalid_ratelimit", "60000")
	}
	nudgeAll(t, s, 0, 1)
	r := run(t, s, Options{})
	t.Logf("%d flows, both ends: %v", len(flows), r.Took)
	checkCounts(t, r, len(flows))
	wantReset(t, "all", flows)
}

// The octet of a nudge is read by nobody, in whatever state a connection is.
func TestNudgeIsNotRead(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	l := s.Pod.Listen("tcp", lab.StoryPod)
	open, halfClosed := connect(t, s.LB, l, lab.StoryNodePort, 50), connect(t, s.LB, l, lab.StoryNodePort, 50)
	for _, f := range halfClosed {
		if err := f.client.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	nudgeAll(t, s, 1, 20)
	wantAlive(t, "after nudges", open)
	for _, f := range halfClosed {
		_ = f.server.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := f.server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("the server read %d octets, %v; want the end of file alone", n, err)
		}
		if _, err := f.server.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		f.server.Close()
		_ = f.client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(f.client); err != nil || !slices.Equal(got, []byte{1}) {
			t.Fatalf("the client read %v, %v; want what the server sent", got, err)
		}
	}
	for _, f := range open {
		f.client.Close()
		_ = f.server.SetReadDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(f.server); err != nil || len(got) != 0 {
			t.Fatalf("the server read %v, %v; want no more than what was sent", got, err)
		}
	}
}

// An end that is dead already keeps nobody waiting for ever, and is counted.
func TestEndThatDoesNotAnswer(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	flows := connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod), lab.StoryNodePort, 10)
	s.Pod.Unplug()
	r := run(t, s, Options{Within: time.Second})
	if r.Begun != 10 || r.Clients != 10 || r.Servers != 0 || r.Unanswered != 10 {
		t.Errorf("%d begun, %d clients, %d servers, %d unanswered; want 10, 10, 0, 10", r.Begun, r.Clients, r.Servers, r.Unanswered)
	}
	for _, f := range flows {
		if !isReset(f.client) {
			t.Error("a client was not reset")
		}
	}
}

func TestContextEnds(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	flows := connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod), lab.StoryNodePort, 40)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := runUntil(t, ctx, s, Options{Within: 10 * time.Second, Progress: func(p Progress) {
		if p.Begun >= 2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || r.Begun < 2 || r.Begun > 20 || len(r.Flows) != 40 {
		t.Errorf("%d of %d begun, %v; want a few, and that the context ended", r.Begun, len(r.Flows), err)
	}
	wantAlive(t, "those not begun", flows[len(flows)-1:])
}

// Before Linux 5.12 nobody removes the rules of an evac that was killed; the
// next one does. Where the kernel does, the rules of one that lives are left
// alone.
func TestRulesOfAnotherEvac(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	leave := func(flags uint32) *table {
		var left *table
		err := s.Node.Do(func() (err error) {
			left, err = build(1, flags)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	unowned := leave(0)
	unowned.conn.Close()
	if text := rules(s); !strings.Contains(text, TableName) {
		t.Fatalf("nothing was left behind:\n%s", text)
	}
	said := false
	r := run(t, s, Options{Progress: func(p Progress) { said = said || p.Stale }})
	if !r.Stale || !said {
		t.Errorf("that there were rules of an earlier evac was not said: %+v", r)
	}

	alive := leave(tableOwner)
	err := s.Node.Do(func() error {
		_, err := Run(context.Background(), Options{})
		return err
	})
	if !errors.Is(err, ErrRunning) {
		t.Errorf("beside another evac: %v, want %v", err, ErrRunning)
	}
	if text := rules(s); !strings.Contains(text, TableName) {
		t.Errorf("the rules of an evac that runs were removed:\n%s", text)
	}
	alive.conn.Close() // as the kernel does when a process dies
	if text := rules(s); strings.Contains(text, TableName) {
		t.Errorf("the rules outlived who made them:\n%s", text)
	}
}

// Whoever looks at the rules meanwhile can read them.
func TestRulesCanBeRead(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	err := s.Node.Do(func() error {
		a, _, err := arm(2)
		if err != nil {
			return err
		}
		defer func() {
			if err := a.remove(); err != nil {
				t.Error(err)
			}
		}()
		err = a.add([]*target{
			{tuple: tuple{netip.MustParseAddrPort("10.77.1.2:4711"), netip.MustParseAddrPort("10.77.2.2:8080")}},
			{tuple: tuple{netip.MustParseAddrPort("[fd77:1::2]:4711"), netip.MustParseAddrPort("[fd77:2::2]:8080")}},
		})
		if err != nil {
			return err
		}
		text := rules(s)
		for _, want := range []string{
			"10.77.1.2 . 4711 . 10.77.2.2 . 8080",
			"fd77:1::2 . 4711 . fd77:2::2 . 8080",
			"type ipv4_addr . inet_service . ipv4_addr . inet_service",
			"meta l4proto tcp ct original ip saddr . ct original proto-src . ct original ip daddr . ct original proto-dst @reset4",
			"meta l4proto tcp ct original ip6 saddr . ct original proto-src . ct original ip6 daddr . ct original proto-dst @reset6",
			"reject with tcp reset",
			"meta mark 0x0000001e meta l4proto tcp notrack",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("nft does not show %q:\n%s", want, text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Without the right to send, nothing is begun.
func TestNeedsRawSockets(t *testing.T) {
	s := lab.NewStory(t, lab.NFTables)
	connect(t, s.LB, s.Pod.Listen("tcp", lab.StoryPod), lab.StoryNodePort, 1)
	err := s.Node.Do(func() error { // on a thread that is thrown away
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var held [2]unix.CapUserData
		if err := unix.Capget(&header, &held[0]); err != nil {
			return err
		}
		held[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &held[0]); err != nil {
			return err
		}
		_, err := Run(context.Background(), Options{})
		return err
	})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
		t.Errorf("got %v, want that CAP_NET_RAW is missing", err)
	}
	if text := rules(s); strings.Contains(text, TableName) {
		t.Errorf("the rules are still there:\n%s", text)
	}
}
