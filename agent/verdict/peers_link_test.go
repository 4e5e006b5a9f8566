package verdict

import (
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// An address of a link means nothing without the link: two silent peers with one
// address on two interfaces are two findings, and each keeps its own.
func TestSilentOnTwoLinks(t *testing.T) {
	m, _, err := parse("earlier 1s\nns 1 local=fe80::1\nprocess 7 mesh\n" +
		"socket 60x tcp estab [fe80::1]:20000+ [fe80::2]:443 pid=7 ack=12s unacked=1 retrans=6 total=6 sq=20 out=40 in=10 keepalive=15s/15s/9")
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Sockets {
		m.Sockets[i].Interface = uint32(2 + i%2)
	}
	for i := range m.Earlier.Sockets {
		m.Earlier.Sockets[i].Interface = uint32(2 + i%2)
	}
	ids := make(map[string]bool)
	for _, f := range Judge(m) {
		if f.Code == silentPeer.Code {
			ids[Identity(&f)] = true
		}
	}
	if !ids["S001 peer=fe80::2 netns=1 interface=2"] || !ids["S001 peer=fe80::2 netns=1 interface=3"] || len(ids) != 2 {
		t.Errorf("found %v", ids)
	}
}

// The sockets of a look are not read at one moment: that another peer was heard
// since counts only beyond the time that it took.
func TestHeardSince(t *testing.T) {
	dead := netip.MustParseAddr("10.0.0.2")
	socket := func(remote string, quiet time.Duration) fact.Socket {
		return fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Netns: 1, Local: netip.MustParseAddrPort("10.0.0.1:20000"), Remote: netip.MustParseAddrPort(remote),
			Conn: &fact.Conn{Life: fact.Life{LastAck: quiet}, Exchange: fact.Exchange{LastReceived: quiet}}}
	}
	for took, want := range map[time.Duration]bool{0: true, 100 * time.Millisecond: true, time.Second: false} {
		m := &fact.Machine{Time: time.Now(), Took: took, Sockets: []fact.Socket{socket("10.0.0.2:443", 5*time.Second), socket("10.0.0.3:443", 4500*time.Millisecond)}}
		if heard, others := Others(m, &Peer{Netns: 1, Addr: dead, Quiet: fact.Seen(5 * time.Second)}); heard != want || len(others) != 1 {
			t.Errorf("read in %v: heard %v, %d others", took, heard, len(others))
		}
	}
}
