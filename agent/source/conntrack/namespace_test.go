//go:build linux

package conntrack

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/source/route"
	"github.com/lifeline-go/lifeline/internal/need"
)

// story is the path of the silent WebSockets: lb 10.77.1.2 - node - pod
// 10.77.2.2. The node sends its port 30080 on to the pod's 8080 and hides who
// asks, as kube-proxy does; it sends port 7070 of anybody to a program of its
// own, and knows connections of IPv6 by a rule.
type story struct{ lb, node, pod *lab.Host }

const rules = `
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat
		tcp dport 30080 dnat to 10.77.2.2:8080
		tcp dport 7070 redirect to :7071
	}
	chain out {
		type nat hook output priority -100
		ip daddr 10.77.1.1 tcp dport 30080 dnat to 10.77.2.2:8080
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "eth1" tcp dport 8080 masquerade
	}
}
table ip6 filter {
	chain forward {
		type filter hook forward priority filter
		ct state established accept
	}
}`

func newStory(t *testing.T) story {
	t.Helper()
	need.Program(t, "nft")
	need.Program(t, "conntrack")
	l := lab.New(t)
	s := story{l.Host("lb"), l.Host("node"), l.Host("pod")}
	l.Wire(s.lb, "10.77.1.2/24", s.node, "10.77.1.1/24")
	l.Wire(s.pod, "10.77.2.2/24", s.node, "10.77.2.1/24")
	l.Wire(s.lb, "fd77:1::2/64", s.node, "fd77:1::1/64")
	l.Wire(s.pod, "fd77:2::2/64", s.node, "fd77:2::1/64")
	s.lb.Route("default", "10.77.1.1")
	s.pod.Route("default", "10.77.2.1")
	s.lb.Route("fd77:2::/64", "fd77:1::1")
	s.pod.Route("fd77:1::/64", "fd77:2::1")
	s.node.Sysctl("net.ipv4.ip_forward", "1")
	s.node.Sysctl("net.ipv6.conf.all.forwarding", "1")
	nft := s.node.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return s
}

// read reads the node's table as a caller would.
func (s story) read(t *testing.T) fact.Conntrack {
	t.Helper()
	var table fact.Conntrack
	err := s.node.Do(func() error {
		local, err := route.Delivered()
		if err != nil {
			return err
		}
		table, err = Read(s.node.Netns(), local)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// listen accepts, and keeps, what comes to addr until the test ends.
func listen(t *testing.T, h *lab.Host, addr string) {
	t.Helper()
	ln := h.Listen("tcp", addr)
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		var kept []net.Conn
		defer func() {
			for _, c := range kept {
				c.Close()
			}
		}()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			kept = append(kept, c)
		}
	}()
}

// dial connects and returns its own end.
func dial(t *testing.T, h *lab.Host, network, addr string) netip.AddrPort {
	t.Helper()
	c := h.Dial(network, addr)
	if network == "udp" {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		return c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return c.LocalAddr().(*net.TCPAddr).AddrPort()
}

func TestTransit(t *testing.T) {
	s := newStory(t)
	for _, addr := range []string{"10.77.2.2:8080", "10.77.2.2:9090", "10.77.2.2:7070", "[fd77:2::2]:9090"} {
		listen(t, s.pod, addr)
	}
	for _, addr := range []string{"10.77.1.1:22", "10.77.1.1:7071", "127.0.0.1:22", "[fd77:1::1]:22"} {
		listen(t, s.node, addr)
	}
	listen(t, s.lb, "10.77.1.2:80")

	s.node.Run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
	for _, c := range []struct {
		what          string
		from          *lab.Host
		network, addr string
		transit       bool
		replySource   string
	}{
		{"to the node's port, sent on to the pod and masqueraded", s.lb, "tcp", "10.77.1.1:30080", true, "10.77.2.2:8080"},
		{"plainly forwarded", s.lb, "tcp", "10.77.2.2:9090", true, "10.77.2.2:9090"},
		{"forwarded to the real port, masqueraded", s.lb, "tcp", "10.77.2.2:8080", true, "10.77.2.2:8080"},
		{"out of the pod", s.pod, "tcp", "10.77.1.2:80", true, "10.77.1.2:80"},
		{"hairpin: the pod to itself by the node's port", s.pod, "tcp", "10.77.2.1:30080", true, "10.77.2.2:8080"},
		{"IPv6, forwarded", s.lb, "tcp", "[fd77:2::2]:9090", true, "[fd77:2::2]:9090"},
		{"UDP, forwarded", s.lb, "udp", "10.77.2.2:53", true, "10.77.2.2:53"},
		{"UDP over IPv6, forwarded", s.pod, "udp", "[fd77:1::2]:53", true, "[fd77:1::2]:53"},

		{"to the node", s.lb, "tcp", "10.77.1.1:22", false, "10.77.1.1:22"},
		{"to the node, IPv6", s.lb, "tcp", "[fd77:1::1]:22", false, "[fd77:1::1]:22"},
		{"to the node, redirected to another port", s.lb, "tcp", "10.77.1.1:7070", false, "10.77.1.1:7071"},
		{"to the pod, but redirected to the node", s.lb, "tcp", "10.77.2.2:7070", false, "10.77.1.1:7071"},
		{"from the node", s.node, "tcp", "10.77.2.2:9090", false, "10.77.2.2:9090"},
		{"from the node, masqueraded", s.node, "tcp", "10.77.2.2:8080", false, "10.77.2.2:8080"},
		{"from the node to its own port, sent on to the pod", s.node, "tcp", "10.77.1.1:30080", false, "10.77.2.2:8080"},
		{"from the node to itself", s.node, "tcp", "127.0.0.1:22", false, "127.0.0.1:22"},
		{"from the node, UDP", s.node, "udp", "10.77.2.2:53", false, "10.77.2.2:53"},
		{"to the node, UDP", s.lb, "udp", "10.77.1.1:53", false, "10.77.1.1:53"},
		{"multicast", s.lb, "udp", "224.0.0.251:5353", false, ""},
	} {
		own := dial(t, c.from, c.network, c.addr)
		table := s.read(t)
		i := slices.IndexFunc(table.Transit, func(f fact.Flow) bool { return f.Source == own })
		if got := i >= 0; got != c.transit {
			t.Errorf("%s: transit is %v, want %v: %+v", c.what, got, c.transit, table.Transit)
			continue
		}
		if i < 0 {
			checkTracked(t, s, c.what, own, c.replySource)
			continue
		}
		f := table.Transit[i]
		want := fact.Flow{Protocol: fact.TCP, State: "ESTABLISHED", Source: own,
			Destination: netip.MustParseAddrPort(c.addr), ReplySource: netip.MustParseAddrPort(c.replySource)}
		if c.network == "udp" {
			want.Protocol, want.State = fact.UDP, ""
		}
		want.ReplyTo, want.Timeout = f.ReplyTo, f.Timeout
		if f != want || f.Timeout <= 0 || !f.ReplyTo.IsValid() {
			t.Errorf("%s: %+v, want %+v", c.what, f, want)
		}
		if masqueraded := c.replySource == "10.77.2.2:8080"; masqueraded != (f.ReplyTo.Addr() == netip.MustParseAddr("10.77.2.1")) {
			t.Errorf("%s: the server sees %v", c.what, f.ReplyTo)
		}
	}
}

// checkTracked proves that a flow is not missing among the transit flows only
// because the table does not have it.
func checkTracked(t *testing.T, s story, what string, own netip.AddrPort, replySource string) {
	t.Helper()
	if replySource == "" {
		return
	}
	found := false
	err := s.node.Do(func() error {
		return dump(func(e entry) {
			found = found || e.original.source == own && e.reply.source == netip.MustParseAddrPort(replySource)
		})
	})
	if err != nil || !found {
		t.Errorf("%s: the table does not have it (%v)", what, err)
	}
}

// Datagrams to a subnet's broadcast address end on this host although the
// address is nobody's.
func TestBroadcastIsNotTransit(t *testing.T) {
	s := newStory(t)
	err := s.lb.Do(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.77.1.255:17500")))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	table := s.read(t)
	if entries, _ := table.Entries.Get(); entries == 0 || len(table.Transit) != 0 {
		t.Errorf("%d entries, transit %+v; want some and none", entries, table.Transit)
	}
}

func TestAgreesWithConntrack(t *testing.T) {
	s := newStory(t)
	listen(t, s.pod, "10.77.2.2:8080")
	listen(t, s.pod, "[fd77:2::2]:9090")
	for range 20 {
		dial(t, s.lb, "tcp", "10.77.1.1:30080")
		dial(t, s.lb, "tcp", "[fd77:2::2]:9090")
		dial(t, s.lb, "udp", "10.77.2.2:53")
		dial(t, s.node, "tcp", "10.77.2.2:8080")
	}
	for _, closed := range []string{"10.77.2.2:81", "10.77.1.1:81"} { // for entries that are not ESTABLISHED
		err := s.lb.Do(func() error {
			_, err := net.Dial("tcp", closed)
			return err
		})
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v, want refused", closed, err)
		}
	}

	want := make(map[string]int)
	for _, family := range []string{"ipv4", "ipv6"} {
		list, err := s.node.Command("conntrack", "-L", "-f", family).Output()
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(want, parseList(t, string(list)))
	}
	got := make(map[string]int)
	err := s.node.Do(func() error {
		return dump(func(e entry) {
			if e.known() {
				got[describe(e.flow())] = int(e.timeout)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 80 {
		t.Errorf("conntrack -L lists %d, want at least 80", len(want))
	}
	for flow, timeout := range want {
		if mine, ok := got[flow]; !ok || mine > timeout || mine < timeout-20 {
			t.Errorf("%s: timeout %d, %v; conntrack says %d", flow, mine, ok, timeout)
		}
	}
	for flow := range got {
		if _, ok := want[flow]; !ok {
			t.Errorf("%s: conntrack does not list it", flow)
		}
	}
}

func describe(f fact.Flow) string {
	return fmt.Sprint(f.Protocol, " ", f.State, " ", f.Source, " ", f.Destination, " ", f.ReplySource, " ", f.ReplyTo)
}

// parseList reads what conntrack -L printed: flows and their timeouts.
func parseList(t *testing.T, text string) map[string]int {
	t.Helper()
	flows := make(map[string]int)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 10 || (fields[0] != "tcp" && fields[0] != "udp") {
			continue
		}
		timeout, err := strconv.Atoi(fields[2])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		f := fact.Flow{Protocol: fact.UDP}
		if fields[0] == "tcp" {
			f.Protocol, f.State = fact.TCP, fields[3]
		}
		var ends []string
		for _, field := range fields {
			if key, value, ok := strings.Cut(field, "="); ok && slices.Contains([]string{"src", "dst", "sport", "dport"}, key) {
				ends = append(ends, value)
			}
		}
		at := func(addr, port int) netip.AddrPort {
			return netip.MustParseAddrPort(net.JoinHostPort(ends[addr], ends[port]))
		}
		f.Source, f.Destination, f.ReplySource, f.ReplyTo = at(0, 2), at(1, 3), at(4, 6), at(5, 7)
		flows[describe(f)] = timeout
	}
	return flows
}
