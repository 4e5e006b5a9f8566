package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/names"
	"github.com/lifeline-go/lifeline/names/getaddrinfo"
)

// What package names aims at.
const (
	healthyAim    = 1.5 // times as long as package net
	deadFirstAim  = 150 * time.Millisecond
	deadLaterAim  = 5 * time.Millisecond // more than where all servers answer
	lossAim       = 120 * time.Millisecond
	noAAAAAim     = 100 * time.Millisecond
	leftAim       = 0
	lost          = 0.05
	near, far     = 10 * time.Millisecond, 12 * time.Millisecond // how long two servers take to answer
	firstServer   = "127.0.0.2"
	secondServer  = "127.0.0.3"
	callers       = 64
	healthyRounds = 3000
)

// measureNames measures package names beside package net's own resolver and
// glibc, with the same nameservers and the same /etc/resolv.conf, in one run. It
// starts itself again in namespaces of its own, where that file and the servers'
// port are free to choose.
func measureNames(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("names", flag.ContinueOnError)
	many := flags.Int("names", 2000, "names that are looked up with loss")
	inside := flags.Bool("inside", false, "the namespaces are there already")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !*inside {
		return inNamespaces(ctx, append([]string{"names", "-inside"}, args...))
	}
	if err := prepare(); err != nil {
		return err
	}
	names.Register(unregistered{})
	var failed []error
	for _, measure := range []func(context.Context) error{healthyNames, systemNames, deadServer, noAAAA, func(ctx context.Context) error { return lossyNames(ctx, *many) }} {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		failed = append(failed, measure(ctx))
	}
	return errors.Join(failed...)
}

// inNamespaces runs this program again with a network and mounts of its own. They
// vanish with it, and it ends with this process.
func inNamespaces(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	return cmd.Run()
}

// prepare makes loopback work and files of etc that can be written, in the
// namespaces of this process.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("namespaces of its own: %w", err)
	}
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		return err
	}
	for name, text := range map[string]string{"resolv.conf": "", "nsswitch.conf": "hosts: files dns\n", "hosts": "127.0.0.1 localhost\n"} {
		path := filepath.Join("/mnt", name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(path, "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("/etc/%s: %w", name, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	return nil
}

// resolvers is who is compared.
type resolvers struct {
	ours   *names.Resolver // as it is without a helper
	helped *names.Resolver // with package getaddrinfo
	net    *net.Resolver
}

// Close ends what they do in the background.
func (r resolvers) Close() {
	r.ours.Close()
	r.helped.Close()
}

// resolve writes resolv.conf and returns resolvers that have read it.
func resolve(servers ...string) (resolvers, error) {
	text := ""
	for _, server := range servers {
		text += "nameserver " + server + "\n"
	}
	r := resolvers{
		&names.Resolver{System: []names.Way{names.Getent()}},
		&names.Resolver{System: []names.Way{getaddrinfo.System}},
		&net.Resolver{PreferGo: true},
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte(text), 0o644); err != nil {
		return r, err
	}
	// Package net looks at the file every 5 s.
	time.Sleep(5100 * time.Millisecond)
	_, _ = r.net.LookupHost(context.Background(), "localhost")
	return r, nil
}

type lookup func(ctx context.Context, name string) ([]netip.Addr, error)

func (r resolvers) byNames(ctx context.Context, name string) ([]netip.Addr, error) {
	return r.ours.LookupNetIP(ctx, "ip", name)
}

func (r resolvers) byHelped(ctx context.Context, name string) ([]netip.Addr, error) {
	return r.helped.LookupNetIP(ctx, "ip", name)
}

func (r resolvers) byNet(ctx context.Context, name string) ([]netip.Addr, error) {
	return r.net.LookupNetIP(ctx, "ip", name)
}

// byGlibc starts a process, as it is not in this one: add 2 ms to what glibc
// takes.
func byGlibc(ctx context.Context, name string) ([]netip.Addr, error) {
	return names.Getent().Lookup(ctx, "ip", name)
}

// timed returns how long a lookup takes, and an error when it finds nothing.
func timed(ctx context.Context, look lookup, name string) (time.Duration, error) {
	began := time.Now()
	addrs, err := look(ctx, name)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	return time.Since(began), err
}

// healthyNames compares lookups where all is well, in turn, of names that no
// cache has.
func healthyNames(ctx context.Context) error {
	s, err := serveNames(firstServer, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := resolve(firstServer)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := timed(ctx, r.byHelped, "starts-the-helper.test"); err != nil {
		return err
	}
	before := runtime.NumGoroutine()
	var took [3][]time.Duration
	for i := range healthyRounds {
		for who, look := range []lookup{r.byNames, r.byHelped, r.byNet} {
			d, err := timed(ctx, look, fmt.Sprintf("healthy-%d-%d.test", who, i))
			if err != nil {
				return err
			}
			took[who] = append(took[who], d)
		}
	}
	time.Sleep(100 * time.Millisecond)
	left := runtime.NumGoroutine() - before
	t := newTable("names: a nameserver that answers at once, %d names in turn (A and AAAA)", healthyRounds)
	its := summarize(took[2])
	for who, name := range []string{"package names", "package names with getaddrinfo"} {
		ours := summarize(took[who])
		t.row(name+", median", micro(ours.p50), fmt.Sprintf("≤ %.1f × net", healthyAim), float64(ours.p50)/float64(its.p50)/healthyAim)
		t.row(name+", 99 of 100 within", micro(ours.p99), "-", 0)
	}
	t.row("package net, median", micro(its.p50), "-", 0)
	t.row("package net, 99 of 100 within", micro(its.p99), "-", 0)
	t.row("goroutines left behind", fmt.Sprint(left), fmt.Sprintf("≤ %d", leftAim), 0)
	if err := t.print(); err != nil {
		return err
	}
	if left > leftAim {
		return fmt.Errorf("%d goroutines are left", left)
	}
	return nil
}

// deadServer compares lookups where the first of two servers does not answer.
func deadServer(ctx context.Context) error {
	silent, err := serveNames(firstServer, func(string, bool) (time.Duration, bool) { return 0, false })
	if err != nil {
		return err
	}
	defer silent.Close()
	good, err := serveNames(secondServer, nil)
	if err != nil {
		return err
	}
	defer good.Close()
	r, err := resolve(secondServer)
	if err != nil {
		return err
	}
	looks := func() []lookup { return []lookup{r.byNames, r.byHelped} }
	var well, dead [2]summary
	var first [2]time.Duration
	for i, look := range looks() {
		if well[i], err = oneByOne(ctx, look, fmt.Sprintf("well%d", i)); err != nil {
			return err
		}
	}
	r.Close()
	if r, err = resolve(firstServer, secondServer); err != nil {
		return err
	}
	defer r.Close()
	others := beside(ctx, r, "dead")
	for i, look := range looks() {
		if first[i], err = timed(ctx, look, fmt.Sprintf("dead%d-first.test", i)); err != nil {
			return err
		}
		if dead[i], err = oneByOne(ctx, look, fmt.Sprintf("dead%d", i)); err != nil {
			return err
		}
	}
	net, glibc := others()
	t := newTable("names: the first of two nameservers does not answer")
	for i, name := range []string{"package names", "package names with getaddrinfo"} {
		t.took(name+", the first lookup", first[i], deadFirstAim)
		t.took(name+", 99 of 100 later ones, more than with both servers", max(0, dead[i].p99-well[i].p99), deadLaterAim)
	}
	t.took("package net, every lookup", net, 0)
	t.took("glibc, every lookup", glibc, 0)
	return t.print()
}

// oneByOne looks some names up, one after the other.
func oneByOne(ctx context.Context, look lookup, prefix string) (summary, error) {
	var took []time.Duration
	for i := range 500 {
		d, err := timed(ctx, look, fmt.Sprintf("%s-%d.test", prefix, i))
		if err != nil {
			return summary{}, err
		}
		took = append(took, d)
	}
	return summarize(took), nil
}

// noAAAA compares lookups where a server never answers questions for addresses of
// IPv6.
func noAAAA(ctx context.Context) error {
	s, err := serveNames(firstServer, func(_ string, six bool) (time.Duration, bool) { return 0, !six })
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := resolve(firstServer)
	if err != nil {
		return err
	}
	defer r.Close()
	others := beside(ctx, r, "noaaaa")
	var slowest [2]time.Duration
	for who, look := range []lookup{r.byNames, r.byHelped} {
		for i := range 50 {
			d, err := timed(ctx, look, fmt.Sprintf("noaaaa-%d-%d.test", who, i))
			if err != nil {
				return err
			}
			slowest[who] = max(slowest[who], d)
		}
	}
	net, glibc := others()
	t := newTable("names: AAAA is never answered")
	t.took("package names, the slowest of 50", slowest[0], noAAAAAim)
	t.took("package names with getaddrinfo, the slowest of 50", slowest[1], noAAAAAim)
	t.took("package net", net, 0)
	t.took("glibc", glibc, 0)
	return t.print()
}

// beside takes the time of one lookup by package net and one by glibc, while
// others are measured: these two only wait. An error is a lookup that failed, and
// counts as long as it took.
func beside(ctx context.Context, r resolvers, name string) func() (net, glibc time.Duration) {
	var wg sync.WaitGroup
	var net, glibc time.Duration
	wg.Go(func() { net, _ = timed(ctx, r.byNet, name+"-net.test") })
	wg.Go(func() { glibc, _ = timed(ctx, byGlibc, name+"-glibc.test") })
	return func() (time.Duration, time.Duration) { wg.Wait(); return net, glibc }
}

// lossyNames compares lookups where some of all packets are lost.
func lossyNames(ctx context.Context, many int) error {
	for i, server := range []string{firstServer, secondServer} {
		s, err := serveNames(server, lossy([]time.Duration{near, far}[i]))
		if err != nil {
			return err
		}
		defer s.Close()
	}
	r, err := resolve(firstServer, secondServer)
	if err != nil {
		return err
	}
	defer r.Close()
	ours := atOnce(ctx, many, "lossy-ours", r.byNames)
	helped := atOnce(ctx, many, "lossy-helped", r.byHelped)
	its := atOnce(ctx, many, "lossy-net", r.byNet)
	t := newTable("names: %s of the questions or answers are lost, servers take %s and %s, %d names, %d callers", percent(lost), short(near), short(far), many, callers)
	for _, who := range []struct {
		name string
		summary
		aim time.Duration
	}{{"package names", ours, lossAim}, {"package names with getaddrinfo", helped, lossAim}, {"package net", its, 0}} {
		t.took(who.name+", median", who.p50, 0)
		t.took(who.name+", 90 of 100 within", who.p90, 0)
		t.took(who.name+", 99 of 100 within", who.p99, who.aim)
		t.took(who.name+", the slowest", who.most, 0)
		t.row(who.name+", not found", fmt.Sprint(who.failed), "-", 0)
	}
	return t.print()
}

// atOnce looks names up by several callers.
func atOnce(ctx context.Context, many int, prefix string, look lookup) summary {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		took   []time.Duration
		failed int
	)
	next := make(chan int)
	for range callers {
		wg.Go(func() {
			for i := range next {
				d, err := timed(ctx, look, fmt.Sprintf("%s-%d.test", prefix, i))
				mu.Lock()
				took = append(took, d)
				if err != nil {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	for i := range many {
		next <- i
	}
	close(next)
	wg.Wait()
	s := summarize(took)
	s.failed = failed
	return s
}

// summary is how long many lookups took.
type summary struct {
	p50, p90, p99, most time.Duration
	failed              int
}

func micro(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

func summarize(took []time.Duration) summary {
	slices.Sort(took)
	at := func(share float64) time.Duration { return took[int(share*float64(len(took)-1))] }
	return summary{p50: at(0.5), p90: at(0.9), p99: at(0.99), most: took[len(took)-1]}
}
