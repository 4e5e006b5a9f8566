package names

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/lifeline-go/lifeline/internal/dnsconf"
)

// Hosts returns the way that reads etc/hosts below root.
func Hosts(root string) Way { return hostsWay{root} }

type hostsWay struct{ root string }

func (hostsWay) Name() string { return "hosts" }

func (w hostsWay) Lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	addrs := ofNetwork(network, dnsconf.ParseHosts(readText(w.root, hostsPath)).Addrs(host))
	if len(addrs) == 0 {
		return nil, notFound(host, "hosts", "not in "+below(w.root, hostsPath))
	}
	return addrs, nil
}

// ofNetwork returns a copy of those addresses that network asks for.
func ofNetwork(network string, addrs []netip.Addr) []netip.Addr {
	var of []netip.Addr
	for _, addr := range addrs {
		if addr = addr.Unmap(); network == "ip" || addr.Is4() == (network == "ip4") {
			of = append(of, addr)
		}
	}
	return of
}

// address returns the address that host is, in any form that inet_aton(3) takes
// too, as in the C library: 127.1 and 0x7f.1 are 127.0.0.1.
func address(host string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr, true
	}
	if host == "" || host[0] < '0' || host[0] > '9' {
		return netip.Addr{}, false
	}
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var bits uint64
	for i, part := range parts {
		size := 8
		if i == len(parts)-1 {
			size = 8 * (5 - len(parts)) // the last part fills what is left
		}
		if part == "" || part[0] < '0' || part[0] > '9' || len(part) > 1 && strings.ContainsAny(part[1:2], "oObB") || strings.Contains(part, "_") {
			return netip.Addr{}, false // forms that only Go has
		}
		n, err := strconv.ParseUint(part, 0, size) // 0x is hexadecimal, 0 octal
		if err != nil {
			return netip.Addr{}, false
		}
		bits = bits<<size | n
	}
	return netip.AddrFrom4([4]byte{byte(bits >> 24), byte(bits >> 16), byte(bits >> 8), byte(bits)}), true
}

// notFound is a definite no.
func notFound(host, server, why string) *net.DNSError {
	return &net.DNSError{Err: why, Name: host, Server: server, IsNotFound: true}
}
