package names_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/names"
)

// daemon is one that has its socket at path below a root, and answers every
// request, of which it reads some, with the same.
func daemon(t *testing.T, path string, answer []byte) (root string) {
	t.Helper()
	root, err := os.MkdirTemp("", "names") // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	socket := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(long))
				buf := make([]byte, 4096)
				if _, err := conn.Read(buf); err != nil {
					return
				}
				if answer == nil {
					_, _ = io.Copy(io.Discard, conn) // until the other end goes
					return
				}
				_, _ = conn.Write(answer)
			})
		}
	})
	return root
}

// expect looks db.corp up and compares: want is addresses, "" a definite no and
// "?" any other error.
func expect(t *testing.T, way names.Way, network, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	got, err := way.Lookup(ctx, network, "db.corp")
	var e *net.DNSError
	no := errors.As(err, &e) && e.IsNotFound
	switch {
	case want == "" && !no, want == "?" && (err == nil || no || ctx.Err() != nil), want != "" && want != "?" && (err != nil || sorted(got) != want):
		t.Errorf("%s: %v, %v; want %q", network, got, err, want)
	}
}

func TestNSCD(t *testing.T) {
	t.Parallel()
	const path = "run/nscd/socket"
	header := func(fields ...int32) []byte {
		var b bytes.Buffer
		_ = binary.Write(&b, binary.NativeEndian, fields)
		return b.Bytes()
	}
	// What glibc's nscd 2.36 says of "10.77.0.1 db.corp" and "fd77::1 db.corp".
	both := append(header(2, 1, 2, 20, 8, 0), "\x0a\x4d\x00\x01\xfd\x77\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x0adb.corp\x00"...)
	for _, c := range []struct {
		what         string
		answer       []byte
		ip, ip4, ip6 string
	}{
		{"both", both, "10.77.0.1 fd77::1", "10.77.0.1", "fd77::1"},
		{"no such name", header(2, 0, 0, 0, 0, 0), "", "", ""},
		{"could not find out", header(2, 0, 0, 0, 0, 2), "?", "?", "?"},
		{"does not do hosts", header(2, -1, 0, 0, 0, 0), "?", "?", "?"},
		{"of the future", header(3, 1, 0, 0, 0, 0), "?", "?", "?"},
		{"cut short", both[:30], "?", "?", "?"},
		{"nothing", []byte{}, "?", "?", "?"},
		{"no addresses", header(2, 1, 0, 0, 0, 0), "?", "?", "?"},
		{"too many", header(2, 1, 1<<30, 1<<30, 0, 0), "?", "?", "?"},
		{"no known family", append(header(2, 1, 1, 4, 0, 0), 10, 0, 0, 1, 9), "?", "?", "?"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			way := names.NSCD(daemon(t, path, c.answer))
			expect(t, way, "ip", c.ip)
			expect(t, way, "ip4", c.ip4)
			expect(t, way, "ip6", c.ip6)
		})
	}
}

func TestVarlink(t *testing.T) {
	t.Parallel()
	const path = "run/systemd/resolve/io.systemd.Resolve"
	for _, c := range []struct{ what, answer, ip, ip4 string }{
		// What systemd-resolved 252 says.
		{"both", `{"parameters":{"addresses":[{"family":2,"address":[10,77,0,1]},{"ifindex":1,"family":10,"address":[253,119,0,0,0,0,0,0,0,0,0,0,0,0,0,1]}],"name":"db.corp","flags":786945}}` + "\x00", "10.77.0.1 fd77::1", "10.77.0.1"},
		{"of a link", `{"parameters":{"addresses":[{"ifindex":1,"family":10,"address":[254,128,0,0,0,0,0,0,0,0,0,0,0,0,0,1]}]}}` + "\x00", "fe80::1%lo", "?"},
		{"no such name", `{"error":"io.systemd.Resolve.DNSError","parameters":{"rcode":3}}` + "\x00", "", ""},
		{"no such record", `{"error":"io.systemd.Resolve.NoSuchResourceRecord","parameters":{}}` + "\x00", "", ""},
		{"the server failed", `{"error":"io.systemd.Resolve.DNSError","parameters":{"rcode":2}}` + "\x00", "?", "?"},
		{"refused by ICMP", `{"error":"io.systemd.System","parameters":{"errno":111}}` + "\x00", "?", "?"},
		{"no server", `{"error":"io.systemd.Resolve.NoNameServers","parameters":{}}` + "\x00", "?", "?"},
		{"no addresses", `{"parameters":{}}` + "\x00", "?", "?"},
		{"an address of three bytes", `{"parameters":{"addresses":[{"address":[1,2,3]}]}}` + "\x00", "?", "?"},
		{"an address of a thousand bytes", `{"parameters":{"addresses":[{"address":[` + strings.Repeat("1,", 999) + `1]}]}}` + "\x00", "101:101:101:101:101:101:101:101", "?"},
		{"no JSON", "{\x00", "?", "?"},
		{"without end", `{"parameters":{}}`, "?", "?"},
		{"two megabytes", strings.Repeat(" ", 2<<20), "?", "?"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			way := names.Varlink(daemon(t, path, []byte(c.answer)))
			expect(t, way, "ip", c.ip)
			expect(t, way, "ip4", c.ip4)
		})
	}
}

// A daemon that does not answer is left when the context ends.
func TestDaemonIsStuck(t *testing.T) {
	t.Parallel()
	for _, way := range []names.Way{
		names.NSCD(daemon(t, "run/nscd/socket", nil)),
		names.Varlink(daemon(t, "run/systemd/resolve/io.systemd.Resolve", nil)),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		if _, err := way.Lookup(ctx, "ip", "db.corp"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > long {
			t.Errorf("%s: %v after %v", way.Name(), err, time.Since(began))
		}
		cancel()
	}
}

// The resolver finds the daemons and asks them as nsswitch.conf says.
func TestDaemonsAreFound(t *testing.T) {
	t.Parallel()
	no := `{"error":"io.systemd.Resolve.DNSError","parameters":{"rcode":3}}` + "\x00"
	for _, c := range []struct {
		what, hosts, answer, want string
		asked                     bool // the nameserver
	}{
		{"resolved has the last word", "files resolve [!UNAVAIL=return] dns", no, "", false},
		{"resolved is not asked", "files dns", no, "10.0.0.1", true},
		{"resolved is not there", "files resolve [!UNAVAIL=return] dns", "", "10.0.0.1", true},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			need.Feature(t, "the ways of Linux", linuxOnly())
			s := serve(t, zone(map[string][]string{"db.corp": {"10.0.0.1"}}))
			root := t.TempDir()
			if c.answer != "" {
				root = daemon(t, "run/systemd/resolve/io.systemd.Resolve", []byte(c.answer))
			}
			if err := errors.Join(os.MkdirAll(root+"/etc", 0o755), os.WriteFile(root+"/etc/nsswitch.conf", []byte("hosts: "+c.hosts+"\n"), 0o644)); err != nil {
				t.Fatal(err)
			}
			r := &names.Resolver{Root: root, Nameservers: []netip.AddrPort{s.addr}}
			defer r.Close()
			got, err := r.LookupNetIP(t.Context(), "ip", "db.corp")
			var e *net.DNSError
			if c.want == "" && (!errors.As(err, &e) || !e.IsNotFound) || c.want != "" && sorted(got) != c.want || (s.udp.Load() > 0) != c.asked {
				t.Errorf("%v, %v, %d questions", got, err, s.udp.Load())
			}
		})
	}
}

// getent is the C library, so what it says of this machine's own names is what
// the resolver has to say.
func TestGetent(t *testing.T) {
	t.Parallel()
	need.Program(t, "getent")
	getent := names.Getent()
	for _, host := range []string{"localhost", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "::1", "10.0.258"} {
		ctx, cancel := context.WithTimeout(t.Context(), long)
		want, err := getent.Lookup(ctx, "ip4", host)
		if host == "::1" {
			want, err = getent.Lookup(ctx, "ip6", host)
		}
		cancel()
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		network := "ip4"
		if host == "::1" {
			network = "ip6"
		}
		if got, err := names.Default.LookupNetIP(t.Context(), network, host); err != nil || sorted(got) != sorted(want) {
			t.Errorf("%s: %v, %v; getent says %v", host, got, err, want)
		}
	}
	for _, host := range []string{"-x", "a\x00b"} {
		if got, err := getent.Lookup(t.Context(), "ip", host); err == nil {
			t.Errorf("%q: %v", host, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := getent.Lookup(ctx, "ip", "localhost"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	way := names.Hosts(etc(t, map[string]string{"hosts": "10.77.0.1 db.corp\nfd77::1 DB.corp\n"}))
	expect(t, way, "ip", "10.77.0.1 fd77::1")
	expect(t, way, "ip4", "10.77.0.1")
	expect(t, names.Hosts(t.TempDir()), "ip", "")
}

func TestServer(t *testing.T) {
	t.Parallel()
	way := names.Server(serve(t, zone(map[string][]string{"db.corp": {"10.77.0.1", "fd77::1"}})).addr)
	expect(t, way, "ip", "10.77.0.1 fd77::1")
	expect(t, way, "ip6", "fd77::1")
	expect(t, names.Server(serve(t, zone(nil)).addr), "ip", "")
	expect(t, names.Server(serve(t, func(q *asked) [][]byte { return q.code(dnsmessage.RCodeServerFailure) }).addr), "ip", "?")
	began := time.Now() // without a deadline of its own
	if got, err := names.Server(serve(t, silence).addr).Lookup(context.Background(), "ip", "db.corp"); err == nil || time.Since(began) > long {
		t.Errorf("%v, %v after %v", got, err, time.Since(began))
	}
	if name := names.Server(netip.MustParseAddrPort("10.0.0.53:53")).Name(); name != "udp 10.0.0.53" {
		t.Error(name)
	}
}

// A way that is registered is asked, and another one of its name takes its place.
func TestRegister(t *testing.T) {
	first := &way{name: "test", lookup: stuck().lookup}
	second := &way{name: "test", lookup: says(map[string][]string{"only.the.system.knows": {"10.8.0.1"}}).lookup}
	names.Register(first)
	before := len(names.Registered())
	names.Register(second)
	if n := len(names.Registered()); n != before {
		t.Errorf("%d ways", n)
	}
	r := &names.Resolver{Root: t.TempDir(), Nameservers: []netip.AddrPort{}}
	if answer, err := r.Lookup(t.Context(), "ip", "only.the.system.knows"); err != nil || answer.Way != "test" {
		t.Errorf("%+v, %v", answer, err)
	}
	second.lookup = broken().lookup // other tests must not hear of it
}
