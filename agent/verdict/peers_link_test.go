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

// Another peer speaks for this machine's link only when it was heard while the
// silent one was asked: both may be heard in turns until the link dies. The sockets
// of a look are not read at one moment, so it counts only beyond the time that took.
func TestHeardSince(t *testing.T) {
	const ago = 5 * time.Second
	dead := netip.MustParseAddr("10.0.0.2")
	socket := func(remote string, quiet time.Duration) fact.Socket {
		return fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Netns: 1, Local: netip.MustParseAddrPort("10.0.0.1:20000"), Remote: netip.MustParseAddrPort(remote),
			Conn: &fact.Conn{Life: fact.Life{LastAck: quiet}, Exchange: fact.Exchange{LastReceived: quiet}}}
	}
	for name, c := range map[string]struct {
		other, took time.Duration
		unasked     bool
		want        bool
	}{
		"a moment ago":              {other: time.Second, want: true},
		"a moment ago, a slow look": {other: time.Second, took: 2 * time.Second},
		"just after, in turns":      {other: ago - time.Second/2},
		"soon after":                {other: 3 * time.Second},
		"a moment ago, not asked":   {other: time.Second, unasked: true},
	} {
		silent := socket("10.0.0.2:443", ago)
		if !c.unasked { // first 4.6 s ago, and again after 0.2, 0.6, 1.4 and 3 s
			silent.Timer, silent.TimerLeft = fact.TimerResend, 1600*time.Millisecond
			silent.Conn.Unacked, silent.Conn.Retransmits, silent.Conn.Backoff = 1, 4, 4
			silent.Conn.RTT, silent.Conn.RTO = time.Millisecond, 3200*time.Millisecond
		}
		m := &fact.Machine{Time: time.Now(), Took: c.took, Sockets: []fact.Socket{silent, socket("10.0.0.3:443", c.other)}}
		if heard, others := Others(m, &Peer{Netns: 1, Addr: dead, Quiet: fact.Seen(ago)}); heard != c.want || len(others) != 1 {
			t.Errorf("%s: heard %v, %d others", name, heard, len(others))
		}
	}
}
