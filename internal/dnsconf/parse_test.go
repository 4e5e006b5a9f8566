package dnsconf

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
	defaults := Resolv{Timeout: 5 * time.Second, Attempts: 2, NDots: 1}
	with := func(f func(*Resolv)) Resolv {
		r := defaults
		f(&r)
		return r
	}
	for _, c := range []struct {
		what, text string
		want       Resolv
	}{
		{"empty", "", defaults},
		{"comments and blank lines", "# a\n; b\n\n  # c\n\t;d\n \t \n", defaults},
		{"all servers, also beyond the third", "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.1\nnameserver 10.0.0.4",
			with(func(r *Resolv) { r.Servers = addrs("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.4") })},
		{"trailing blanks, comment, carriage return, tab, leading blank",
			"nameserver\t10.0.0.1  \nnameserver 10.0.0.2 # office\n nameserver 10.0.0.3\r\n",
			with(func(r *Resolv) { r.Servers = addrs("10.0.0.1", "10.0.0.2", "10.0.0.3") })},
		{"IPv6 with and without scope", "nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver fe80::1%2",
			with(func(r *Resolv) { r.Servers = addrs("fe80::1%eth0", "2001:db8::1", "fe80::1%2") })},
		{"the last of domain and search", "domain a.example\nsearch b.example c.example\nsearch d.example\tlocal.\n",
			with(func(r *Resolv) { r.Search = []string{"d.example", "local."} })},
		{"domain after search, first word only", "search b.example c.example\ndomain a.example x\n",
			with(func(r *Resolv) { r.Search = []string{"a.example"} })},
		{"domain of nothing changes nothing", "search b.example\ndomain\n",
			with(func(r *Resolv) { r.Search = []string{"b.example"} })},
		{"options", "options ndots:3 timeout:1 attempts:4 rotate\noptions use-vc trust-ad brand-new:1\n",
			with(func(r *Resolv) {
				r.Options = []string{"ndots:3", "timeout:1", "attempts:4", "rotate", "use-vc", "trust-ad", "brand-new:1"}
				r.Timeout, r.Attempts, r.Rotate, r.NDots, r.TCP = time.Second, 4, true, 3, true
			})},
		{"options below one are one", "options timeout:0 attempts:-3\n",
			with(func(r *Resolv) {
				r.Options = []string{"timeout:0", "attempts:-3"}
				r.Timeout, r.Attempts = time.Second, 1
			})},
		{"options beyond all sense", "options timeout:99999999999999999999x\n",
			with(func(r *Resolv) {
				r.Options = []string{"timeout:99999999999999999999x"}
				r.Timeout = 0xFFFFFF * time.Second
			})},
		{"what resolvers pass over", "nameserver\nnameserver dns.example\nnameserver 10.0.0.256\nnameservers 10.0.0.1\nNAMESERVER 10.0.0.1\nsortlist 10.0.0.0\nlookup file bind\n",
			with(func(r *Resolv) { r.Ignored = 5 })},
		{"what is shown by whoever makes it fit for that", "search \x1b[31m\noptions \x9b\nnameserver fe80::1%\x1b[2J\nnameserver fe80::1%interface-of-16-bytes\n",
			with(func(r *Resolv) {
				r.Search, r.Options, r.Ignored = []string{"\x1b[31m"}, []string{"\x9b"}, 1
				r.Servers = addrs("fe80::1%\x1b[2J")
			})},
		{"NULs", "nameserver 10.0.0.1\x00\n\x00\x00\nnameserver 10.0.0.2\n",
			with(func(r *Resolv) { r.Servers = addrs("10.0.0.2"); r.Ignored = 2 })},
		{"too many", strings.Repeat("nameserver 10.0.0.1\n", serversMax+9),
			with(func(r *Resolv) {
				r.Servers = addrs(strings.Fields(strings.Repeat("10.0.0.1 ", serversMax))...)
				r.Ignored = 9
			})},
	} {
		if got := ParseResolv([]byte(c.text)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.what, got, c.want)
		}
	}
}

func TestParseSwitch(t *testing.T) {
	source := func(name, action string) Source { return Source{Name: name, Action: action} }
	for _, c := range []struct {
		text string
		want []Source
		err  error
	}{
		{"", []Source{}, nil},
		{"passwd: files\n", []Source{}, nil},
		{"hosts:\n", []Source{}, nil},
		{"hosts: files dns\n", []Source{source("files", ""), source("dns", "")}, nil},
		{"passwd: x\n hosts :\tfiles   mdns4_minimal [NOTFOUND=return] dns # mymachines\n",
			[]Source{source("files", ""), source("mdns4_minimal", "NOTFOUND=return"), source("dns", "")}, nil},
		{"hosts: resolve [!UNAVAIL=return] files[ SUCCESS=continue \tTRYAGAIN=return ]dns\r\n",
			[]Source{source("resolve", "!UNAVAIL=return"), source("files", "SUCCESS=continue TRYAGAIN=return"), source("dns", "")}, nil},
		{"hosts: dns [A=return] [B=return]", []Source{source("dns", "A=return B=return")}, nil},
		{"hosts: dns\nhosts: files\n", []Source{source("files", "")}, nil},
		{"#hosts: dns\nhosts dns\n", []Source{}, nil},
		{"hosts: files [NOTFOUND=return dns\n", []Source{source("files", "")}, ErrUnclosed},
		{"hosts: [NOTFOUND=return] dns\n", []Source{}, ErrNoSource},
		{"hosts: files [broken\nhosts: dns\n", []Source{source("dns", "")}, nil},
	} {
		got, err := ParseSwitch([]byte(c.text))
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
		if got := CountHosts([]byte(text)); got != want {
			t.Errorf("%q: %d names, want %d", text, got, want)
		}
	}
}

func TestHosts(t *testing.T) {
	h := ParseHosts([]byte("127.0.0.1 localhost\n::1 localhost\n10.0.0.1 Db db.corp. # db2\n10.0.0.2 DB\n10.0.0.1 db\nfe80::1%eth0 link\n"))
	for name, want := range map[string][]netip.Addr{
		"localhost":  addrs("127.0.0.1", "::1"),
		"LOCALHOST.": addrs("127.0.0.1", "::1"),
		"db":         addrs("10.0.0.1", "10.0.0.2"),
		"db.corp":    addrs("10.0.0.1"),
		"db2":        nil,
		"link":       addrs("fe80::1%eth0"),
		"":           nil,
	} {
		if got := h.Addrs(name); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	if got := (Hosts{}).Addrs("localhost"); got != nil {
		t.Errorf("nothing has %v", got)
	}
}

func TestReturns(t *testing.T) {
	for _, c := range []struct {
		action, status string
		want           bool
	}{
		{"", "NOTFOUND", false},
		{"NOTFOUND=return", "NOTFOUND", true},
		{"notfound=RETURN", "NOTFOUND", true},
		{"NOTFOUND=return", "UNAVAIL", false},
		{"!UNAVAIL=return", "NOTFOUND", true},
		{"!UNAVAIL=return", "TRYAGAIN", true},
		{"!UNAVAIL=return", "UNAVAIL", false},
		{"!UNAVAIL=return NOTFOUND=continue", "NOTFOUND", false},
		{"=return", "NOTFOUND", false},
		{"return", "NOTFOUND", false},
	} {
		if got := (Source{Action: c.action}).Returns(c.status); got != c.want {
			t.Errorf("[%s] at %s: %v, want %v", c.action, c.status, got, c.want)
		}
	}
}

func FuzzResolv(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\nsearch a b\noptions timeout:3 attempts:0x1 rotate\n"))
	f.Add([]byte("nameserver fe80::1%eth0\r\n;\x00domain \xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := ParseResolv(text)
		if r.Timeout < time.Second || r.Attempts < 1 || len(r.Servers) > serversMax || r.Ignored < 0 {
			t.Errorf("%+v", r)
		}
		for _, addr := range r.Servers {
			if !addr.IsValid() {
				t.Errorf("servers %v", r.Servers)
			}
		}
		if len(r.ServersOrDefault()) == 0 || r.NDots < 0 || r.NDots > mostNDots {
			t.Error("no nameserver at all")
		}
	})
}

func FuzzSwitch(f *testing.F) {
	f.Add([]byte("hosts: files mdns4_minimal [NOTFOUND=return] dns\n"))
	f.Add([]byte("hosts:[[]]files[!a=b c=d]x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		sources, _ := ParseSwitch(text)
		if sources == nil {
			t.Error("nil: unknown")
		}
		for _, s := range sources {
			if s.Name == "" || strings.ContainsAny(s.Name, blanks+"[") || strings.ContainsAny(s.Action, "]\n") {
				t.Errorf("source %+q", s)
			}
		}
	})
}

func FuzzHosts(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost # x\n::1 a b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := CountHosts(text)
		if n < 0 || n > len(text) {
			t.Errorf("%d names in %d bytes", n, len(text))
		}
		if h := ParseHosts(text); h.Count() != n {
			t.Errorf("%d names, counted %d", h.Count(), n)
		}
	})
}
