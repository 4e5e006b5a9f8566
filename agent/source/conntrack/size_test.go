//go:build linux

package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
)

func TestSize(t *testing.T) {
	s := newStory(t)
	for range 7 {
		dial(t, s.lb, "udp", "10.77.2.2:53")
	}
	count, err := strconv.Atoi(strings.TrimSpace(s.node.Run("conntrack", "-C")))
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(s.node.Run("cat", "/proc/sys/net/netfilter/nf_conntrack_max")))
	if err != nil {
		t.Fatal(err)
	}
	err = s.node.Do(func() error {
		got, err := Size(s.node.Netns())
		want := fact.Conntrack{Netns: s.node.Netns(), Count: fact.Seen(count), Max: fact.Seen(limit)}
		if got.Count != want.Count || got.Max != want.Max || got.Netns != want.Netns || got.Entries.OK || got.Transit != nil || count < 7 {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err != nil {
			return err
		}
		asked, err := stats()
		if asked != (totals{uint32(count), uint32(limit)}) {
			t.Errorf("ctnetlink says %+v, want %d of %d", asked, count, limit)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Where the settings are hidden, as older kernels do in the namespaces of
// unprivileged users, ctnetlink knows.
func TestSizeWithoutSettings(t *testing.T) {
	s := newStory(t)
	dial(t, s.lb, "udp", "10.77.2.2:53")
	err := s.node.Do(func() error {
		want, err := Size(1)
		if err != nil {
			return err
		}
		got, err := kernel{proc: t.TempDir(), sys: "/sys"}.size(1)
		if got.Count != want.Count || got.Max != want.Max || !got.Count.OK {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWithoutCapability(t *testing.T) {
	s := newStory(t)
	dial(t, s.lb, "udp", "10.77.2.2:53")
	err := s.node.Do(func() error { // on a thread that is thrown away
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			return err
		}
		sets[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &sets[0]); err != nil {
			return err
		}
		table, err := Read(7, nil)
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("error %v, want one of permission that names the capability", err)
		}
		if n, ok := table.Count.Get(); !ok || n == 0 || table.Entries.OK || table.Transit != nil {
			t.Errorf("got %+v, want the size and no entries", table)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// An empty table was read, and has no transit: neither is unknown.
func TestEmpty(t *testing.T) {
	h := lab.New(t).Host("quiet")
	err := h.Do(func() error {
		table, err := Read(1, nil)
		if n, ok := table.Entries.Get(); !ok || n != 0 || table.Transit == nil || len(table.Transit) != 0 {
			t.Errorf("got %+v", table)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A big table is read whole, with little more memory than its transit flows.
func TestBigTable(t *testing.T) {
	const flows = 20_000
	s := newStory(t)
	var list bytes.Buffer
	for i := range flows {
		fmt.Fprintf(&list, "-A -t 3000 -u SEEN_REPLY,ASSURED -s 10.%d.%d.9 -d 10.77.1.1 -r 10.77.2.2 -q 10.%[1]d.%[2]d.9 "+
			"-p tcp --sport %[3]d --dport 30080 --reply-port-src 8080 --reply-port-dst %[3]d --state ESTABLISHED\n",
			100+i/10000, i%200, 2000+i/200)
	}
	load := s.node.Command("conntrack", "-R", "-")
	load.Stdin = &list
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("conntrack -R: %v: %s", err, out)
	}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	table := s.read(t)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if len(table.Transit) != flows {
		t.Errorf("%d transit flows, want %d", len(table.Transit), flows)
	}
	each := (after.TotalAlloc - before.TotalAlloc) / flows
	t.Logf("%d entries in %v, %d bytes allocated for each, growing slices included", flows, took, each)
	if each > 2000 {
		t.Errorf("%d bytes allocated for each entry", each)
	}

	runtime.ReadMemStats(&before)
	err := s.node.Do(func() error {
		_, err := Read(1, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}) // all of it ends here
		return err
	})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Error(err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes allocated where nothing is transit", got)
	}
}

func TestAbsent(t *testing.T) {
	loaded := func(modules ...string) string {
		sys := t.TempDir()
		for _, m := range modules {
			dir, initstate := filepath.Split("/module/" + m)
			if initstate != "initstate" {
				dir += initstate
			}
			if err := os.MkdirAll(sys+dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if initstate == "initstate" {
				if err := os.WriteFile(sys+dir+initstate, []byte("live\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		return sys
	}
	for _, c := range []struct {
		what    string
		modules []string
		want    bool
	}{
		{"no connection tracking", nil, false},
		{"both halves are modules, one is loaded", []string{"nf_conntrack/initstate"}, false},
		{"both are loaded", []string{"nf_conntrack/initstate", "nf_conntrack_netlink/initstate"}, true},
		{"the first is built in, the second cannot be known", []string{"nf_conntrack"}, true},
		{"the first is built in, the second is loaded", []string{"nf_conntrack", "nf_conntrack_netlink/initstate"}, true},
	} {
		k := kernel{proc: t.TempDir(), sys: loaded(c.modules...)}
		if got := k.netlinkLoaded(); got != c.want {
			t.Errorf("%s: ctnetlink can be asked: %v, want %v", c.what, got, c.want)
		}
		if c.want {
			continue
		}
		table, err := k.size(7)
		if !errors.Is(err, errors.ErrUnsupported) || table.Count.OK || table.Max.OK || table.Netns != 7 {
			t.Errorf("%s: %+v, %v; want nothing known", c.what, table, err)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		count, max         string
		wantCount, wantMax fact.Known[int]
		bad                bool
	}{
		{"12\n", "262144\n", fact.Seen(12), fact.Seen(262144), false},
		{"12\n", "0\n", fact.Seen(12), fact.Known[int]{}, false}, // no limit
		{"", "1\n", fact.Known[int]{}, fact.Known[int]{}, true},
		{"\x00\xff", "1\n", fact.Known[int]{}, fact.Known[int]{}, true},
		{"3\n", "-1\n", fact.Seen(3), fact.Known[int]{}, true},
	} {
		proc := t.TempDir()
		dir := proc + "/sys/net/netfilter"
		err := errors.Join(os.MkdirAll(dir, 0o755),
			os.WriteFile(dir+"/nf_conntrack_count", []byte(c.count), 0o644),
			os.WriteFile(dir+"/nf_conntrack_max", []byte(c.max), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		got, err := kernel{proc: proc, sys: proc}.size(1)
		if got.Count != c.wantCount || got.Max != c.wantMax || (err != nil) != c.bad {
			t.Errorf("%q of %q: %+v, %v", c.count, c.max, got, err)
		}
	}
}
