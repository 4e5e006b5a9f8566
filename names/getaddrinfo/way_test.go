//go:build linux && (amd64 || arm64)

package getaddrinfo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/names"
	"golang.org/x/sys/unix"
)

// asParent makes this test binary a program that asks once, says so, and waits
// for its end.
const asParent = "LIFELINE_TEST_ASKS"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) != "" {
		_, err := System.Lookup(context.Background(), "ip4", "127.0.0.1")
		fmt.Println("asked:", err)
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	leakcheck.Main(m)
}

// newWay returns a Way that is closed when the test ends.
func newWay(t testing.TB, w *Way) *Way {
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// enough is time for anything that works, on a busy machine.
func enough(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// works fails the test if the way does not.
func works(t *testing.T, w *Way) {
	t.Helper()
	if got, err := w.Lookup(enough(t), "ip", "127.0.0.7"); err != nil || len(got) != 1 || got[0] != netip.MustParseAddr("127.0.0.7") {
		t.Fatalf("%v, %v", got, err)
	}
}

// askers returns the processes that a parent asks, also as zombies.
func askers(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it is gone
		}
		var state string
		var ppid int
		_, rest, found := strings.Cut(string(text), "(lifeline-names) ")
		if n, _ := fmt.Sscan(rest, &state, &ppid); found && n == 2 && ppid == parent {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// noneLeft waits until no process is left, alive or dead.
func noneLeft(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for len(askers(t, os.Getpid())) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", askers(t, os.Getpid()))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// only returns the process that is asked, when those before it are gone: a killed
// one takes its time on a busy machine.
func only(t *testing.T) int {
	t.Helper()
	pids := askers(t, os.Getpid())
	for end := time.Now().Add(10 * time.Second); len(pids) > 1 && time.Now().Before(end); pids = askers(t, os.Getpid()) {
		time.Sleep(5 * time.Millisecond)
	}
	if len(pids) != 1 {
		t.Fatalf("processes %v, want one", pids)
	}
	return pids[0]
}

func TestRegistered(t *testing.T) {
	if !slices.Contains(names.Registered(), names.Way(System)) {
		t.Error("importing the package does not register its way")
	}
}

func TestLookup(t *testing.T) { lookup(t, newWay(t, new(Way))) }

func TestLookupMusl(t *testing.T) {
	found, _ := filepath.Glob("/lib/ld-musl-*.so.1")
	if len(found) == 0 {
		found = []string{"/lib/ld-musl.so.1"}
	}
	_, err := os.Stat(found[0])
	need.Feature(t, "the C library musl", err)
	lookup(t, newWay(t, &Way{Loader: found[0]}))
}

func lookup(t *testing.T, w *Way) {
	for _, c := range []struct {
		network, host string
		want          []string // all that is found; nothing means a definite no
	}{
		{"ip4", "127.0.0.1", []string{"127.0.0.1"}},
		{"ip", "0x7f.1", []string{"127.0.0.1"}},
		{"ip6", "::1", []string{"::1"}},
		{"ip", "fe80::1%lo", []string{"fe80::1%lo"}},
		{"ip", "fe80::1%4000000", []string{"fe80::1%4000000"}},
		{"ip4", "localhost", []string{"127.0.0.1"}},
		{"ip4", "::1", nil},
		{"ip6", "127.0.0.1", nil},
		{"ip", "", nil},
		{"ip", "a\x00b", nil},
		{"ip", strings.Repeat("a", 1000), nil},
		{"ip", strings.Repeat("a", 2000), nil},
	} {
		got, err := w.Lookup(enough(t), c.network, c.host)
		var dns *net.DNSError
		if len(c.want) == 0 && (!errors.As(err, &dns) || !dns.IsNotFound && !strings.HasPrefix(c.host, "aaa")) {
			t.Errorf("%s %q: %v, %v; want a definite no", c.network, c.host, got, err)
		}
		var texts []string
		for _, addr := range got {
			texts = append(texts, addr.String())
		}
		if !slices.Equal(texts, c.want) {
			t.Errorf("%s %q: %v, %v; want %v", c.network, c.host, texts, err, c.want)
		}
	}
	if _, err := w.Lookup(enough(t), "tcp", "localhost"); err == nil || !strings.Contains(err.Error(), "ip4") {
		t.Errorf("a wrong network: %v", err)
	}
}

// hammer asks from many goroutines until a test that runs meanwhile is done, and
// fails the test when an answer is missing or somebody else's.
func hammer(t *testing.T, w *Way, meanwhile func()) {
	t.Helper()
	ctx, stop := context.WithCancel(enough(t))
	var wg sync.WaitGroup
	for i := range 100 { // more than are asked at a time
		wg.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				want := netip.AddrFrom4([4]byte{127, byte(i), byte(j >> 8), byte(j)})
				got, err := w.Lookup(ctx, "ip", want.String())
				if ctx.Err() == nil && (err != nil || len(got) != 1 || got[0] != want) {
					t.Errorf("%v: %v, %v", want, got, err)
				}
			}
		})
	}
	meanwhile()
	stop()
	wg.Wait()
}

func TestMany(t *testing.T) {
	w := newWay(t, new(Way))
	hammer(t, w, func() {
		time.Sleep(300 * time.Millisecond)
		only(t)
	})
	works(t, w)
}

func TestKilled(t *testing.T) {
	w := newWay(t, new(Way))
	works(t, w)
	hammer(t, w, func() {
		for range 5 {
			time.Sleep(100 * time.Millisecond)
			for _, pid := range askers(t, os.Getpid()) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	})
	works(t, w)
	only(t)
}

func TestFrozen(t *testing.T) {
	w := newWay(t, new(Way))
	works(t, w)
	frozen := only(t)
	freeze(t, frozen)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := w.Lookup(ctx, "ip", "127.0.0.7")
	var dns *net.DNSError
	if !errors.As(err, &dns) || !dns.IsTimeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("asked a frozen process: %v, want that time ran out", err)
	}
	works(t, w)
	if got := only(t); got == frozen {
		t.Error("the frozen process was not replaced")
	}
}

// freeze stops a process, and waits until each of its threads has noticed.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return err == nil && len(stats) > 0 && !slices.ContainsFunc(stats, func(stat string) bool {
			text, err := os.ReadFile(stat)
			return err != nil || !strings.Contains(string(text), ") T ")
		})
	}
	for deadline := time.Now().Add(20 * time.Second); !stopped(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process does not stop")
		}
	}
}

func TestIdle(t *testing.T) {
	w := newWay(t, &Way{Idle: time.Millisecond})
	for range 2 {
		works(t, w)
		noneLeft(t)
	}
}

func TestClose(t *testing.T) {
	w := &Way{Loader: loader(t, "exec sleep 60")}
	asked := make(chan error)
	for range 3 {
		go func() {
			_, err := w.Lookup(enough(t), "ip", "127.0.0.7")
			asked <- err
		}()
	}
	for deadline := time.Now().Add(20 * time.Second); w.waiting() < 3 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-asked; !errors.Is(err, net.ErrClosed) {
			t.Errorf("whoever waited got %v", err)
		}
	}
	w.Loader = ""
	works(t, w)
	for range 2 {
		_ = w.Close()
	}
	noneLeft(t)
	_ = new(Way).Close()
}

// waiting is how many questions have no answer yet.
func (w *Way) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		return 0
	}
	w.running.mu.Lock()
	defer w.running.mu.Unlock()
	return len(w.running.calls)
}

// However its parent ends, it ends.
func TestParentDies(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), asParent+"=1")
	in, _ := parent.StdinPipe()
	out, _ := parent.StdoutPipe()
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var word, said string
	if _, err := fmt.Fscanln(out, &word, &said); err != nil || said != "<nil>" {
		t.Errorf("it says %s %s, %v", word, said, err)
	}
	pids := askers(t, parent.Process.Pid)
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if len(pids) != 1 {
		t.Fatalf("its processes are %v", pids)
	}
	for deadline := time.Now().Add(20 * time.Second); unix.Kill(pids[0], 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process outlives its parent")
		}
	}
}

// loader returns a script that is run in place of a loader.
func loader(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "loader")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnavailable(t *testing.T) {
	for name, c := range map[string]struct{ loader, want string }{
		"no loader":             {"/no/such/loader", "no such file"},
		"dies at once":          {loader(t, "echo cannot load >&2; echo more >&2; exit 3"), `exit status 3, and said "cannot load"`},
		"sends nonsense":        {loader(t, "printf nonsense >&0; sleep 60"), "nonsense: an answer of 8 bytes"},
		"answers nobody":        {loader(t, `printf '\7\0\0\0\0\0\0\0\0\0\0\0' >&0; sleep 60`), "an answer to question 7, which was not asked"},
		"sends half an address": {loader(t, `printf '\1\0\0\0\0\0\0\0\0\0\0\0\6abc' >&0; sleep 60`), "an address that begins with 6 and is 4 bytes long"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWay(t, &Way{Loader: c.loader})
			var err error
			for try := 0; try < 3 && !errors.Is(err, ErrUnavailable); try++ {
				_, err = w.Lookup(enough(t), "ip", "127.0.0.7")
			}
			if !errors.Is(err, ErrUnavailable) && !strings.HasPrefix(name, "answers") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// It stays unavailable for a while, so that nobody pays for each try.
func TestUnavailableIsRemembered(t *testing.T) {
	path := loader(t, "exit 1")
	w := newWay(t, &Way{Loader: path})
	for range 2 {
		_, _ = w.Lookup(enough(t), "ip", "127.0.0.7")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(mustLoader(t), path); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Lookup(enough(t), "ip", "127.0.0.7"); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want that it is remembered", err)
	}
	w.failedAt = w.failedAt.Add(-retryAfter)
	works(t, w)
}

func mustLoader(t *testing.T) string {
	path, err := systemLoader()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// vm.memfd_noexec belongs to a PID namespace, so one of the test's own can have
// it set.
func TestMemfdNoexec(t *testing.T) {
	need.Root(t)
	_, err := os.Stat("/proc/sys/vm/memfd_noexec")
	need.Feature(t, "vm.memfd_noexec (Linux 6.3)", err)
	cmd := exec.Command(need.Program(t, "unshare"), "--pid", "--fork", "--mount-proc", "sh", "-c",
		`echo 2 >/proc/sys/vm/memfd_noexec && exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), asParent+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), ErrUnavailable.Error()) || !strings.Contains(string(out), "vm.memfd_noexec") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestNoLeak(t *testing.T) {
	w := newWay(t, new(Way))
	works(t, w)
	_ = w.Close()
	before, files := runtime.NumGoroutine(), descriptors(t)
	for range 20 {
		works(t, w)
		_ = unix.Kill(only(t), unix.SIGKILL)
	}
	_ = w.Close()
	noneLeft(t)
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before || descriptors(t) > files; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d descriptors, before %d and %d", runtime.NumGoroutine(), descriptors(t), before, files)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func TestSystemLoader(t *testing.T) {
	if path := mustLoader(t); interpreter("/bin/sh") != "" && path != interpreter("/usr/bin/getent") {
		t.Errorf("%s, while getent has %s", path, interpreter("/usr/bin/getent"))
	}
	for _, program := range []string{"/no/such/program", "/etc/passwd", "/"} {
		if got := interpreter(program); got != "" {
			t.Errorf("%s: %s", program, got)
		}
	}
}
