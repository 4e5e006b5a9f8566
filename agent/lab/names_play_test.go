//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
	"github.com/lifeline-go/lifeline/names"
	"github.com/lifeline-go/lifeline/names/getaddrinfo"
)

// playsNames makes this test binary a program that does one of namesPlays, on a
// machine of a lab, and says what went wrong.
const playsNames = "LIFELINE_TEST_NAMES_PLAY"

var namesPlays = map[string]func(context.Context) error{
	"stuck": playStuck, "stuck, names": playStuckNames, "crash": playCrash, "change, glibc": playChange(""), "change, musl": playChange(muslLoader),
}

func playNames(play string) {
	os.Exit(leakcheck.Checked{Tests: played{namesPlays[play]}}.Run())
}

// played is a play that counts as the tests of a binary, whose leaks are found.
type played struct{ play func(context.Context) error }

func (p played) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.play(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

const corpTable = "vpn.corp.test 127.0.0.42\nstuck.corp.test sleep 600\ncrash.corp.test abort\n"

func TestNamesPlays(t *testing.T) {
	t.Parallel()
	for _, program := range slices.Concat(EtcPrograms, ModulePrograms) {
		need.Program(t, program)
	}
	host := New(t).Host("a")
	_, err := os.Stat(muslLoader)
	need.Feature(t, "the C library musl", err)
	zone{"a.lab.test": "192.0.2.1"}.serve(t, host, "127.0.0.1:53")
	zone{"a.lab.test": "192.0.2.2"}.serve(t, host, "127.0.0.2:53")
	for play := range namesPlays {
		etc := host.Etc(map[string]string{"resolv.conf": "nameserver 127.0.0.1\n", "nsswitch.conf": "hosts: files lab dns\n", "hosts": ""})
		etc.Module(corpTable)
		t.Run(play, func(t *testing.T) {
			t.Parallel()
			cmd := etc.Command(os.Args[0])
			cmd.Env = append(os.Environ(), playsNames+"="+play)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// is returns an error unless the host has the one address.
func is(ctx context.Context, way names.Way, host, want string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	got, err := way.Lookup(ctx, "ip4", host)
	if err != nil || len(got) != 1 || got[0] != netip.MustParseAddr(want) {
		return fmt.Errorf("%s: %v, %v; want %s", host, got, err, want)
	}
	return nil
}

// playStuck: a getaddrinfo that does not return holds nobody past their context
// and leaves no thread here, and nobody else hears of it.
func playStuck(ctx context.Context) error {
	way := new(getaddrinfo.Way)
	defer way.Close()
	if err := is(ctx, way, "vpn.corp.test", "127.0.0.42"); err != nil {
		return err
	}
	threads, goroutines := threads(), runtime.NumGoroutine()
	var wg sync.WaitGroup
	var failures sync.Map
	var stop atomic.Bool
	for i := range 100 { // more than the process has threads
		wg.Go(func() {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			began := time.Now()
			_, err := way.Lookup(short, "ip4", "stuck.corp.test")
			var dns *net.DNSError
			if took := time.Since(began); !errors.As(err, &dns) || !dns.IsTimeout || took > 10*time.Second {
				failures.Store(i, fmt.Errorf("stuck: %v after %v, want that time runs out after 1 s", err, took))
			}
		})
	}
	var others sync.WaitGroup
	answered := 0
	others.Go(func() {
		for !stop.Load() {
			if err := is(ctx, way, "vpn.corp.test", "127.0.0.42"); err != nil {
				failures.Store("other", err)
				return
			}
			answered++
		}
	})
	wg.Wait()
	stop.Store(true)
	others.Wait()
	var errs []error
	for _, err := range failures.Range {
		errs = append(errs, err.(error))
	}
	if answered == 0 {
		errs = append(errs, errors.New("nobody else got an answer"))
	}
	if more := threadsMore(threads); more > 20 { // the scheduler's own
		errs = append(errs, fmt.Errorf("%d more threads than before", more))
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if now := runtime.NumGoroutine(); now > goroutines {
		errs = append(errs, fmt.Errorf("%d goroutines, before %d", now, goroutines))
	}
	return errors.Join(errs...)
}

func threads() int {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		panic(err)
	}
	return len(tasks)
}

func threadsMore(than int) int { return threads() - than }

// playStuckNames: the bound of package names holds too.
func playStuckNames(ctx context.Context) error {
	defer getaddrinfo.System.Close()
	resolver := &names.Resolver{Timeout: time.Second}
	for range 3 {
		began := time.Now()
		addrs, err := resolver.LookupNetIP(ctx, "ip", "stuck.corp.test")
		if took := time.Since(began); err == nil || took > 10*time.Second {
			return fmt.Errorf("%v, %v after %v, want an error after 1 s", addrs, err, took)
		}
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", "vpn.corp.test")
	if err != nil || len(addrs) != 1 {
		return fmt.Errorf("after a stuck name: %v, %w", addrs, err)
	}
	return nil
}

// playCrash: a module that ends the process fails the question that made it do
// so, and no other.
func playCrash(ctx context.Context) error {
	way := new(getaddrinfo.Way)
	defer way.Close()
	_, err := way.Lookup(ctx, "ip4", "crash.corp.test")
	if err == nil || !strings.Contains(err.Error(), "ended: ") {
		return fmt.Errorf("crash: %w, want that the process ended", err)
	}
	return is(ctx, way, "vpn.corp.test", "127.0.0.42")
}

// playChange: a change of the configuration is seen by the next question.
func playChange(loader string) func(context.Context) error {
	return func(ctx context.Context) error {
		way := &getaddrinfo.Way{Loader: loader}
		defer way.Close()
		write := func(name, text string) error { return os.WriteFile("/etc/"+name, []byte(text), 0) }
		return errors.Join(
			is(ctx, way, "a.lab.test", "192.0.2.1"),
			write("resolv.conf", "nameserver 127.0.0.2\n"),
			is(ctx, way, "a.lab.test", "192.0.2.2"),
			write("hosts", "192.0.2.3 a.lab.test\n"),
			is(ctx, way, "a.lab.test", "192.0.2.3"),
		)
	}
}
