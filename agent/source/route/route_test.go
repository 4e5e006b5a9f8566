//go:build linux

package route

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// node returns a host with two wires, 10.77.1.1 and 10.77.2.1, and a default
// route out of the second.
func node(t *testing.T) *lab.Host {
	t.Helper()
	l := lab.New(t)
	n, a, b := l.Host("node"), l.Host("a"), l.Host("b")
	l.Wire(n, "10.77.1.1/24", a, "10.77.1.2/24")
	l.Wire(n, "10.77.2.1/24", b, "10.77.2.2/24")
	l.Wire(n, "fd77::1/64", b, "fd77::2/64")
	n.Route("default", "10.77.2.2")
	return n
}

// to looks from inside a host.
func to(h *lab.Host, addr string) (hop Hop, err error) {
	err = h.Do(func() (err error) {
		hop, err = To(netip.MustParseAddr(addr))
		return err
	})
	return hop, err
}

func TestTo(t *testing.T) {
	n := node(t)
	n.Run("ip", "route", "add", "10.5.0.0/16", "via", "inet6", "fd77::2", "dev", "eth2")
	n.Run("ip", "route", "add", "10.6.0.0/16", "nexthop", "via", "10.77.1.2", "nexthop", "via", "10.77.1.2", "weight", "2")
	n.Run("ip", "route", "add", "local", "10.8.0.0/16", "dev", "lo")
	n.Run("ip", "route", "add", "10.9.0.0/16", "via", "10.77.1.2", "src", "10.77.2.1")
	var (
		none = netip.Addr{}
		lo   = netip.MustParseAddr("127.0.0.1")
		one  = netip.MustParseAddr("10.77.1.1")
		two  = netip.MustParseAddr("10.77.2.1")
		six  = netip.MustParseAddr("fd77::1")
	)
	for addr, want := range map[string]Hop{
		"10.77.1.2":           {Interface: "eth0", Gateway: none, Source: one},
		"::ffff:10.77.1.2":    {Interface: "eth0", Gateway: none, Source: one},
		"192.0.2.1":           {Interface: "eth1", Gateway: netip.MustParseAddr("10.77.2.2"), Source: two},
		"fd77::2":             {Interface: "eth2", Gateway: none, Source: six},
		"10.5.0.1":            {Interface: "eth2", Gateway: netip.MustParseAddr("fd77::2"), Source: one},
		"10.6.0.1":            {Interface: "eth0", Gateway: netip.MustParseAddr("10.77.1.2"), Source: one},
		"10.9.0.1":            {Interface: "eth0", Gateway: netip.MustParseAddr("10.77.1.2"), Source: two},
		"127.0.0.53":          {Interface: "lo", Source: lo, Local: true},
		"10.77.1.1":           {Interface: "lo", Source: one, Local: true},
		"10.8.1.1":            {Interface: "lo", Local: true, Source: netip.MustParseAddr("10.8.1.1")},
		"::1":                 {Interface: "lo", Source: netip.IPv6Loopback(), Local: true},
		"fe80::2%eth1":        {Interface: "eth1"},
		"fe80::2%eth2":        {Interface: "eth2"},
		"ff02::1%eth2":        {Interface: "eth2"},
		"fd77:0:0:0:1::1%lo0": {},
	} {
		got, err := to(n, addr)
		if strings.HasSuffix(addr, "%lo0") {
			if err == nil {
				t.Errorf("To(%s) = %+v, want an error: no such interface", addr, got)
			}
			continue
		}
		if strings.Contains(addr, "%") {
			got.Source = want.Source // made up by the kernel out of the link's own address
		}
		if err != nil || got != want {
			t.Errorf("To(%s) = %+v, %v; want %+v", addr, got, err, want)
		}
	}
}

func TestNoRoute(t *testing.T) {
	h := lab.New(t).Host("alone")
	for i, kind := range []string{"blackhole", "prohibit", "unreachable", "throw"} {
		n := string('1' + rune(i))
		h.Run("ip", "route", "add", kind, "10."+n+".0.0/16")
		h.Run("ip", "route", "add", kind, "fd0"+n+"::/64")
	}
	for addr, want := range map[string]struct {
		errno  unix.Errno
		reason string
	}{
		"10.1.0.1": {unix.EINVAL, "blackhole"},
		"10.2.0.1": {unix.EACCES, "prohibit"},
		"10.3.0.1": {unix.EHOSTUNREACH, "unreachable"},
		"10.4.0.1": {unix.ENETUNREACH, "network is unreachable"},
		"10.5.0.1": {unix.ENETUNREACH, "network is unreachable"},
		"fd01::1":  {unix.EINVAL, "blackhole"},
		"fd02::1":  {unix.EACCES, "prohibit"},
		"fd03::1":  {unix.EHOSTUNREACH, "unreachable"},
		"fd04::1":  {unix.ENETUNREACH, "network is unreachable"},
		"fd05::1":  {unix.ENETUNREACH, "network is unreachable"},
	} {
		hop, err := to(h, addr)
		var no *NoRouteError
		if !errors.As(err, &no) {
			t.Errorf("To(%s) = %+v, %v; want a NoRouteError", addr, hop, err)
			continue
		}
		if !errors.Is(err, want.errno) || !strings.Contains(no.Reason(), want.reason) || no.To.String() != addr {
			t.Errorf("To(%s): %v (%q); want %v (%s)", addr, err, no.Reason(), want.errno, want.reason)
		}
	}
}

func TestNotAnAddress(t *testing.T) {
	if hop, err := To(netip.Addr{}); err == nil {
		t.Errorf("To(nothing) = %+v", hop)
	}
}

func TestIndex(t *testing.T) {
	n := node(t)
	err := n.Do(func() error {
		eth1, err := Index("eth1")
		if err != nil || eth1 == 0 {
			t.Errorf("eth1: %d, %v", eth1, err)
		}
		if got, err := Index("1"); err != nil || got != 1 {
			t.Errorf("1: %d, %v", got, err)
		}
		for _, zone := range []string{"eth9", "0", "a name that is far too long for any interface"} {
			if got, err := Index(zone); err == nil {
				t.Errorf("%s: %d, want an error", zone, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLocal(t *testing.T) {
	n := node(t)
	n.Run("ip", "route", "add", "local", "10.8.0.1", "dev", "lo")
	n.Run("ip", "route", "add", "local", "10.9.0.0/16", "dev", "lo")
	n.Run("ip", "addr", "add", "10.4.0.1", "peer", "10.4.0.2", "dev", "eth0")
	n.Run("ip", "link", "add", "red", "type", "bridge")
	n.Run("ip", "addr", "add", "10.3.0.1/24", "dev", "red") // the interface stays down
	n.Run("ip", "-6", "route", "add", "local", "fd99::/64", "dev", "lo")
	var local []netip.Addr
	var delivered []netip.Prefix
	err := n.Do(func() (err error) {
		if local, err = Local(); err != nil {
			return err
		}
		delivered, err = Delivered()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"127.0.0.1", "::1", "10.77.1.1", "10.77.2.1", "fd77::1", "10.8.0.1", "10.4.0.1", "10.3.0.1"} {
		if !slices.Contains(local, netip.MustParseAddr(own)) {
			t.Errorf("%s is missing in Local: %v", own, local)
		}
		if !holds(delivered, own) {
			t.Errorf("%s is missing in Delivered: %v", own, delivered)
		}
	}
	for _, addr := range []string{"127.5.5.5", "10.9.3.4", "10.77.1.255", "fd99::1234"} {
		if slices.Contains(local, netip.MustParseAddr(addr)) {
			t.Errorf("%s is in Local", addr)
		}
		if !holds(delivered, addr) {
			t.Errorf("%s is missing in Delivered: %v", addr, delivered)
		}
	}
	for _, foreign := range []string{"10.77.1.2", "10.4.0.2", "fd77::2", "192.0.2.1"} {
		if slices.Contains(local, netip.MustParseAddr(foreign)) || holds(delivered, foreign) {
			t.Errorf("%s is another host's", foreign)
		}
	}
	if !slices.IsSortedFunc(local, netip.Addr.Compare) {
		t.Errorf("Local is not sorted: %v", local)
	}
}

func holds(prefixes []netip.Prefix, addr string) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(addr)) })
}

// What is looked at must be the namespace of the thread, not of the process.
func TestOwnNamespaceIsAnother(t *testing.T) {
	n := node(t)
	before, err := Local()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(before, netip.MustParseAddr("10.77.2.1")) {
		t.Error("the lab's address is the machine's")
	}
	if hop, err := to(n, "10.77.2.2"); err != nil || hop.Interface != "eth1" {
		t.Errorf("in the lab: %+v, %v", hop, err)
	}
	after, err := Local()
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("the machine's addresses went from %v to %v, %v", before, after, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, unix.SizeofRtMsg))
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1] = unix.AF_INET, 32
	f.Add(append(header, 8, 0, unix.RTA_DST, 0, 10, 0, 0, 1, 8, 0, unix.RTA_VIA, 0, 2, 0, 10, 1, 5, 0, unix.RTA_VIA, 0, 1))
	name := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(name[4:], 7)
	f.Add(append(name, 9, 0, unix.IFLA_IFNAME, 0, 'e', 't', 'h', '0', 0, 0, 0, 0))
	f.Add(append(make([]byte, unix.SizeofIfAddrmsg), 8, 0, unix.IFA_LOCAL, 0, 10, 0, 0, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRoute(data); err == nil && !r.to.IsValid() {
			t.Errorf("route to %v", r.to)
		}
		if a, err := parseAddress(data); err == nil && a.IsValid() && a.Zone() != "" {
			t.Errorf("address %v", a)
		}
		if l, err := parseLink(data); err == nil && strings.Contains(l.name, "\x00") {
			t.Errorf("name %q", l.name)
		}
	})
}
