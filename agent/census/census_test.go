package census

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

const ours = 4026531840

// story is the pod side of the node that forwarded 4,224 WebSockets, with a
// few sockets of every other kind beside them.
func story() *fact.Machine {
	sysctl := fact.Seen(bound.Sysctl{})
	m := &fact.Machine{
		Namespaces: []fact.Namespace{{Inode: 7, Name: "pod", Sysctl: sysctl}, {Inode: ours, Own: true, Sysctl: sysctl}},
		Processes: []fact.Process{
			{PID: 10, Name: "dockerd"},
			{PID: 20, Name: "agent", Container: "0123456789abcdef0123", Runtime: "docker"},
			{PID: 812, Name: "ws-server", Unit: "ws.service"},
			{PID: 813, Name: "ws-server", Unit: "ws.service"},
		},
	}
	add := func(s fact.Socket) { m.Sockets = append(m.Sockets, s) }
	golang := fact.Seen(bound.Options{KeepAlive: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9})
	add(fact.Socket{Protocol: fact.TCP, Family: fact.IPv6, State: fact.Listen, Local: addr("[::]:8080"), Remote: addr("[::]:0"), Netns: ours,
		Inode: 1, Owners: []fact.Owner{{PID: 812, FD: 3}}, SendQueue: 4096})
	for i := range 4224 {
		s := fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, Mapped: true, State: fact.Established, Netns: ours, Inode: uint32(100 + i),
			Local: addr("10.77.2.2:8080"), Remote: netip.AddrPortFrom(netip.MustParseAddr("10.77.1.2"), uint16(1024+i)),
			Options: golang, Owners: []fact.Owner{{PID: 812 + int32(i%2), FD: int32(i)}},
			Conn: &fact.Conn{Life: fact.Life{LastAck: time.Duration(300+i) * time.Millisecond, RTO: 204 * time.Millisecond}}}
		if i < 42 {
			s.SendQueue = 100
		}
		add(s)
	}
	add(fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Netns: ours, Inode: 9001, Local: addr("10.77.2.2:40000"),
		Remote: addr("10.77.1.9:443"), Owners: []fact.Owner{{PID: 20, FD: 4}}, Conn: &fact.Conn{}, Options: fact.Seen(bound.Options{})})
	add(fact.Socket{Protocol: fact.TCP, Family: fact.IPv6, State: fact.TimeWait, Netns: ours, Local: addr("[fd00::1]:80"), Remote: addr("[fd00::2]:50000")})
	add(fact.Socket{Protocol: fact.UDP, Family: fact.IPv4, State: fact.Close, Netns: 7, Inode: 9002, Local: addr("0.0.0.0:53"), Remote: addr("0.0.0.0:0"),
		Owners: []fact.Owner{{PID: 99, FD: 5}}})
	add(fact.Socket{Protocol: fact.UnixStream, Family: fact.Unix, State: fact.Listen, Netns: ours, Inode: 50, Path: "/run/docker.sock", Owners: []fact.Owner{{PID: 10, FD: 3}}})
	add(fact.Socket{Protocol: fact.UnixStream, Family: fact.Unix, State: fact.Established, Netns: ours, Inode: 51, PeerInode: 52, Path: "/run/docker.sock", Owners: []fact.Owner{{PID: 10, FD: 4}}})
	add(fact.Socket{Protocol: fact.UnixStream, Family: fact.Unix, State: fact.Established, Netns: ours, Inode: 52, PeerInode: 51, Owners: []fact.Owner{{PID: 20, FD: 5}, {PID: 99, FD: 5}}})
	add(fact.Socket{Protocol: fact.UnixDatagram, Family: fact.Unix, State: fact.Close, Netns: 7, Inode: 53})
	return m
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestTheLineOfTheStory(t *testing.T) {
	c := Count(story(), Options{})
	g := c.Groups[0]
	if g.Labels[0] != "10.77.1.2" || g.Count != 4224 {
		t.Fatalf("the largest group is %d of %v, want 4,224 of 10.77.1.2", g.Count, g.Labels)
	}
	if want := []Holder{{812, "ws-server", 2112}, {813, "ws-server", 2112}}; !slices.Equal(g.Holders, want) {
		t.Errorf("holders %v, want %v", g.Holders, want)
	}
	if ack, ok := g.LastAck.Get(); !ok || ack != 300*time.Millisecond {
		t.Errorf("last acknowledgement %v %v, want 300ms ago", ack, ok)
	}
	if g.Unacked != 42 || g.QueueBytes != 4200 {
		t.Errorf("%d sockets with %d bytes unacknowledged, want 42 with 4200", g.Unacked, g.QueueBytes)
	}
	if g.Idle.After != 150*time.Second || g.Idle.Known != 4224 || g.Idle.Unknown != 0 {
		t.Errorf("idle bound %+v, want 150 s for all", g.Idle)
	}
	if g.Sending.After < 15*time.Minute || g.Sending.After > 16*time.Minute {
		t.Errorf("sending bound %v, want about 15 minutes", g.Sending.After)
	}
}

func TestLabels(t *testing.T) {
	for _, test := range []struct {
		by   Key
		want []string // label=count
	}{
		{Peer, []string{"10.77.1.2=4224", "(listening)=2", "(unconnected)=2", "10.77.1.9=1", "fd00::2=1", "unix agent[20]=1", "unix dockerd[10] /run/docker.sock=1"}},
		{Net, []string{"10.77.1.0/24=4225", "(listening)=2", "(unconnected)=2", "fd00::/64=1", "unix agent[20]=1", "unix dockerd[10] /run/docker.sock=1"}},
		{Port, []string{":8080=4225", "-=4", ":53=1", ">443=1", ">50000=1"}},
		{Process, []string{"ws-server[812]=2113", "ws-server[813]=2112", "(no process)=2", "agent[20]=2", "dockerd[10]=2", "(unknown)[99]=1"}},
		{Program, []string{"ws-server=4225", "(no process)=2", "agent=2", "dockerd=2", "(unknown)=1"}},
		{Container, []string{"(host)=4227", "(no process)=2", "docker 0123456789ab=2", "(unknown)=1"}},
		{Unit, []string{"ws.service=4225", "(no unit)=4", "(no process)=2", "(unknown)=1"}},
		{State, []string{"ESTABLISHED=4225", "CONNECTED=2", "LISTEN=2", "UNCONNECTED=2", "TIME_WAIT=1"}},
		{Family, []string{"ipv4=4226", "unix=4", "ipv6=2"}},
		{Protocol, []string{"tcp=4227", "unix=3", "udp=1", "unix-dgram=1"}},
		{Netns, []string{"4026531840=4230", "pod=2"}},
	} {
		c := Count(story(), Options{By: []Key{test.by}})
		var got []string
		for _, g := range c.Groups {
			got = append(got, fmt.Sprintf("%s=%d", g.Labels[0], g.Count))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("by %s:\n got %q\nwant %q", test.by, got, test.want)
		}
	}
}

// Every pair of keys must count every socket once.
func TestTotalsAddUp(t *testing.T) {
	m := story()
	for _, a := range Keys {
		for _, b := range Keys {
			by := []Key{a, b}
			if a == b {
				by = by[:1]
			}
			c := Count(m, Options{By: by})
			sum, held := 0, 0
			seen := make(map[string]bool)
			for _, g := range c.Groups {
				sum += g.Count
				for _, h := range g.Holders {
					held += h.Count
				}
				label := fmt.Sprint(g.Labels)
				if seen[label] {
					t.Errorf("by %v: two groups are called %s", by, label)
				}
				seen[label] = true
			}
			if n := len(m.Sockets); sum != n || held != n || c.Total != n || c.Counts[0]+c.Counts[1]+c.Counts[2] != n {
				t.Errorf("by %v: groups %d, holders %d, total %d, families %v of %d sockets", by, sum, held, c.Total, c.Counts, n)
			}
		}
	}
}

func TestBoundsOfAGroup(t *testing.T) {
	c := Count(story(), Options{Filter: Filter{Peer: netip.MustParsePrefix("10.77.1.0/24")}, By: []Key{Net}})
	if g := c.Groups[0]; !g.Idle.Never() || g.Idle.Known != 4225 {
		t.Errorf("with one socket without keepalive the idle bound is %+v, want never", g.Idle)
	}
	m := story()
	m.Namespaces = nil
	c = Count(m, Options{})
	if g := c.Groups[0]; g.Idle.Known != 0 || g.Idle.Unknown != 4224 {
		t.Errorf("without the namespace's settings the bound is %+v, want unknown", g.Idle)
	}
}

func TestFilter(t *testing.T) {
	for _, test := range []struct {
		filter Filter
		want   int
	}{
		{Filter{}, 4232},
		{Filter{Protocols: []fact.Protocol{fact.UDP}}, 1},
		{Filter{States: []fact.State{fact.TimeWait, fact.Listen}}, 3},
		{Filter{PID: 99}, 2}, // also as the second owner of a shared socket
		{Filter{Process: "agent"}, 2},
		{Filter{Process: "agent", PID: 812}, 0},
		{Filter{Peer: netip.MustParsePrefix("fd00::/16")}, 1},
		{Filter{Peer: netip.MustParsePrefix("0.0.0.0/0")}, 4225},
	} {
		if c := Count(story(), Options{Filter: test.filter}); c.Total != test.want {
			t.Errorf("%+v: %d sockets, want %d", test.filter, c.Total, test.want)
		}
	}
}

func TestParseKeys(t *testing.T) {
	if keys, err := ParseKeys("peer, state"); err != nil || !slices.Equal(keys, []Key{Peer, State}) {
		t.Errorf("got %v, %v", keys, err)
	}
	for _, bad := range []string{"", "peers", "peer,,state", "peer,peer"} {
		if _, err := ParseKeys(bad); err == nil {
			t.Errorf("%q is taken as keys", bad)
		}
	}
}

func BenchmarkCount(b *testing.B) {
	m := story()
	b.ReportAllocs()
	for b.Loop() {
		Count(m, Options{})
	}
}
