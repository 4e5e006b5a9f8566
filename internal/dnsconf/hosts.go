package dnsconf

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
)

// Hosts is hosts(5). The zero value is an empty file.
type Hosts struct {
	addrs map[string][]netip.Addr
	count int
}

// ParseHosts reads a hosts file. Lines that do not begin with an address are
// passed over, as resolvers do.
func ParseHosts(text []byte) Hosts {
	h := Hosts{addrs: make(map[string][]netip.Addr)}
	for addr, names := range hostLines(text) {
		for _, name := range names {
			h.count++
			key := hostKey(name)
			if !slices.Contains(h.addrs[key], addr) {
				h.addrs[key] = append(h.addrs[key], addr)
			}
		}
	}
	return h
}

// Addrs returns the addresses of a name, of all its lines, in the order of the
// file; case and a dot at the end do not matter. The caller must not change
// them.
func (h Hosts) Addrs(name string) []netip.Addr { return h.addrs[hostKey(name)] }

// Count returns how many names have an address, one that has several counted for
// each.
func (h Hosts) Count() int { return h.count }

func hostKey(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// CountHosts returns the Count of a hosts file without keeping what is in it.
func CountHosts(text []byte) int {
	count := 0
	for _, names := range hostLines(text) {
		count += len(names)
	}
	return count
}

// hostLines yields the address and the names of each line that has both.
func hostLines(text []byte) func(yield func(netip.Addr, []string) bool) {
	return func(yield func(netip.Addr, []string) bool) {
		for line := range bytes.Lines(text) {
			line, _, _ = bytes.Cut(line, []byte("#"))
			words := fields(string(line))
			if len(words) < 2 {
				continue
			}
			if addr, err := netip.ParseAddr(words[0]); err == nil && !yield(addr, words[1:]) {
				return
			}
		}
	}
}
