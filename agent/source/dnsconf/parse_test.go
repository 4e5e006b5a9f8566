//go:build linux

package dnsconf

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func addrs(all ...string) (list []netip.Addr) {
	for _, a := range all {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func TestParseResolv(t *testing.T) {
	defaults := fact.Resolv{Timeout: 5 * time.Second, Attempts: 2}
	with := func(f func(*fact.Resolv)) fact.Resolv {
		r := defaults
		f(&r)
		return r
	}
	for _, c := range []struct {
		what, text string
		want       fact.Resolv
	}{
		{"empty", "", defaults},
		{"comments and blank lines", "# a\n; b\n\n  # c\n\t;d\n \t \n", defaults},
		{"all servers, also beyond the third", "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.1\nnameserver 10.0.0.4",
			with(func(r *fact.Resolv) { r.Servers = addrs("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.4") })},
		{"trailing blanks, comment, carriage return, tab, leading blank",
			"nameserver\t10.0.0.1  \nnameserver 10.0.0.2 # office\n nameserver 10.0.0.3\r\n",
			with(func(r *fact.Resolv) { r.Servers = addrs("10.0.0.1", "10.0.0.2", "10.0.0.3") })},
		{"IPv6 with and without scope", "nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver fe80::1%2",
			with(func(r *fact.Resolv) { r.Servers = addrs("fe80::1%eth0", "2001:db8::1", "fe80::1%2") })},
		{"the last of domain and search", "domain a.example\nsearch b.example c.example\nsearch d.example\tlocal.\n",
			with(func(r *fact.Resolv) { r.Search = []string{"d.example", "local."} })},
		{"domain after search, first word only", "search b.example c.example\ndomain a.example x\n",
			with(func(r *fact.Resolv) { r.Search = []string{"a.example"} })},
		{"domain of nothing changes nothing", "search b.example\ndomain\n",
			with(func(r *fact.Resolv) { r.Search = []string{"b.example"} })},
		{"options", "options ndots:3 timeout:1 attempts:4 rotate\noptions use-vc trust-ad brand-new:1\n",
			with(func(r *fact.Resolv) {
				r.Options = []string{"ndots:3", "timeout:1", "attempts:4", "rotate", "use-vc", "trust-ad", "brand-new:1"}
				r.Timeout, r.Attempts, r.Rotate = time.Second, 4, true
			})},
		{"options below one are one", "options timeout:0 attempts:-3\n",
			with(func(r *fact.Resolv) {
				r.Options = []string{"timeout:0", "attempts:-3"}
				r.Timeout, r.Attempts = time.Second, 1
			})},
		{"options beyond all sense", "options timeout:99999999999999999999x\n",
			with(func(r *fact.Resolv) {
				r.Options = []string{"timeout:99999999999999999999x"}
				r.Timeout = 0xFFFFFF * time.Second
			})},
		{"what resolvers pass over", "nameserver\nnameserver dns.example\nnameserver 10.0.0.256\nnameservers 10.0.0.1\nNAMESERVER 10.0.0.1\nsortlist 10.0.0.0\nlookup file bind\n",
			with(func(r *fact.Resolv) { r.Ignored = 5 })},
		{"what would speak to a terminal", "search \x1b[31m\noptions \x9b\nnameserver fe80::1%\x1b[2J\nnameserver fe80::1%interface-of-16-bytes\n",
			with(func(r *fact.Resolv) {
				r.Search, r.Options, r.Ignored = []string{`\x1b[31m`}, []string{`\x9b`}, 2
			})},
		{"NULs", "nameserver 10.0.0.1\x00\n\x00\x00\nnameserver 10.0.0.2\n",
			with(func(r *fact.Resolv) { r.Servers = addrs("10.0.0.2"); r.Ignored = 2 })},
		{"too many", strings.Repeat("nameserver 10.0.0.1\n", serversMax+9),
			with(func(r *fact.Resolv) {
				r.Servers = addrs(strings.Fields(strings.Repeat("10.0.0.1 ", serversMax))...)
				r.Ignored = 9
			})},
	} {
		if got := parseResolv([]byte(c.text)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.what, got, c.want)
		}
	}
}

func TestParseSwitch(t *testing.T) {
	source := func(name, action string) fact.Source { return fact.Source{Name: name, Action: action} }
	for _, c := range []struct {
		text string
		want []fact.Source
		err  error
	}{
		{"", []fact.Source{}, nil},
		{"passwd: files\n", []fact.Source{}, nil},
		{"hosts:\n", []fact.Source{}, nil},
		{"hosts: files dns\n", []fact.Source{source("files", ""), source("dns", "")}, nil},
		{"passwd: x\n hosts :\tfiles   mdns4_minimal [NOTFOUND=return] dns # mymachines\n",
			[]fact.Source{source("files", ""), source("mdns4_minimal", "NOTFOUND=return"), source("dns", "")}, nil},
		{"hosts: resolve [!UNAVAIL=return] files[ SUCCESS=continue \tTRYAGAIN=return ]dns\r\n",
			[]fact.Source{source("resolve", "!UNAVAIL=return"), source("files", "SUCCESS=continue TRYAGAIN=return"), source("dns", "")}, nil},
		{"hosts: dns [A=return] [B=return]", []fact.Source{source("dns", "A=return B=return")}, nil},
		{"hosts: dns\nhosts: files\n", []fact.Source{source("files", "")}, nil},
		{"#hosts: dns\nhosts dns\n", []fact.Source{}, nil},
		{"hosts: files [NOTFOUND=return dns\n", []fact.Source{source("files", "")}, errUnclosed},
		{"hosts: [NOTFOUND=return] dns\n", []fact.Source{}, errNoSource},
		{"hosts: files [broken\nhosts: dns\n", []fact.Source{source("dns", "")}, nil},
	} {
		got, err := parseSwitch([]byte(c.text))
		if !reflect.DeepEqual(got, c.want) || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%q: got %+v, %v; want %+v, %v", c.text, got, err, c.want, c.err)
		}
	}
}

func TestCountHosts(t *testing.T) {
	for text, want := range map[string]int{
		"":                                     0,
		"127.0.0.1 localhost":                  1,
		"127.0.0.1 localhost a b # c d\r\n":    3,
		"::1\tlocalhost ip6-localhost\n":       2,
		"fe80::1%lo0 localhost\n":              1,
		"# 127.0.0.1 localhost\n127.0.0.1\n\n": 0,
		"127.0.0.1 a\nnot an address\n300.1.1.1 b\n10.0.0.1 c\x00d\n": 2,
	} {
		if got := countHosts([]byte(text)); got != want {
			t.Errorf("%q: %d names, want %d", text, got, want)
		}
	}
}

func FuzzResolv(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\nsearch a b\noptions timeout:3 attempts:0x1 rotate\n"))
	f.Add([]byte("nameserver fe80::1%eth0\r\n;\x00domain \xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := parseResolv(text)
		if r.Timeout < time.Second || r.Attempts < 1 || len(r.Servers) > serversMax || r.Ignored < 0 {
			t.Errorf("%+v", r)
		}
		for _, addr := range r.Servers {
			if s := addr.String(); !addr.IsValid() || s != fact.Printable(s) {
				t.Errorf("server %q", s)
			}
		}
		if len(nameservers(r)) == 0 {
			t.Error("no nameserver at all")
		}
	})
}

func FuzzSwitch(f *testing.F) {
	f.Add([]byte("hosts: files mdns4_minimal [NOTFOUND=return] dns\n"))
	f.Add([]byte("hosts:[[]]files[!a=b c=d]x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		sources, _ := parseSwitch(text)
		if sources == nil {
			t.Error("nil: unknown")
		}
		for _, s := range sources {
			if s.Name == "" || strings.ContainsAny(s.Name, blanks+"[") || s.Action != fact.Printable(s.Action) {
				t.Errorf("source %+q", s)
			}
		}
	})
}

func FuzzHosts(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost # x\n::1 a b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n := countHosts(text); n < 0 || n > len(text) {
			t.Errorf("%d names in %d bytes", n, len(text))
		}
	})
}
