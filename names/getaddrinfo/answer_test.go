//go:build linux && (amd64 || arm64)

package getaddrinfo

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
)

func FuzzParse(f *testing.F) {
	head := "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, message := range []string{
		"", head[:11], head, head + "\x04\x7f\x00\x00\x01", head + "\x06" + string(make([]byte, 20)), head + "\x04abc", head + "\x06abc", head + "\x05",
		"\x01\x00\x00\x00\xfe\xff\xff\xff\x00\x00\x00\x00", "\x01\x00\x00\x00\xf5\xff\xff\xff\x18\x00\x00\x00",
	} {
		f.Add([]byte(message))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		a, err := parse(message)
		if err != nil {
			return
		}
		if 5*len(a.addresses) > len(message) {
			t.Fatalf("%d addresses out of %d bytes", len(a.addresses), len(message))
		}
		addrs, err := a.result("host")
		var dns *net.DNSError
		if (err == nil) == (len(addrs) == 0) || err != nil && !errors.As(err, &dns) {
			t.Fatalf("%v, %v", addrs, err)
		}
	})
}

func TestResult(t *testing.T) {
	for _, c := range []struct {
		answer                     answer
		text                       string
		notFound, temporary, isErr bool
	}{
		{answer{code: -2}, "lookup host: no such host", true, false, false},
		{answer{code: -5}, "lookup host: no such host", true, false, false},
		{answer{code: -9}, "lookup host: no such host", true, false, false},
		{answer{}, "lookup host: no such host", true, false, false},
		{answer{code: -3}, "lookup host: getaddrinfo: temporary failure in name resolution", false, true, false},
		{answer{code: -4}, "lookup host: getaddrinfo: non-recoverable failure in name resolution", false, false, false},
		{answer{code: -77}, "lookup host: getaddrinfo: error -77", false, false, false},
		{answer{code: -11, errno: syscall.EMFILE}, "lookup host: getaddrinfo: too many open files", false, true, true},
		{answer{code: -11}, "lookup host: getaddrinfo: too many open files", false, true, true},
	} {
		_, err := c.answer.result("host")
		var dns *net.DNSError
		if !errors.As(err, &dns) || dns.Error() != c.text || dns.IsNotFound != c.notFound || dns.IsTemporary != c.temporary || errors.Is(err, syscall.EMFILE) != c.isErr {
			t.Errorf("%+v: %+v", c.answer, err)
		}
	}
}

func TestDistinct(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	if got := distinct([]netip.Addr{b, a, b, a}); !slices.Equal(got, []netip.Addr{b, a}) {
		t.Errorf("%v, want each once and in their order", got)
	}
}
