//go:build linux

package dnsconf

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

// root returns a directory with these files of etc.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	dir := root(t, map[string]string{
		"resolv.conf":   "nameserver 127.0.0.53\noptions edns0\n",
		"nsswitch.conf": "hosts: files dns\n",
		"hosts":         "127.0.0.1 localhost\n127.0.1.1 box box.example\n",
	})
	names, blind := Read(dir)
	if len(blind) != 0 {
		t.Errorf("blind: %+v", blind)
	}
	resolv, ok := names.Resolv.Get()
	if !ok || resolv.Path != dir+"/etc/resolv.conf" || len(resolv.Servers) != 1 || resolv.Options[0] != "edns0" {
		t.Errorf("resolv.conf: %+v, %v", resolv, ok)
	}
	if sources, ok := names.Switch.Get(); !ok || len(sources) != 2 {
		t.Errorf("nsswitch.conf: %+v, %v", sources, ok)
	}
	if names.Hosts != fact.Seen(3) {
		t.Errorf("hosts: %+v", names.Hosts)
	}
	want := fact.Nameserver{Addr: netip.MustParseAddr("127.0.0.53"), Interface: "lo"}
	if len(names.Nameservers) != 1 || names.Nameservers[0] != want {
		t.Errorf("nameservers: %+v, want %+v", names.Nameservers, want)
	}
}

// The machine's own configuration is only read, whatever it is.
func TestReadOwn(t *testing.T) {
	for _, dir := range []string{"", "/", "/proc/self/root"} {
		names, _ := Read(dir)
		if resolv, ok := names.Resolv.Get(); !ok || resolv.Path != filepath.Join("/", dir, "etc/resolv.conf") || len(names.Nameservers) == 0 {
			t.Errorf("%q: %+v", dir, names)
		}
	}
}

func TestMissing(t *testing.T) {
	names, blind := Read(root(t, nil))
	if len(blind) != 0 {
		t.Errorf("blind: %+v; a missing file is known to be empty", blind)
	}
	resolv, ok := names.Resolv.Get()
	if !ok || resolv.Servers != nil || resolv.Timeout != 5*time.Second || resolv.Attempts != 2 {
		t.Errorf("resolv.conf: %+v, %v", resolv, ok)
	}
	if sources, ok := names.Switch.Get(); !ok || len(sources) != 0 {
		t.Errorf("nsswitch.conf: %+v, %v", sources, ok)
	}
	if names.Hosts != fact.Seen(0) {
		t.Errorf("hosts: %+v", names.Hosts)
	}
	var servers []string
	for _, s := range names.Nameservers {
		servers = append(servers, s.Addr.String())
	}
	if got := strings.Join(servers, " "); got != "127.0.0.1 ::1" {
		t.Errorf("nameservers %s, want the default", got)
	}
}

// Whatever is in the place of the files, reading them returns soon, takes
// little memory and says what was wrong.
func TestStrangeFiles(t *testing.T) {
	garbage := make([]byte, 1<<20)
	for i := range garbage {
		garbage[i] = byte(rand.Uint32())
	}
	text := bytes.Repeat([]byte("lorem ipsum dolor sit amet\n"), 1<<20/27)
	sparse := func(path string) error {
		return errors.Join(os.WriteFile(path, []byte("nameserver 10.0.0.1\n"), 0o644), os.Truncate(path, 100<<20))
	}
	for _, c := range []struct {
		what    string
		make    func(path string) error
		known   bool
		servers int
		blind   string
	}{
		{"a megabyte of random bytes", func(p string) error { return os.WriteFile(p, garbage, 0o644) }, true, 2, "not a text file"},
		{"a megabyte of prose", func(p string) error { return os.WriteFile(p, text, 0o644) }, true, 2, "no line that a resolver understands"},
		{"100 megabytes", sparse, true, 1, "only the first 1048576 bytes"},
		{"a FIFO", func(p string) error { return unix.Mkfifo(p, 0o644) }, false, 0, "a FIFO"},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o755) }, false, 0, "a directory"},
		{"a device", func(p string) error { return os.Symlink("/dev/zero", p) }, true, 2, ""}, // leads nowhere below the root
		{"a link to itself", func(p string) error { return os.Symlink("resolv.conf", p) }, false, 0, "too many levels"},
		{"a dangling link", func(p string) error { return os.Symlink("../run/none", p) }, true, 2, ""},
	} {
		dir := root(t, nil)
		if err := c.make(dir + "/etc/resolv.conf"); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		names, blind := Read(dir)
		runtime.ReadMemStats(&after)
		if names.Resolv.OK != c.known || len(names.Nameservers) != c.servers {
			t.Errorf("%s: known %v, nameservers %+v", c.what, names.Resolv.OK, names.Nameservers)
		}
		var said []string
		for _, b := range blind {
			if b.Source != "names" || strings.ContainsAny(b.Error, "\n\x00") {
				t.Errorf("%s: %+v", c.what, b)
			}
			if strings.Contains(b.Error, "resolv.conf") {
				said = append(said, b.Error)
			}
		}
		if got := strings.Join(said, "; "); !strings.Contains(got, c.blind) || (c.blind == "") != (got == "") {
			t.Errorf("%s: said %q, want %q", c.what, got, c.blind)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
			t.Errorf("%s: %d bytes allocated", c.what, used)
		}
	}
}

func TestHostsTooLong(t *testing.T) {
	dir := root(t, map[string]string{"hosts": "127.0.0.1 localhost\n"})
	if err := os.Truncate(dir+"/etc/hosts", hostsMax+1); err != nil {
		t.Fatal(err)
	}
	names, blind := Read(dir)
	if names.Hosts.OK || len(blind) != 1 || !strings.Contains(blind[0].Error, "etc/hosts: too long") {
		t.Errorf("%+v, %+v", names.Hosts, blind)
	}
}

func TestMalformedSwitch(t *testing.T) {
	names, blind := Read(root(t, map[string]string{"nsswitch.conf": "hosts: files [NOTFOUND\n"}))
	if sources, ok := names.Switch.Get(); !ok || len(sources) != 1 {
		t.Errorf("%+v, %v", sources, ok)
	}
	if len(blind) != 1 || !strings.Contains(blind[0].Error, "nsswitch.conf") {
		t.Errorf("blind: %+v", blind)
	}
}

// A container's links are followed as the container would, and never out of it.
func TestLinksStayBelowRoot(t *testing.T) {
	dir := root(t, nil)
	if err := os.Mkdir(dir+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/run/resolv.conf", []byte("nameserver 127.0.0.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/run/resolv.conf", "../run/resolv.conf", "../../../../../run/resolv.conf"} {
		path := dir + "/etc/resolv.conf"
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		names, blind := Read(dir)
		if len(blind) != 0 || len(names.Nameservers) != 1 || names.Nameservers[0].Addr.String() != "127.0.0.9" {
			t.Errorf("%s: %+v, blind %+v", target, names.Nameservers, blind)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRootIsGone(t *testing.T) {
	names, blind := Read(t.TempDir() + "/none")
	if names.Resolv.OK || names.Switch.OK || names.Hosts.OK || names.Nameservers != nil || len(blind) != 3 {
		t.Errorf("%+v, %+v; want nothing known", names, blind)
	}
}

func TestNotAllowed(t *testing.T) {
	host := lab.New(t).Host("any")
	dir := root(t, map[string]string{"resolv.conf": "nameserver 127.0.0.1\n", "hosts": "127.0.0.1 a\n"})
	if err := errors.Join(os.Chmod(dir+"/etc/resolv.conf", 0), os.Chown(dir+"/etc/resolv.conf", 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	err := host.Do(func() error { // on a thread that is thrown away
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		names, blind := Read(dir)
		if names.Resolv.OK || names.Nameservers != nil || names.Hosts != fact.Seen(1) {
			t.Errorf("%+v", names)
		}
		if len(blind) != 1 || !strings.Contains(blind[0].Needs, "resolv.conf") || !strings.Contains(blind[0].Error, "permission denied") {
			t.Errorf("blind: %+v", blind)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRoutes(t *testing.T) {
	l := lab.New(t)
	box, vpn := l.Host("box"), l.Host("vpn")
	l.Wire(box, "10.77.1.1/24", vpn, "10.77.1.2/24")
	box.Route("10.53.0.0/16", "10.77.1.2")
	box.Run("ip", "route", "add", "blackhole", "10.54.0.0/16")
	dir := root(t, map[string]string{"resolv.conf": "nameserver 10.53.0.1\nnameserver 10.77.1.2\nnameserver 10.54.0.1\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver fe80::1%eth9\n"})
	var (
		names fact.Names
		blind []fact.Blind
	)
	if err := box.Do(func() error { names, blind = Read(dir); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []fact.Nameserver{
		{Addr: netip.MustParseAddr("10.53.0.1"), Interface: "eth0", Gateway: netip.MustParseAddr("10.77.1.2")},
		{Addr: netip.MustParseAddr("10.77.1.2"), Interface: "eth0"},
		{Addr: netip.MustParseAddr("10.54.0.1"), NoRoute: "a blackhole route drops it"},
		{Addr: netip.MustParseAddr("192.0.2.1"), NoRoute: "network is unreachable"},
		{Addr: netip.MustParseAddr("fe80::1%eth0"), Interface: "eth0"},
		{Addr: netip.MustParseAddr("fe80::1%eth9")},
	}
	for i, w := range want {
		if names.Nameservers[i] != w {
			t.Errorf("got %+v, want %+v", names.Nameservers[i], w)
		}
	}
	if len(blind) != 1 || !strings.Contains(blind[0].Error, "eth9") {
		t.Errorf("blind: %+v; want one about eth9", blind)
	}
}

func TestMain(m *testing.M) { leakcheck.Main(m) }

// What a file says may be meant for the terminal of whoever looks.
func TestPrintable(t *testing.T) {
	names, _ := Read(root(t, map[string]string{
		"resolv.conf":   "search \x1b[31m\noptions \x9b\nnameserver fe80::1%\x1b[2J\n",
		"nsswitch.conf": "hosts: fi\x1bles [A=\x9b]\n",
	}))
	resolv, sources := names.Resolv.Value, names.Switch.Value
	if resolv.Search[0] != `\x1b[31m` || resolv.Options[0] != `\x9b` || resolv.Ignored != 1 || len(resolv.Servers) != 0 {
		t.Errorf("%+v", resolv)
	}
	if len(sources) != 1 || sources[0].Name != `fi\x1bles` || sources[0].Action != `A=\x9b` {
		t.Errorf("%+v", sources)
	}
}
