package verdict

import (
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// A process that asks in every way there is: what is open at the end counts,
// what is of others does not.
func TestAskingOf(t *testing.T) {
	server, other, web := netip.MustParseAddrPort("10.0.0.53:53"), netip.MustParseAddrPort("192.0.2.53:853"), netip.MustParseAddrPort("10.0.0.53:443")
	mine := []fact.Owner{{PID: 6, FD: 1}, {PID: 7, FD: 9}}
	socket := func(cookie uint64, p fact.Protocol, state fact.State, remote netip.AddrPort, change func(*fact.Socket)) fact.Socket {
		s := fact.Socket{Cookie: cookie, Protocol: p, State: state, Remote: remote, Local: netip.MustParseAddrPort("10.0.0.2:40000"), Owners: mine}
		if change != nil {
			change(&s)
		}
		return s
	}
	conn := func(sent, received time.Duration, bytes uint64) func(*fact.Socket) {
		return func(s *fact.Socket) {
			s.Conn = &fact.Conn{Exchange: fact.Exchange{LastSent: sent, LastReceived: received, Acked: fact.Seen(bytes)}}
		}
	}
	old := socket(1, fact.UDP, fact.Established, server, nil)
	gone := socket(2, fact.UDP, fact.Established, server, nil)
	m := &fact.Machine{
		Time:      scenarioTime,
		Processes: []fact.Process{{PID: 7, Name: "kubectl"}},
		Names:     &fact.Names{Nameservers: []fact.Nameserver{{Addr: server.Addr()}}},
		Earlier:   &fact.Machine{Time: scenarioTime.Add(-2 * time.Second), Sockets: []fact.Socket{old, gone, socket(3, fact.TCP, fact.Established, web, conn(0, 0, 9))}},
		Goroutines: []fact.Goroutines{{PID: 7, Parked: []fact.Goroutine{
			{ID: 4, Since: time.Second, Stack: []fact.Call{{Func: "net.(*Resolver).lookupIPAddr"}, {Func: "main.main"}}},
			{ID: 5, Stack: []fact.Call{{Func: "net/http.(*persistConn).roundTrip"}, {Func: "main.main"}}},
		}}},
		Sockets: []fact.Socket{
			old,
			socket(4, fact.UDP, fact.Established, other, func(s *fact.Socket) { s.RecvQueue = 60 }),
			socket(5, fact.TCP, fact.Established, server, conn(1500*time.Millisecond, 1600*time.Millisecond, 40)),
			socket(6, fact.TCP, fact.Established, server, conn(1600*time.Millisecond, 10*time.Millisecond, 40)),
			socket(7, fact.TCP, fact.SynSent, server, nil),
			socket(8, fact.TCP, fact.Established, web, conn(0, time.Second, 40)),
			socket(9, fact.UDP, fact.Close, netip.AddrPort{}, nil),
			socket(10, fact.UnixStream, fact.Established, netip.AddrPort{}, func(s *fact.Socket) { s.PeerInode = 77 }),
			socket(11, fact.UnixStream, fact.Established, netip.AddrPort{}, func(s *fact.Socket) { s.PeerInode = 78 }),
			{Protocol: fact.UnixStream, State: fact.Established, Inode: 77, Path: "/run/systemd/resolve/io.systemd.Resolve"},
			{Protocol: fact.UnixStream, State: fact.Established, Inode: 78, Path: "/run/dbus/system_bus_socket"},
			socket(12, fact.UDP, fact.Established, server, func(s *fact.Socket) { s.Owners = s.Owners[:1] }), // of another process
		},
	}
	a := AskingOf(m, 7)
	if a.Process != "kubectl" || !a.Go || a.Ended != 1 || a.Unconnected != 1 || len(a.Goroutines) != 1 || a.Goroutines[0].ID != 4 {
		t.Errorf("%+v", a)
	}
	want := []Question{
		{FD: 9, Protocol: fact.UDP, Server: server, Configured: true, Waits: true, Since: 2 * time.Second, Looked: true},
		{FD: 9, Protocol: fact.TCP, Server: server, Configured: true, Since: 1600 * time.Millisecond},
		{FD: 9, Protocol: fact.TCP, Server: server, Configured: true, Waits: true, Since: 1500 * time.Millisecond},
		{FD: 9, Protocol: fact.UDP, Server: other, Bytes: 60},
		{FD: 9, Protocol: fact.TCP, Server: server, Configured: true, Waits: true, Connecting: true},
		{FD: 9, Protocol: fact.UnixStream, Daemon: "systemd-resolved", Waits: true},
	}
	if len(a.Questions) != len(want) {
		t.Fatalf("%+v", a.Questions)
	}
	for i, q := range a.Questions {
		if q != want[i] {
			t.Errorf("got  %+v\nwant %+v", q, want[i])
		}
	}
	if b := AskingOf(&fact.Machine{}, 7); len(b.Questions) != 0 || b.Process != "" {
		t.Errorf("%+v", b)
	}
}
