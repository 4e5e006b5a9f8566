package act

import (
	"flag"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/source/netns"
	"github.com/lifeline-go/lifeline/agent/source/owners"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "64"); err != nil { // they wait most of the time
		panic(err)
	}
	leakcheck.Main(m)
}

// hosts returns two hosts with an IPv4 and an IPv6 wire between them. The near
// one does not forget link addresses: to a neighbour that is not found ARP would
// give an error, where a dead machine behind a router gives none.
func hosts(t testing.TB) (near, far *lab.Host) {
	t.Helper()
	l := lab.New(t)
	near, far = l.Host("near"), l.Host("far")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	l.Wire(near, "fd77::1/64", far, "fd77::2/64")
	near.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
	near.Sysctl("net.ipv6.neigh.eth1.base_reachable_time_ms", "600000")
	return near, far
}

// link is both ends of a connection.
type link struct{ near, far *net.TCPConn }

// dial opens n connections from near to a listener on far, and has both ends
// hear from each other.
func dial(t testing.TB, near, far *lab.Host, addr string, n int) []link {
	t.Helper()
	ln := far.Listen("tcp", addr)
	return dialTo(t, near, ln, addr, n)
}

func dialTo(t testing.TB, near *lab.Host, ln net.Listener, addr string, n int) (links []link) {
	t.Helper()
	err := near.Do(func() error {
		for range n {
			c, err := net.DialTimeout("tcp", addr, 10*time.Second)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			p, err := ln.Accept()
			if err != nil {
				return err
			}
			t.Cleanup(func() { p.Close() })
			links = append(links, link{c.(*net.TCPConn), p.(*net.TCPConn)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		l.say(t)
	}
	return links
}

// say has the far end send a byte, which the near end reads.
func (l link) say(t testing.TB) {
	t.Helper()
	if _, err := l.far.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	_ = l.near.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := l.near.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// failed waits for a read to fail and returns how.
func failed(t testing.TB, c *net.TCPConn) error {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err := c.Read(make([]byte, 1))
	if err == nil {
		t.Fatal("a read returned data")
	}
	return err
}

// look reads the TCP sockets of hosts, with their owners.
func look(t testing.TB, hosts ...*lab.Host) *fact.Machine {
	t.Helper()
	m := &fact.Machine{}
	all, _ := netns.List()
	for _, ns := range all {
		for _, h := range hosts {
			if ns.Inode != h.Netns() {
				continue
			}
			err := netns.Do(ns, func() (err error) {
				m.Sockets, err = sockdiag.Read(m.Sockets, ns.Inode, sockdiag.Want{TCP: true})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			m.Namespaces = append(m.Namespaces, ns)
		}
	}
	if len(hosts) > 1 && m.Namespaces[0].Inode > m.Namespaces[1].Inode {
		m.Namespaces[0], m.Namespaces[1] = m.Namespaces[1], m.Namespaces[0]
	}
	owned, _ := owners.Walk(nil)
	for i := range m.Sockets {
		for _, o := range owned {
			if s := &m.Sockets[i]; s.Inode != 0 && s.Inode == o.Inode {
				s.Owners = append(s.Owners, o.Owner)
			}
		}
	}
	m.Time = time.Now()
	return m
}

// to returns the filter for connections to one address.
func to(addr string) census.Filter {
	a := netip.MustParseAddr(addr)
	return census.Filter{Peer: netip.PrefixFrom(a, a.BitLen())}
}
