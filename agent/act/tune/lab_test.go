package tune

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/source/netns"
	"github.com/lifeline-go/lifeline/agent/source/owners"
	"github.com/lifeline-go/lifeline/agent/source/pidfd"
	"github.com/lifeline-go/lifeline/agent/source/sockdiag"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if serveStory() {
		return
	}
	leakcheck.Main(m)
}

// hosts returns two hosts with an IPv4 and an IPv6 wire between them, which do
// not forget link addresses.
func hosts(t testing.TB) (near, far *lab.Host) {
	t.Helper()
	l := lab.New(t)
	near, far = l.Host("near"), l.Host("far")
	l.Wire(near, "10.77.1.1/24", far, "10.77.1.2/24")
	l.Wire(near, "fd77::1/64", far, "fd77::2/64")
	for _, h := range []*lab.Host{near, far} {
		h.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "600000")
		h.Sysctl("net.ipv6.neigh.eth1.base_reachable_time_ms", "600000")
	}
	return near, far
}

// pair is both ends of a connection.
type pair struct{ near, far *net.TCPConn }

// dial opens n connections from near to addr on far, where listen is listened
// at.
func dial(t testing.TB, near, far *lab.Host, listen, addr string, n int) (links []pair) {
	t.Helper()
	ln := far.Listen("tcp", listen)
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
			links = append(links, pair{c.(*net.TCPConn), p.(*net.TCPConn)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return links
}

// look reads the TCP sockets of hosts, with their owners and, where that is
// wanted, options.
func look(t testing.TB, options bool, hosts ...*lab.Host) *fact.Machine {
	t.Helper()
	m := &fact.Machine{}
	all, _ := netns.List()
	for _, ns := range all {
		if !slices.ContainsFunc(hosts, func(h *lab.Host) bool { return h.Netns() == ns.Inode }) {
			continue
		}
		err := netns.Do(ns, func() (err error) {
			sysctl, err := netns.Sysctl()
			ns.Sysctl = fact.Seen(sysctl)
			if err != nil {
				return err
			}
			m.Sockets, err = sockdiag.Read(m.Sockets, ns.Inode, sockdiag.Want{TCP: true})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		m.Namespaces = append(m.Namespaces, ns)
	}
	slices.SortFunc(m.Namespaces, func(a, b fact.Namespace) int { return int(int64(a.Inode) - int64(b.Inode)) })
	owned, _ := owners.Walk(nil)
	byInode := make(map[uint32][]fact.Owner)
	for _, o := range owned {
		byInode[o.Inode] = append(byInode[o.Inode], o.Owner)
	}
	for i := range m.Sockets {
		if s := &m.Sockets[i]; s.Inode != 0 {
			s.Owners = byInode[s.Inode]
		}
	}
	if options {
		pidfd.Options(t.Context(), m.Sockets)
	}
	m.Time = time.Now()
	return m
}

// established returns the connections of m.
func established(m *fact.Machine) []*fact.Socket {
	return act.Select(m, census.Filter{States: []fact.State{fact.Established}}, 0)
}

// optionsOf asks the socket itself.
func optionsOf(t testing.TB, c *net.TCPConn) (v values) {
	t.Helper()
	control(t, c, func(fd int) {
		for i, n := range names {
			got, err := unix.GetsockoptInt(fd, n.level, n.name)
			if err != nil {
				t.Fatal(err)
			}
			v[i] = int32(got)
		}
	})
	return v
}

func set(t testing.TB, c *net.TCPConn, option int, value int) {
	t.Helper()
	control(t, c, func(fd int) {
		if err := unix.SetsockoptInt(fd, names[option].level, names[option].name, value); err != nil {
			t.Fatal(err)
		}
	})
}

func control(t testing.TB, c *net.TCPConn, f func(fd int)) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { f(int(fd)) }); err != nil {
		t.Fatal(err)
	}
}

// place is a directory for old options.
func place(t testing.TB) string { return filepath.Join(t.TempDir(), "lifeline") }

// keeps reports whether old options are kept there.
func keeps(t testing.TB, dir string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

var ways = []Way{ByBPF, ByLoan}
