package sockdiag

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// A look at some peers has the connections to them that a look at all has, and
// nothing else, whether they speak IPv4, IPv6, or IPv4 on an IPv6 socket.
func TestPeers(t *testing.T) {
	v6, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer v6.Close()
	port := v6.Addr().(*net.TCPAddr).AddrPort().Port()
	addresses := []string{"::1", "127.0.0.2", "127.0.0.3", "127.0.0.4"}
	for _, a := range addresses {
		client, err := net.Dial("tcp", net.JoinHostPort(a, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := v6.Accept() // of all but the first it is an IPv6 socket that speaks IPv4 to 127.0.0.1
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
	}
	here := func(peers ...netip.Addr) (found []string) {
		sockets, err := Read(nil, 1, Want{TCP: true, Held: true, Peers: peers})
		if err != nil {
			t.Fatal(err)
		}
		for i := range sockets {
			s := &sockets[i]
			if len(peers) > 0 && !slices.Contains(peers, s.Remote.Addr()) {
				t.Errorf("%v: it has %+v", peers, s)
			}
			if s.State == fact.Established && (s.Local.Port() == port || s.Remote.Port() == port) {
				found = append(found, fmt.Sprint(s.Local, " ", s.Remote, " ", s.Mapped, " ", s.Conn != nil))
			}
		}
		slices.Sort(found)
		return found
	}
	all := here()
	if len(all) != 2*len(addresses) {
		t.Fatalf("of all: %q", all)
	}
	of := func(text ...string) (peers []netip.Addr) {
		for _, a := range text {
			peers = append(peers, netip.MustParseAddr(a))
		}
		return peers
	}
	for _, test := range []struct {
		peers []netip.Addr
		want  int
	}{
		{of("127.0.0.2"), 1}, {of("::ffff:127.0.0.2"), 1}, {of("127.0.0.1"), 3}, {of("::1"), 2}, {of("127.0.0.9"), 0},
		{of("127.0.0.4", "127.0.0.9", "127.0.0.2"), 2}, {of("127.0.0.1", "::1", "127.0.0.4", "127.0.0.2", "127.0.0.3"), 8}, {of("::1", "127.0.0.3", "::2"), 3},
	} {
		for i := range test.peers {
			test.peers[i] = test.peers[i].Unmap()
		}
		if got := here(test.peers...); len(got) != test.want {
			t.Errorf("of %v: %q of %q", test.peers, got, all)
		}
	}
	var many []netip.Addr
	for i := range MostPeers - 1 {
		many = append(many, netip.AddrFrom16([16]byte{0xfd, 15: byte(i)}))
	}
	if got := here(append(many, of("127.0.0.3")...)...); len(got) != 1 {
		t.Errorf("of %d: %q", MostPeers, got)
	}
	if _, err := Read(nil, 1, Want{Peers: append(many, of("::1", "::2")...)}); err == nil {
		t.Error("one more is no error")
	}
}

func BenchmarkReadPeers(b *testing.B) {
	crowded(b, func(inode uint32) error {
		var sockets []fact.Socket
		for b.Loop() {
			var err error
			if sockets, err = Read(sockets[:0], inode, Want{TCP: true, Held: true, Peers: []netip.Addr{netip.MustParseAddr("10.9.9.9")}}); err != nil {
				return err
			}
		}
		return nil
	})
}
