//go:build linux

package dnsconf

import (
	"bytes"
	"net/netip"
)

// countHosts returns how many names hosts(5) gives an address, one that has
// several addresses counted for each. Lines that do not begin with an address
// are passed over, as resolvers do.
func countHosts(text []byte) int {
	count := 0
	for line := range bytes.Lines(text) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		words := fields(string(line))
		if len(words) < 2 {
			continue
		}
		if _, err := netip.ParseAddr(words[0]); err == nil {
			count += len(words) - 1
		}
	}
	return count
}
