package daemon

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// running starts a Daemon and returns what ends it.
func running(t *testing.T, d *Daemon) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

// until waits for a State that fits.
func until(t *testing.T, d *Daemon, fits func(*state.State) bool) *state.State {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for seq := uint64(0); ; {
		s, err := d.Wait(ctx, seq)
		if err != nil {
			last, _ := json.Marshal(d.State())
			t.Fatalf("no such State came: %v; the last is %s", err, last)
		}
		if fits(s) {
			return s
		}
		seq = s.Seq
	}
}

func sourceOf(s *state.State, name string) state.Source {
	for _, src := range s.Sources {
		if src.Name == name {
			return src
		}
	}
	return state.Source{}
}

// A source that hangs is late, is not asked again, and holds up nobody, the end
// included.
func TestHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{})
		release, hung, others := make(chan struct{}), 0, 0
		d.sources = []*source{
			{name: "stuck", every: time.Second, bound: 3 * time.Second, look: func(context.Context) (time.Duration, error) {
				hung++
				<-release
				return 0, nil
			}},
			{name: "well", every: time.Second, bound: time.Second, look: func(context.Context) (time.Duration, error) {
				others++
				return 0, nil
			}},
		}
		stop := running(t, d)
		time.Sleep(time.Minute)
		synctest.Wait()
		s := d.State()
		if stuck := sourceOf(s, "stuck"); !stuck.Late || !strings.Contains(stuck.Error, "under way") || stuck.Last != nil {
			t.Errorf("the source that hangs is %+v", stuck)
		}
		if well := sourceOf(s, "well"); well.Late || well.Last == nil || well.Error != "" {
			t.Errorf("the other is %+v", well)
		}
		if hung != 1 || others < 55 {
			t.Errorf("the source that hangs was asked %d times, the other %d times", hung, others)
		}
		if err := stop(); err == nil || !strings.Contains(err.Error(), "stuck") || strings.Contains(err.Error(), "well") {
			t.Errorf("the end says %v", err)
		}
		close(release)
	})
}

// A watch goes on for ever and says that it looks; when it does not, it is late
// until it does again, and what the census says of peers stands meanwhile.
func TestWatchThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{})
		stuck := make(chan struct{})
		d.sources = []*source{{name: fromPeers, every: time.Second, bound: peersBound, beat: &d.peersLooked, look: func(ctx context.Context) (time.Duration, error) {
			for range 10 {
				d.beat()
				time.Sleep(30 * time.Second)
			}
			<-stuck
			d.beat()
			<-ctx.Done()
			return 0, nil
		}}}
		stop := running(t, d)
		late := func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.sourceLate(fromPeers) }
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if s := sourceOf(d.State(), fromPeers); s.Late || s.Error != "" || s.Last == nil || late() {
			t.Errorf("while it looks: %+v", s)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if s := sourceOf(d.State(), fromPeers); !s.Late || !strings.Contains(s.Error, "under way for") || s.Last == nil || !late() {
			t.Errorf("when it stopped: %+v", s)
		}
		close(stuck)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := sourceOf(d.State(), fromPeers); s.Late || s.Error != "" || late() {
			t.Errorf("when it goes on: %+v", s)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// However often facts come, States come at a pace that readers can follow.
func TestPublishedCalmly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{})
		d.sources = []*source{{name: "busy", every: time.Millisecond, bound: time.Second, look: func(context.Context) (time.Duration, error) { return 0, nil }}}
		stop := running(t, d)
		time.Sleep(10 * time.Second)
		if seq := d.State().Seq; seq < 20 || seq > 42 {
			t.Errorf("%d States in 10 s", seq)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	d := New(Options{})
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := d.Wait(ctx, d.State().Seq); err != context.Canceled {
		t.Errorf("Wait returned %v", err)
	}
	if s, err := d.Wait(ctx, 0); err != nil || s.Seq != 1 {
		t.Errorf("the State that is there: %v, %v", s, err)
	}
	for _, p := range d.State().Promises {
		if p.Status != state.Unknown {
			t.Errorf("%v is %s before anything was looked at", p.Promise, p.Status)
		}
	}
}

// On this machine: each source looks, and the census has the test's connection.
func TestThisMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := New(Options{Passive: true})
	stop := running(t, d)
	s := until(t, d, func(s *state.State) bool {
		return sourceOf(s, fromPeers).Last != nil && sourceOf(s, fromCensus).Last != nil && sourceOf(s, fromNames).Last != nil && sourceOf(s, fromLeaks).Last != nil && sourceOf(s, fromConntrack).Last != nil && sourceOf(s, fromCounters).Last != nil
	})
	if s.Totals.Sockets == 0 || s.Totals.Processes == 0 || len(s.Promises) != 4 || len(s.Links) == 0 || s.Names == nil || len(s.Names.Config) == 0 {
		t.Errorf("the State says little: %+v", s)
	}
	moments := []time.Time{s.Time, s.Totals.Looked, *sourceOf(s, fromCensus).Last}
	for _, f := range s.Findings {
		moments = append(moments, f.First, f.Last)
	}
	for _, m := range moments { // else what is open for how long would be wrong after the wall clock jumped
		if m == m.Round(0) {
			t.Errorf("%v has no reading of the monotonic clock", m)
		}
	}
	got, err := d.Connections(t.Context(), state.Query{PID: int32(os.Getpid()), State: "ESTABLISHED", Peer: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, one := range got.List {
		found = found || one.Local == c.LocalAddr().String()
	}
	if !found {
		t.Errorf("%s is not among the connections: %+v", c.LocalAddr(), got)
	}
	if l, err := d.WhatIf(t.Context(), netip.MustParsePrefix("240.0.0.0/4"), 0); err != nil || l.Count != 0 {
		t.Errorf("what if nobody dies: %+v, %v", l, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestConnections(t *testing.T) {
	m := &fact.Machine{Processes: []fact.Process{{PID: 7, Name: "web"}}}
	for i := range 150 {
		m.Sockets = append(m.Sockets, fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Cookie: uint64(i + 1),
			Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 4000),
			Netns: 4026531840 + uint32(i%2), SendQueue: uint32(i), Owners: []fact.Owner{{PID: 7, FD: int32(i)}}})
	}
	m.Sockets = append(m.Sockets, fact.Socket{Protocol: fact.TCP, State: fact.Listen, Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("0.0.0.0:0")})
	for _, c := range []struct {
		q           state.Query
		total, most int
		first       uint64
	}{
		{state.Query{}, 150, 100, 1},
		{state.Query{Sort: "queue", Most: 5}, 150, 5, 150},
		{state.Query{After: 149}, 150, 1, 150},
		{state.Query{After: 1000}, 150, 0, 0},
		{state.Query{After: -1, Most: 1 << 30}, 150, 150, 1},
		{state.Query{Peer: "10.1.0.7"}, 1, 1, 8},
		{state.Query{Peer: "10.1.0.0/30"}, 4, 4, 1},
		{state.Query{Sort: "queue", Most: 5, Reverse: true}, 150, 5, 1},
		{state.Query{Sort: "peer", Most: 5, Reverse: true}, 150, 5, 10}, // 10.1.0.9:4000, as text
		{state.Query{Netns: 4026531841}, 75, 75, 2},
		{state.Query{Netns: 7}, 0, 0, 0},
		{state.Query{Process: "db"}, 0, 0, 0},
		{state.Query{State: "close_wait"}, 0, 0, 0},
	} {
		got, err := connections(m, c.q)
		if err != nil || got.Total != c.total || len(got.List) != c.most || c.most > 0 && got.List[0].Cookie != c.first {
			t.Errorf("%+v: %d of %d, %v", c.q, len(got.List), got.Total, err)
		}
	}
	for _, q := range []state.Query{{Sort: "colour"}, {Sort: "age"}, {Peer: "example.com"}} {
		if _, err := connections(m, q); err == nil {
			t.Errorf("%+v was answered", q)
		}
	}
}

// What if asks of all namespaces, or of one.
func TestWhatIfInNamespace(t *testing.T) {
	m := &fact.Machine{Conntrack: []fact.Conntrack{{Netns: 1}, {Netns: 2}}}
	for i := range 10 {
		m.Sockets = append(m.Sockets, fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Cookie: uint64(i + 1), Netns: 1 + uint32(i/7),
			Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("10.1.0.7:4000"), Conn: &fact.Conn{}})
	}
	for netns, want := range map[uint32]int{0: 10, 1: 7, 2: 3, 3: 0} {
		if l := whatIf(m, nil, netip.MustParsePrefix("10.1.0.0/16"), netns); l.Count != want || l.Netns != netns {
			t.Errorf("in %d: %+v", netns, l)
		}
	}
	if len(m.Sockets) != 10 || len(m.Conntrack) != 2 {
		t.Error("the census was changed")
	}
}

// A verdict of the watch breaks a promise at once, and its end is remembered.
func TestSilentPeer(t *testing.T) {
	d := New(Options{})
	addr := netip.MustParseAddr("10.77.1.2")
	c := verdict.Change{Peer: verdict.Peer{Addr: addr, Count: 4224, Verdict: verdict.Silent}, Time: time.Now()}
	d.take(func(k *known) {
		k.counts.peers, k.counts.keys = []state.Peer{{Peer: "10.0.0.9", Verdict: "alive"}, {Peer: addr.String(), Count: 4224, Verdict: "alive"}}, []peerKey{{}, {addr: addr}}
		k.silent = map[peerKey]time.Time{{addr: addr}: c.Time}
		k.found(c.Time, fromPeers, []verdict.Finding{silence(&c)}, nil)
	})
	d.publish()
	s := d.State()
	if len(s.Findings) != 1 || s.Findings[0].Count != 4224 || !strings.Contains(s.Findings[0].Title, "4,224 connections") || !strings.Contains(strings.Join(s.Findings[0].Fix, "\n"), "10.77.1.2") {
		t.Errorf("found %+v", s.Findings)
	}
	if p := s.Promises[verdict.Silence]; p.Status != state.Broken || p.Findings != 1 {
		t.Errorf("the promise is %+v", p)
	}
	if s.Peers[0].Peer != addr.String() || s.Peers[0].Verdict != "silent" || s.Peers[0].Since == nil {
		t.Errorf("the peers are %+v", s.Peers)
	}
	d.take(func(k *known) { k.silent = nil; k.found(time.Now(), fromPeers, nil, nil) })
	d.publish()
	if s := d.State(); len(s.Findings) != 1 || s.Findings[0].Resolved == nil || s.Peers[0].Verdict != "alive" {
		t.Errorf("after its end: %+v", s.Findings)
	}
}

func TestSiteOverTime(t *testing.T) {
	var l leakLook
	start := time.Date(2026, 11, 20, 14, 5, 0, 0, time.UTC)
	sites := []verdict.LeakSite{{PID: 7, Process: "web", Peer: "10.0.0.9:80", Verdict: verdict.Leaking, OpenedAt: fact.Call{Func: "main.dial", File: "/src/main.go", Line: 12}}}
	var out []state.Site
	for i := range 90 * 6 {
		sites[0].Open = i
		out = l.remember(start.Add(time.Duration(i)*10*time.Second), sites)
	}
	if n := len(out[0].Over); n != mostMinutes || out[0].Over[n-1] != 539 || out[0].Over[n-2] != 533 || !out[0].First.Equal(start) {
		t.Errorf("the site is %+v", out[0])
	}
	if out = l.remember(start, nil); len(out) != 0 || len(l.sites) != 0 {
		t.Error("a site that is gone is kept")
	}
}

// A promise is kept only when its source has looked, and says no more than was done.
func TestPromises(t *testing.T) {
	now, yes := time.Now(), true
	s := &state.State{Names: &state.Names{Servers: []state.Nameserver{{Address: "10.0.0.53"}}}, Totals: state.Totals{Sockets: 1627, Processes: 1},
		Sources: []state.Source{{Name: fromNames, Last: &now}, {Name: fromCensus, Last: &now, Error: "under way for 40s"}}}
	got := promises(s)
	if p := got[verdict.Names]; p.Status != state.Kept || !strings.Contains(p.Summary, "not asked") {
		t.Errorf("nobody was asked: %+v", p)
	}
	if p := got[verdict.Silence]; p.Status != state.Unknown || !strings.Contains(p.Summary, "could not be looked at: under way") {
		t.Errorf("of a source that is late: %+v", p)
	}
	s.Names.Servers[0].OK, s.Sources[1].Error = &yes, ""
	got = promises(s)
	if p := got[verdict.Names]; p.Summary != "1 nameserver asked" {
		t.Errorf("one was asked: %+v", p)
	}
	if p := got[verdict.Leaks]; p.Status != state.Kept || p.Summary != "1,627 sockets of 1 process looked at" {
		t.Errorf("nothing was found: %+v", p)
	}
	s.Sources[1].Off = "left out by the policy"
	if p := promises(s)[verdict.Calls]; p.Status != state.Unknown || !strings.Contains(p.Summary, "policy") {
		t.Errorf("of a source that is off: %+v", p)
	}
}

// What is folded so that it can be drawn is not folded for the history.
func TestCountedKeepsAllGroups(t *testing.T) {
	m := &fact.Machine{}
	for i := range 3 * state.MostLinks {
		m.Sockets = append(m.Sockets, fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established,
			Local: netip.MustParseAddrPort("10.0.0.1:8080"), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 4000)})
	}
	if c := counted(m, verdict.Read(m)); len(c.links) > state.MostLinks || len(c.groups) != 3*state.MostLinks || c.totals.Links != 3*state.MostLinks {
		t.Errorf("%d links and %d groups of %d", len(c.links), len(c.groups), 3*state.MostLinks)
	}
}
