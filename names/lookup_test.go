package names_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/names"
)

const (
	hidden = "hosts: files sss dns\n"                             // sss might know a name
	onlySS = "hosts: files sss [NOTFOUND=return] dns\n"           // and has the last word
	noDNS  = "hosts: files sss\n"                                 // and DNS is not asked
	avahi  = "hosts: files mdns4_minimal [NOTFOUND=return] dns\n" // knows .local
)

func sorted(all []netip.Addr) string {
	var texts []string
	for _, addr := range all {
		texts = append(texts, addr.String())
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// Who gives the answer, and what it is.
func TestRules(t *testing.T) {
	t.Parallel()
	dns := zone(map[string][]string{"db.corp": {"10.0.0.1", "fd00::1"}, "web.corp": {"10.0.0.2"}, "alias.corp": {"db.corp.", "10.0.0.1"}, "printer.local": {"10.0.0.9"}, "both": {"10.9.9.9"}})
	system := map[string][]string{"vpn.corp": {"10.8.0.1"}, "db.corp": {"10.8.0.2"}, "printer.local": {"10.8.0.9"}}
	for _, c := range []struct {
		what    string
		files   map[string]string
		system  []names.Way
		network string
		host    string
		want    string // addresses, or "" for a definite no, or "?" for an error that is none
		way     string
	}{
		{"plain DNS", nil, nil, "ip", "db.corp", "10.0.0.1 fd00::1", ":"},
		{"of IPv4", nil, nil, "ip4", "db.corp", "10.0.0.1", ":"},
		{"of IPv6", nil, nil, "ip6", "db.corp", "fd00::1", ":"},
		{"no IPv6", nil, nil, "ip6", "web.corp", "", ""},
		{"an alias", nil, nil, "ip", "alias.corp", "10.0.0.1", ":"},
		{"no such name", nil, nil, "ip", "none.corp", "", ""},
		{"a dot at the end", nil, nil, "ip", "db.corp.", "10.0.0.1 fd00::1", ":"},
		{"letter case", nil, nil, "ip", "DB.Corp", "10.0.0.1 fd00::1", ":"},
		{"the search list", map[string]string{"resolv.conf": "search nowhere corp\n"}, nil, "ip", "db", "10.0.0.1 fd00::1", ":"},
		{"ndots", map[string]string{"resolv.conf": "search corp\noptions ndots:2\n"}, nil, "ip", "web.corp", "10.0.0.2", ":"},
		{"/etc/hosts", map[string]string{"hosts": "10.7.0.1 db.corp\n"}, nil, "ip", "db.corp", "10.7.0.1", "hosts"},
		{"/etc/hosts has no IPv6", map[string]string{"hosts": "10.7.0.1 db.corp\n"}, nil, "ip6", "db.corp", "fd00::1", ":"},
		{"files after dns", map[string]string{"hosts": "10.7.0.1 db.corp\n10.7.0.2 two.corp\n", "nsswitch.conf": "hosts: dns files\n"}, nil, "ip", "db.corp", "10.0.0.1 fd00::1", ":"},
		{"only files after dns", map[string]string{"hosts": "10.7.0.2 two.corp\n", "nsswitch.conf": "hosts: dns files\n"}, nil, "ip", "two.corp", "10.7.0.2", "hosts"},
		{"an address", nil, nil, "ip", "10.1.2.3", "10.1.2.3", "address"},
		{"an address in short", nil, nil, "ip", "127.1", "127.0.0.1", "address"},
		{"an address in hexadecimal", nil, nil, "ip", "0xab.0x1", "171.0.0.1", "address"},
		{"an address of the other kind", nil, nil, "ip6", "10.1.2.3", "", ""},
		{"a link's address", nil, nil, "ip", "fe80::1%lo", "fe80::1%lo", "address"},
		{"no name", nil, nil, "ip", "", "", ""},
		{"no host name", nil, nil, "ip", "b\xfccher.corp", "", ""},
		{"an onion", nil, nil, "ip", "x.onion", "?", ""},

		{"the system's yes beats the nameservers' no", nil, []names.Way{says(system)}, "ip", "vpn.corp", "10.8.0.1", "system"},
		{"the system's no beats the nameservers' yes", map[string]string{"nsswitch.conf": hidden}, []names.Way{says(nil)}, "ip", "db.corp", "", ""},
		{"the system first", map[string]string{"nsswitch.conf": hidden}, []names.Way{says(system)}, "ip", "db.corp", "10.8.0.2", "system"},
		{"the nameservers instead of a broken system", map[string]string{"nsswitch.conf": hidden}, []names.Way{broken()}, "ip", "db.corp", "10.0.0.1 fd00::1", ":"},
		{"their no, when the system is broken", map[string]string{"nsswitch.conf": hidden}, []names.Way{broken()}, "ip", "none.corp", "", ""},
		{"not where the source has the last word", map[string]string{"nsswitch.conf": onlySS}, []names.Way{broken()}, "ip", "db.corp", "?", ""},
		{"not without dns", map[string]string{"nsswitch.conf": noDNS}, []names.Way{broken()}, "ip", "db.corp", "?", ""},
		{"another way when one is broken", map[string]string{"nsswitch.conf": noDNS}, []names.Way{broken(), says(system)}, "ip", "vpn.corp", "10.8.0.1", "system"},
		{".local is mDNS's", map[string]string{"nsswitch.conf": avahi}, []names.Way{broken()}, "ip", "printer.local", "?", ""},
		{"and the system's", map[string]string{"nsswitch.conf": avahi}, []names.Way{says(system)}, "ip", "printer.local", "10.8.0.9", "system"},
		{"the rest is not", map[string]string{"nsswitch.conf": avahi}, []names.Way{broken()}, "ip", "db.corp", "10.0.0.1 fd00::1", ":"},
		{"localhost that nobody knows", nil, nil, "ip4", "localhost", "127.0.0.1", "localhost"},
		{"localhost that the system knows", nil, []names.Way{says(map[string][]string{"localhost": {"127.0.0.9"}})}, "ip", "localhost", "127.0.0.9", "system"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			s := serve(t, dns)
			r := resolver(t, c.files, c.system, s)
			answer, err := r.Lookup(t.Context(), c.network, c.host)
			var e *net.DNSError
			switch {
			case c.want == "" || c.want == "?":
				if !errors.As(err, &e) || e.IsNotFound != (c.want == "") {
					t.Errorf("%+v, %v", answer, err)
				}
			case err != nil || sorted(answer.Addrs) != c.want || !strings.Contains(answer.Way, c.way) || answer.Why == "" || answer.At.IsZero():
				t.Errorf("%+v, %v; want %s by %s", answer, err, c.want, c.way)
			}
			if c.want == "?" && s.udp.Load() > 0 {
				t.Errorf("%d questions to the nameserver, which the system would not have asked", s.udp.Load())
			}
		})
	}
}

// What nameservers do, and what comes of it.
func TestServers(t *testing.T) {
	t.Parallel()
	good := zone(map[string][]string{"db.corp": {"10.0.0.1"}})
	code := func(code dnsmessage.RCode) handler { return func(q *asked) [][]byte { return q.code(code) } }
	many := func(q *asked) [][]byte {
		if q.kind != dnsmessage.TypeA {
			return q.code(dnsmessage.RCodeSuccess)
		}
		if !q.tcp {
			m := q.Message
			m.Response, m.RecursionAvailable, m.Truncated, m.Additionals = true, true, true, nil
			packed, _ := m.Pack()
			return [][]byte{packed}
		}
		var all []string
		for i := range 200 {
			all = append(all, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}).String())
		}
		return [][]byte{q.reply(dnsmessage.RCodeSuccess, all...)}
	}
	lame := func(q *asked) [][]byte {
		m := q.Message
		m.Response, m.Additionals = true, nil
		packed, _ := m.Pack()
		return [][]byte{packed}
	}
	noEDNS := func(q *asked) [][]byte {
		if q.edns() {
			return q.code(dnsmessage.RCodeFormatError)
		}
		return good(q)
	}
	dropsEDNS := func(q *asked) [][]byte {
		if q.edns() {
			return nil
		}
		return good(q)
	}
	dropsUDP := func(q *asked) [][]byte {
		if !q.tcp {
			return nil
		}
		return good(q)
	}
	noSix := func(q *asked) [][]byte {
		if q.kind == dnsmessage.TypeAAAA {
			return nil
		}
		return good(q)
	}
	for _, c := range []struct {
		what    string
		servers []handler
		count   int // addresses; 0 for a no, -1 for another error
		by      int // which server
	}{
		{"the first is dead", []handler{silence, good}, 1, 1},
		{"two are dead", []handler{silence, silence, good}, 1, 2},
		{"the first fails", []handler{code(dnsmessage.RCodeServerFailure), good}, 1, 1},
		{"the first refuses", []handler{code(dnsmessage.RCodeRefused), good}, 1, 1},
		{"the first is lame", []handler{lame, good}, 1, 1},
		{"a no of the first is one", []handler{code(dnsmessage.RCodeNameError), silence}, 0, 0},
		{"all fail", []handler{code(dnsmessage.RCodeServerFailure), code(dnsmessage.RCodeRefused)}, -1, 0},
		{"EDNS is refused", []handler{noEDNS}, 1, 0},
		{"EDNS is dropped", []handler{dropsEDNS}, 1, 0},
		{"UDP is dropped", []handler{dropsUDP}, 1, 0},
		{"AAAA is never answered", []handler{noSix}, 1, 0},
		{"the answer is truncated", []handler{many}, 200, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			var servers []*nameserver
			for _, handle := range c.servers {
				servers = append(servers, serve(t, handle))
			}
			r := resolver(t, nil, nil, servers...)
			for range 3 {
				answer, err := r.Lookup(t.Context(), "ip", "db.corp")
				var e *net.DNSError
				switch {
				case c.count <= 0:
					if !errors.As(err, &e) || e.IsNotFound != (c.count == 0) || e.IsTimeout {
						t.Errorf("%+v, %v", answer, err)
					}
				case err != nil || len(answer.Addrs) != c.count || !strings.HasSuffix(answer.Way, servers[c.by].addr.String()):
					t.Errorf("%+v, %v; want %d by %s", answer, err, c.count, servers[c.by].addr)
				}
			}
		})
	}
}

// The options of resolv.conf that count.
func TestOptions(t *testing.T) {
	t.Parallel()
	good := zone(map[string][]string{"a.corp": {"10.0.0.1"}, "b.corp": {"10.0.0.1"}})
	first, second := serve(t, good), serve(t, good)
	r := resolver(t, map[string]string{"resolv.conf": "options use-vc rotate\n"}, nil, first, second)
	for _, host := range []string{"a.corp", "b.corp"} {
		if answer, err := r.Lookup(t.Context(), "ip4", host); err != nil || !strings.HasPrefix(answer.Way, "tcp ") {
			t.Errorf("%+v, %v", answer, err)
		}
	}
	if first.tcp.Load() == 0 || second.tcp.Load() == 0 || first.udp.Load()+second.udp.Load() > 0 {
		t.Errorf("over TCP %d and %d, over UDP %d and %d", first.tcp.Load(), second.tcp.Load(), first.udp.Load(), second.udp.Load())
	}
}

// A server that did not answer is asked last, until it answers again.
func TestDeadServerIsRemembered(t *testing.T) {
	t.Parallel()
	good := func(q *asked) [][]byte { // whatever the name
		if q.kind != dnsmessage.TypeA {
			return q.code(dnsmessage.RCodeSuccess)
		}
		return [][]byte{q.reply(dnsmessage.RCodeSuccess, "10.0.0.1")}
	}
	alive := make(chan struct{})
	first := serve(t, func(q *asked) [][]byte {
		select {
		case <-alive:
			return good(q)
		default:
			return nil
		}
	})
	second := serve(t, good)
	r := resolver(t, nil, nil, first, second)
	if _, err := r.Lookup(t.Context(), "ip", "a.corp"); err != nil {
		t.Fatal(err)
	}
	if ways := r.Ways(); len(ways) != 2 || !ways[0].Dead || ways[0].Err == nil || ways[1].Dead || ways[1].Smoothed == 0 {
		t.Errorf("%+v", ways)
	}
	if answer, err := r.Lookup(t.Context(), "ip", "b.corp"); err != nil || !strings.HasSuffix(answer.Way, second.addr.String()) {
		t.Errorf("%+v, %v", answer, err)
	}
	close(alive)
	for i := 0; r.Ways()[0].Answered.IsZero(); i++ { // lookups are what has it asked
		if _, err := r.Lookup(t.Context(), "ip", fmt.Sprintf("c%d.corp", i)); err != nil {
			t.Fatal(err)
		}
		if time.Sleep(20 * time.Millisecond); i > 1000 {
			t.Fatal("a server that is back is not asked again")
		}
	}
	for i := 0; ; i++ { // where this machine is not too busy to hear of it at once
		answer, err := r.Lookup(t.Context(), "ip", fmt.Sprintf("d%d.corp", i))
		if err == nil && strings.HasSuffix(answer.Way, first.addr.String()) {
			break
		}
		if i > 1000 {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
}

// The bound of a lookup when nobody answers.
func TestBound(t *testing.T) {
	t.Parallel()
	for what, files := range map[string]map[string]string{
		"files and dns": nil,
		"hidden source": {"nsswitch.conf": hidden},
		"search list":   {"resolv.conf": "search a b c d e f\n"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := resolver(t, files, []names.Way{stuck()}, serve(t, silence), serve(t, silence))
			r.Timeout = 500 * time.Millisecond
			began := time.Now()
			_, err := r.Lookup(t.Context(), "ip", "db.corp")
			var e *net.DNSError
			if took := time.Since(began); took < r.Timeout || took > long {
				t.Errorf("took %v", took)
			}
			if !errors.As(err, &e) || !e.IsTimeout || e.IsNotFound || !strings.Contains(e.Error(), "stuck") || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
	}
}

// An error says of each way why it could not find out.
func TestErrorText(t *testing.T) {
	t.Parallel()
	refusing := serve(t, func(q *asked) [][]byte { return q.code(dnsmessage.RCodeRefused) })
	r := resolver(t, nil, []names.Way{broken()}, refusing)
	_, err := r.Lookup(t.Context(), "ip", "db.corp")
	want := "lookup db.corp: broken: broken; dns: udp " + refusing.addr.String() + ": answers REFUSED"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// It is a timeout too where only nameservers were asked.
func TestBoundOfNameservers(t *testing.T) {
	t.Parallel()
	r := resolver(t, nil, nil, serve(t, silence))
	r.Timeout = 200 * time.Millisecond
	for i := range 10 {
		_, err := r.Lookup(t.Context(), "ip", fmt.Sprintf("n%d.corp", i))
		var e *net.DNSError
		if !errors.As(err, &e) || !e.IsTimeout || e.IsNotFound || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%v", err)
		}
	}
}

// A system that is stuck costs one lookup some patience, and then none.
func TestStuckSystem(t *testing.T) {
	t.Parallel()
	good := zone(map[string][]string{"db.corp": {"10.0.0.1"}})
	t.Run("nameservers are as good", func(t *testing.T) {
		t.Parallel()
		r := resolver(t, nil, []names.Way{stuck()}, serve(t, good))
		r.Timeout = long
		answer, err := r.Lookup(t.Context(), "ip", "db.corp")
		if err != nil || !strings.Contains(answer.Why, "stuck had not answered") {
			t.Errorf("%+v, %v", answer, err)
		}
		if ways := r.Ways(); len(ways) != 2 || !ways[0].Dead || !ways[0].System {
			t.Errorf("%+v", ways)
		}
		// It cannot be asked whether this is true.
		var e *net.DNSError
		if _, err := r.Lookup(t.Context(), "ip", "none.corp"); !errors.As(err, &e) || !e.IsNotFound {
			t.Errorf("%v", err)
		}
	})
	t.Run("it comes back", func(t *testing.T) {
		t.Parallel()
		var back atomic.Bool
		system := &way{name: "back", lookup: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			if !back.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return addrs("10.8.0.1"), nil
		}}
		r := resolver(t, map[string]string{"nsswitch.conf": "hosts: dns files\n"}, []names.Way{system}, serve(t, func(q *asked) [][]byte {
			return [][]byte{q.reply(dnsmessage.RCodeSuccess, map[dnsmessage.Type][]string{dnsmessage.TypeA: {"10.0.0.1"}}[q.kind]...)}
		}))
		for i := 0; ; i++ {
			answer, err := r.Lookup(t.Context(), "ip", fmt.Sprintf("n%d.corp", i))
			if err != nil {
				t.Fatal(err)
			}
			if answer.Way == "back" {
				break
			}
			if back.Store(true); i > 1000 {
				t.Fatal("a way that is back is not asked again")
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	t.Run("nameservers are asked instead", func(t *testing.T) {
		t.Parallel()
		s := serve(t, good)
		r := resolver(t, map[string]string{"nsswitch.conf": hidden}, []names.Way{stuck()}, s)
		r.Timeout = time.Second
		answer, err := r.Lookup(t.Context(), "ip", "db.corp")
		if err != nil || answer.Took < r.Timeout/2 {
			t.Errorf("%+v, %v", answer, err)
		}
		var e *net.DNSError
		if _, err := r.Lookup(t.Context(), "ip", "none.corp"); !errors.As(err, &e) || e.IsNotFound || !e.IsTimeout {
			t.Errorf("a no that is not final: %v", err)
		}
	})
	t.Run("only AAAA is stuck", func(t *testing.T) {
		t.Parallel()
		system := &way{name: "six", lookup: func(ctx context.Context, network, _ string) ([]netip.Addr, error) {
			if network != "ip4" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return addrs("10.8.0.1"), nil
		}}
		r := resolver(t, map[string]string{"nsswitch.conf": noDNS}, []names.Way{system})
		r.Timeout = long
		if answer, err := r.Lookup(t.Context(), "ip", "vpn.corp"); err != nil || sorted(answer.Addrs) != "10.8.0.1" {
			t.Errorf("%+v, %v", answer, err)
		}
	})
	t.Run("it has much to do", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		letGo := sync.OnceFunc(func() { close(release) })
		defer letGo()
		system := &way{name: "busy", lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			if strings.HasPrefix(host, "held") {
				<-release
			}
			return addrs("10.8.0.1"), nil
		}}
		r := resolver(t, nil, []names.Way{system}, serve(t, func(q *asked) [][]byte {
			return [][]byte{q.reply(dnsmessage.RCodeSuccess, map[dnsmessage.Type][]string{dnsmessage.TypeA: {"10.0.0.1"}}[q.kind]...)}
		}))
		r.Timeout = long
		by := func(prefix string) (ways map[bool]int) { // whether it is the system's way
			ways = make(map[bool]int)
			for i := range 20 {
				answer, err := r.Lookup(t.Context(), "ip", fmt.Sprintf("%s%d.corp", prefix, i))
				if err != nil {
					t.Fatal(err)
				}
				ways[answer.Way == "busy"]++
			}
			return ways
		}
		if ways := by("free"); ways[true] == 0 {
			t.Errorf("%v: the system is not asked first", ways)
		}
		var held sync.WaitGroup
		for i := range 16 { // nameservers answer these
			held.Go(func() { _, _ = r.Lookup(t.Context(), "ip", fmt.Sprintf("held%d.corp", i)) })
		}
		held.Wait()
		for r.Ways()[0].Dead { // no more when it has been asked whether it is back
			_ = by(fmt.Sprint("again", time.Now().UnixNano()))
			time.Sleep(20 * time.Millisecond)
		}
		if ways := by("crowd"); ways[false] == 0 {
			t.Errorf("%v: the system is asked first all the same", ways)
		}
		letGo()
		for ways := by("one"); ways[true] == 0; ways = by(fmt.Sprint("more", time.Now().UnixNano())) {
			time.Sleep(time.Millisecond)
		}
	})
	t.Run("a slow yes beats a no", func(t *testing.T) {
		t.Parallel()
		system := &way{name: "slow", lookup: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			select {
			case <-time.After(300 * time.Millisecond):
				return addrs("10.8.0.1"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		r := resolver(t, nil, []names.Way{system}, serve(t, good))
		r.Timeout = long
		if answer, err := r.Lookup(t.Context(), "ip", "vpn.corp"); err != nil || sorted(answer.Addrs) != "10.8.0.1" {
			t.Errorf("%+v, %v", answer, err)
		}
	})
}

// Many who want the same share one lookup, and it ends when all have left.
func TestShared(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	system := &way{name: "slow", lookup: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}}
	r := resolver(t, map[string]string{"nsswitch.conf": noDNS}, []names.Way{system})
	r.Timeout = long
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	for range 10 {
		go func() {
			_, err := r.Lookup(ctx, "ip4", "db.corp")
			errs <- err
		}()
	}
	for system.calls.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	cancel()
	for range 10 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	select {
	case <-ended:
	case <-time.After(long):
		t.Error("the lookup goes on")
	}
	if n := system.calls.Load(); n != 1 {
		t.Errorf("%d lookups", n)
	}
}

// Many callers at a time, over a path that loses one packet of ten, find every
// name, and leave nothing behind.
func TestMany(t *testing.T) {
	lossy := func(q *asked) [][]byte {
		if rand.IntN(10) == 0 {
			return nil
		}
		return [][]byte{q.reply(dnsmessage.RCodeSuccess, map[dnsmessage.Type]string{dnsmessage.TypeA: "10.0.0.1", dnsmessage.TypeAAAA: "fd00::1"}[q.kind])}
	}
	r := resolver(t, nil, []names.Way{broken()}, serve(t, lossy), serve(t, lossy))
	r.Timeout = long
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 12 {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(10) == 0 {
					time.AfterFunc(time.Duration(rand.IntN(5))*time.Millisecond, cancel)
				}
				answer, err := r.Lookup(ctx, "ip", fmt.Sprintf("n%d.corp", rand.IntN(500)))
				if err != nil && ctx.Err() == nil || err == nil && sorted(answer.Addrs)[:8] != "10.0.0.1" {
					t.Errorf("%+v, %v", answer, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	r.Close()
	for deadline := time.Now().Add(long); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// Answers are kept for their lifetime, and not when the configuration is another.
func TestCache(t *testing.T) {
	t.Parallel()
	s := serve(t, zone(map[string][]string{"db.corp": {"10.0.0.1"}}))
	r := resolver(t, map[string]string{"hosts": ""}, nil, s)
	first, err := r.Lookup(t.Context(), "ip", "db.corp")
	if err != nil || first.Cached || first.Until.Sub(first.At) != 30*time.Second { // less than its TTL
		t.Fatalf("%+v, %v", first, err)
	}
	first.Addrs[0] = netip.Addr{} // it is the caller's
	second, err := r.Lookup(t.Context(), "ip", "DB.corp")
	if err != nil || !second.Cached || sorted(second.Addrs) != "10.0.0.1" || !second.At.Equal(first.At) {
		t.Errorf("%+v, %v", second, err)
	}
	if err := os.WriteFile(filepath.Join(r.Root, "etc/hosts"), []byte("10.7.0.1 db.corp\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(long); ; time.Sleep(10 * time.Millisecond) {
		answer, err := r.Lookup(t.Context(), "ip", "db.corp")
		if err != nil {
			t.Fatal(err)
		}
		if answer.Way == "hosts" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", answer)
		}
	}
}

// A resolv.conf that changes is read again.
func TestResolvConfChanges(t *testing.T) {
	t.Parallel()
	r := resolver(t, map[string]string{"resolv.conf": "nameserver 127.0.0.1\n"}, nil)
	r.Nameservers = nil
	servers := func() (all []string) {
		for _, way := range r.Ways() {
			all = append(all, way.Way)
		}
		return all
	}
	if got := servers(); !slices.Equal(got, []string{"udp 127.0.0.1"}) {
		t.Errorf("%q", got)
	}
	if err := os.WriteFile(filepath.Join(r.Root, "etc/resolv.conf"), []byte("nameserver 127.0.0.2\nnameserver ::1\nnameserver 127.0.0.3\nnameserver 127.0.0.4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []string{"udp 127.0.0.2", "udp ::1", "udp 127.0.0.3"}
	for deadline := time.Now().Add(long); !slices.Equal(servers(), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q", servers())
		}
	}
}
