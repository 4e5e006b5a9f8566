package names

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// The examples of RFC 6724 section 10.2, without those of rules that are left
// out, and some more; a destination is address<source, and one without a source
// cannot be reached.
func TestOrder(t *testing.T) {
	for _, want := range []string{
		"2001:db8:1::1<2001:db8:1::2 198.51.100.121<169.254.13.78",            // matching scope
		"198.51.100.121<198.51.100.117 2001:db8:1::1<fe80::1",                 // matching scope
		"2001:db8:1::1<2001:db8:1::2 10.1.2.3<10.1.2.4",                       // higher precedence
		"fe80::1<fe80::2 2001:db8:1::1<2001:db8:1::2",                         // smaller scope
		"2001:db8:3ffe::1<2001:db8:3f44::2 2001:db8:1::1<2001:db8:3f44::2",    // longest prefix
		"10.1.2.3<10.1.2.4 2002:c633:6401::1<fe80::2",                         // matching scope
		"2002:c633:6401::1<2002:c633:6401::2 2001:db8:1::1<2002:c633:6401::2", // matching label
		"2001:db8:1::1<2001:db8:1::2 2002:c633:6401::1<2002:c633:6401::2",     // higher precedence
		"10.1.2.3<10.1.2.4 2001:db8:1::1<",                                    // no route
		"::1<::1 127.0.0.1<127.0.0.1",
		"10.9.9.9<10.0.0.1 10.0.0.2<10.0.0.1 10.0.0.3<10.0.0.1", // as they came
	} {
		var all []destination
		for _, word := range strings.Fields(want) {
			addr, source, _ := strings.Cut(word, "<")
			d := destination{addr: netip.MustParseAddr(addr)}
			d.scope, d.policy = scopeOf(d.addr), policyOf(d.addr)
			if source != "" {
				d.source = netip.MustParseAddr(source)
			}
			all = append(all, d)
		}
		for range 20 {
			mixed := slices.Clone(all)
			if compare(all[0], all[1]) != 0 {
				rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
			}
			slices.SortStableFunc(mixed, compare)
			if !slices.Equal(mixed, all) {
				t.Errorf("want %s, got %v before %v", want, mixed[0].addr, mixed[1].addr)
				break
			}
		}
	}
}

func TestPolicy(t *testing.T) {
	for text, want := range map[string]int{
		"10.0.0.1": 35, "::1": 50, "2001:db8::1": 40, "2002::1": 30, "2001::1": 5, "fd00::1": 3, "fec0::1": 1, "fe80::1": 40, "fe80::1%lo": 40,
	} {
		if got := policyOf(netip.MustParseAddr(text)).precedence; got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]int{
		"10.0.0.1": 14, "127.0.0.1": 2, "169.254.0.1": 2, "::1": 2, "fe80::1": 2, "fec0::1": 5, "2001:db8::1": 14, "fd00::1": 14, "ff02::1": 2, "ff0e::1": 14,
	} {
		if got := scopeOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
