package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/source/opener"
)

// What watching who opens sockets may cost.
const (
	connectAim = 2 * time.Microsecond
	dumpAim    = 50 * time.Millisecond
	dumpSize   = 10_000
	dumpStacks = 10_000
)

// measureLeaks measures what it costs to watch who opens sockets: without, with
// the hooks that lifeline leaks always has, and with those for the last use.
func measureLeaks(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("leaks", flag.ContinueOnError)
	rounds := flags.Int("rounds", 9, "times that each is run, in turn")
	crowd := flags.Int("sockets", 200_000, "how many are open, of several processes, when the largest pass is measured")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lifeline-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := newLeaksServer(dir)
	if err != nil {
		return err
	}
	defer server.close()
	if err := errors.Join(leaksCosts(server, *rounds), leaksRequests(server)); err != nil {
		return err
	}
	return leaksPasses(ctx, dir, *crowd)
}

// leaksWays are the ways to be measured beside each other.
var leaksWays = []struct {
	name string
	open func() (*opener.Sockets, error)
}{
	{"without", func() (*opener.Sockets, error) { return nil, nil }},
	{"with the hooks", func() (*opener.Sockets, error) { return opener.Open(opener.Options{}) }},
	{"and the last use", func() (*opener.Sockets, error) { return opener.Open(opener.Options{Uses: true}) }},
}

func leaksCosts(server *leaksServer, rounds int) error {
	loads := []struct {
		name string
		run  func() (time.Duration, error)
	}{{"connect(2), unix", server.connect}, {"getppid(2)", getppid}}
	took := make([][][]time.Duration, len(loads))
	for i := range took {
		took[i] = make([][]time.Duration, len(leaksWays))
	}
	for round := range rounds {
		for k := range leaksWays {
			j := (round + k) % len(leaksWays) // each comes first as often as the others
			s, err := leaksWays[j].open()
			if err != nil {
				return err
			}
			for i := range loads {
				d, err := loads[i].run()
				if err != nil {
					return err
				}
				took[i][j] = append(took[i][j], d)
			}
			if s != nil {
				if err := s.Close(); err != nil {
					return err
				}
			}
		}
	}
	t := newTable("watching who opens sockets, in %d rounds in turn; what is more is the median of the differences within a round", rounds)
	for i := range loads {
		base := median(slices.Clone(took[i][0]))
		t.row(loads[i].name+", "+leaksWays[0].name, fine(base), "-", 0)
		for j := 1; j < len(leaksWays); j++ {
			more := median(differences(took[i][j], took[i][0]))
			measured := fmt.Sprintf("%s (%+d ns, %+.1f %%)", fine(base+more), more.Nanoseconds(), 100*float64(more)/float64(base))
			aim, ratio := "+0", 0.0
			if i == 0 {
				aim, ratio = "+"+fine(connectAim), float64(more)/float64(connectAim)
			}
			t.row(loads[i].name+", "+leaksWays[j].name, measured, aim, max(ratio, 0))
		}
	}
	return t.print()
}

// differences are those of the same rounds, in which the machine was as busy.
func differences(with, without []time.Duration) []time.Duration {
	all := make([]time.Duration, len(with))
	for i := range with {
		all[i] = with[i] - without[i]
	}
	return all
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func fine(d time.Duration) string {
	return fmt.Sprintf("%.3f µs", float64(d)/float64(time.Microsecond))
}

// leaksServer is what is connected to.
type leaksServer struct {
	path   string
	unix   int // a listening socket that wakes nobody
	http   *http.Server
	client *http.Client
	url    string
}

func newLeaksServer(dir string) (*leaksServer, error) {
	s := &leaksServer{path: filepath.Join(dir, "s"), client: &http.Client{Transport: &http.Transport{}}}
	var err error
	if s.unix, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		err = errors.Join(unix.Bind(s.unix, &unix.SockaddrUnix{Name: s.path}), unix.Listen(s.unix, 16))
	}
	if err != nil {
		unix.Close(s.unix)
		return nil, err
	}
	s.url = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "well") })}
	go s.http.Serve(l)
	return s, nil
}

func (s *leaksServer) close() {
	s.client.CloseIdleConnections()
	s.http.Close()
	unix.Close(s.unix)
}

// connect is what one connect(2) takes.
func (s *leaksServer) connect() (time.Duration, error) {
	const n = 2000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	to := &unix.SockaddrUnix{Name: s.path}
	var all []time.Duration
	for range n {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		err = unix.Connect(fd, to)
		all = append(all, time.Since(begin))
		unix.Close(fd)
		if err != nil {
			return 0, err
		}
		far, _, err := unix.Accept(s.unix)
		if err != nil {
			return 0, err
		}
		unix.Close(far)
	}
	return median(all), nil
}

func getppid() (time.Duration, error) {
	const n = 200_000
	begin := time.Now()
	for range n {
		unix.Getppid()
	}
	return time.Since(begin) / n, nil
}

// ask is one HTTP request.
func (s *leaksServer) ask() error {
	r, err := s.client.Get(s.url)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return errors.Join(err, r.Body.Close())
}

// leaksPasses measures how long it takes to read who opened what, and that what
// is kept has a bound.
func leaksPasses(ctx context.Context, dir string, crowd int) error {
	s, err := opener.Open(opener.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	t := newTable("reading who opened what")
	keys, err := manyStacks(s, filepath.Join(dir, "t"))
	if err != nil {
		return err
	}
	kept := 0
	for _, key := range keys {
		if _, ok := s.Stack(key); ok {
			kept++
		}
	}
	t.row("different stacks kept", fmt.Sprint(kept), fmt.Sprintf("≥ %d", dumpStacks), float64(kept)/float64(dumpStacks))
	for _, n := range []int{dumpSize, crowd} {
		if err := leaksPass(ctx, s, t, n); err != nil {
			return err
		}
	}
	return t.print()
}

func leaksPass(ctx context.Context, s *opener.Sockets, t *table, n int) error {
	const each = 16_000 // of the 20,000 files that a process may have
	var all holders
	defer func() { all.stop() }()
	for left := n; left > 0; left -= each {
		h, err := startHolder(ctx, nil, "pairs", "unix", strconv.Itoa(min(left, each)))
		if err != nil {
			return err
		}
		all = append(all, h)
	}
	var took []time.Duration
	var list []opener.Socket
	for range 5 {
		begin := time.Now()
		var err error
		if list, err = s.Read(list[:0]); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
	}
	sockets, stacks := s.Dropped()
	aim := time.Duration(0)
	if n == dumpSize {
		aim = dumpAim
	}
	t.took(fmt.Sprintf("%d sockets (%d not noted, %d stacks)", len(list), sockets, stacks), best(took), aim)
	return nil
}

// manyStacks opens and closes sockets at 10,000 stacks, and returns their keys.
func manyStacks(s *opener.Sockets, path string) (keys []uint64, err error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	to := &unix.SockaddrUnix{Name: path}
	seen := make(map[uint64]bool)
	const batch = 100
	for i := 0; i < dumpStacks; i += batch {
		var fds []int
		for k := i; k < i+batch; k++ {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			fds = append(fds, fd)
			if err := left(k, 14, fd, to); err != nil {
				return nil, err
			}
		}
		list, err := s.Read(nil)
		if err != nil {
			return nil, err
		}
		for k := range list {
			if list[k].PID == int32(os.Getpid()) && list[k].How == opener.Connected {
				seen[list[k].Opened] = true
			}
		}
		for _, fd := range fds {
			unix.Close(fd)
			c, err := l.Accept()
			if err != nil {
				return nil, err
			}
			c.Close()
		}
	}
	for key := range seen {
		keys = append(keys, key)
	}
	return keys, nil
}

// left and right call each other by the bits of k, so that each k has a stack of
// its own.
//
//go:noinline
func left(k, depth, fd int, to unix.Sockaddr) error { return further(k, depth, fd, to) }

//go:noinline
func right(k, depth, fd int, to unix.Sockaddr) error { return further(k, depth, fd, to) }

//go:noinline
func further(k, depth, fd int, to unix.Sockaddr) error {
	switch {
	case depth == 0:
		return unix.Connect(fd, to)
	case k&1 == 0:
		return left(k>>1, depth-1, fd, to)
	}
	return right(k>>1, depth-1, fd, to)
}
