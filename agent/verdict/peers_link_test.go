package verdict

import "testing"

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
