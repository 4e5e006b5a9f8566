package names

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
)

// sortAddrs puts addresses into the order in which they should be tried, RFC 6724
// section 6, as getaddrinfo does with its default table: rules 1, 2, 5, 6, 8, 9
// and 10. Rules 3, 4 and 7 need to know more about own addresses than the choice
// of the kernel, and neither Go nor glibc without netlink follows them.
func sortAddrs(addrs []netip.Addr) {
	if len(addrs) < 2 {
		return
	}
	all := make([]destination, len(addrs))
	for i, addr := range addrs {
		all[i] = destination{addr: addr, source: sourceFor(addr)}
		all[i].scope, all[i].policy = scopeOf(addr), policyOf(addr)
	}
	slices.SortStableFunc(all, compare) // stable is rule 10
	for i := range all {
		addrs[i] = all[i].addr
	}
}

// destination is an address with what decides about its place.
type destination struct {
	addr, source netip.Addr // source is not valid where there is no route
	scope        int
	policy       policy
}

// sourceFor asks the kernel which own address a packet to addr would carry.
// Nothing is sent.
func sourceFor(addr netip.Addr) netip.Addr {
	const discard = 9
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, discard)))
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

func compare(a, b destination) int {
	first := func(is bool) int {
		if is {
			return -1
		}
		return 1
	}
	// Rule 1: those that cannot be reached come last.
	if a.source.IsValid() != b.source.IsValid() {
		return first(a.source.IsValid())
	}
	if !a.source.IsValid() {
		return 0
	}
	// Rule 2: the scope that the source has.
	if fits, other := a.scope == scopeOf(a.source), b.scope == scopeOf(b.source); fits != other {
		return first(fits)
	}
	// Rule 5: the label that the source has.
	if fits, other := a.policy.label == policyOf(a.source).label, b.policy.label == policyOf(b.source).label; fits != other {
		return first(fits)
	}
	// Rule 6: higher precedence. Rule 8: smaller scope.
	if by := cmp.Or(cmp.Compare(b.policy.precedence, a.policy.precedence), cmp.Compare(a.scope, b.scope)); by != 0 {
		return by
	}
	// Rule 9: the longest prefix in common with the source, of IPv6 only: in IPv4
	// it defeats round robin, as Go and glibc found.
	if a.addr.Is6() && b.addr.Is6() {
		return cmp.Compare(sharedBits(b), sharedBits(a))
	}
	return 0
}

// policy is a row of the table of RFC 6724 section 2.1.
type policy struct {
	prefix            netip.Prefix
	precedence, label int
}

// policies has longer prefixes first. Of IPv4, ::ffff:0:0/96, is 4 in 6.
var policies = []policy{
	{netip.MustParsePrefix("::1/128"), 50, 0},
	{netip.MustParsePrefix("::ffff:0:0/96"), 35, 4},
	{netip.MustParsePrefix("::/96"), 1, 3},
	{netip.MustParsePrefix("2001::/32"), 5, 5},
	{netip.MustParsePrefix("2002::/16"), 30, 2},
	{netip.MustParsePrefix("3ffe::/16"), 1, 12},
	{netip.MustParsePrefix("fec0::/10"), 1, 11},
	{netip.MustParsePrefix("fc00::/7"), 3, 13},
	{netip.MustParsePrefix("::/0"), 40, 1},
}

func policyOf(addr netip.Addr) policy {
	mapped := netip.AddrFrom16(addr.As16())
	for _, p := range policies {
		if p.prefix.Contains(mapped) {
			return p
		}
	}
	return policies[len(policies)-1]
}

// scopeOf returns the scope of an address, RFC 6724 section 3.1 and for IPv4 3.2.
func scopeOf(addr netip.Addr) int {
	const link, site, global = 2, 5, 14
	switch {
	case addr.Is6() && addr.IsMulticast():
		return int(addr.As16()[1] & 0xF)
	case addr.IsLoopback(), addr.IsLinkLocalUnicast():
		return link
	case addr.Is6() && policies[6].prefix.Contains(addr.WithZone("")):
		return site
	default:
		return global
	}
}

// sharedBits counts the bits that an address has in common with its source, of
// the 64 that are about the network.
func sharedBits(d destination) int {
	a, b := d.addr.As16(), d.source.As16()
	for i := range 8 {
		if x := a[i] ^ b[i]; x != 0 {
			n := 8 * i
			for ; x&0x80 == 0; x <<= 1 {
				n++
			}
			return n
		}
	}
	return 64
}
