package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	xssh "golang.org/x/crypto/ssh"
)

// farm is servers in memory, one for each host, that come back after each end.
type farm struct {
	t     *testing.T
	fault func(host string, n int) fault // of the so many-th connection
	err   func(host string, n int) error // of the same: it is not made

	mu      sync.Mutex
	dials   map[string]int
	dialing int
	most    int // at a time
	servers map[string]*faulty
}

func (f *farm) connect(ctx context.Context, host string) (*ssh.Client, error) {
	f.mu.Lock()
	if f.dials == nil {
		f.dials, f.servers = make(map[string]int), make(map[string]*faulty)
	}
	n := f.dials[host]
	f.dials[host]++
	f.dialing++
	f.most = max(f.most, f.dialing)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dialing--
	}()
	time.Sleep(s / 10)
	if f.err != nil {
		if err := f.err(host, n); err != nil {
			return nil, &ssh.Error{Phase: ssh.Connect, Host: host, Err: err}
		}
	}
	var behaves fault
	if f.fault != nil {
		behaves = f.fault(host, n)
	}
	near, far := pipe()
	server := serve(f.t, far, behaves)
	f.mu.Lock()
	f.servers[host] = server
	f.mu.Unlock()
	return ssh.NewClient(ctx, near, host, config())
}

func (f *farm) count(host string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials[host]
}

func newPool(t *testing.T, f *farm) *ssh.Pool {
	f.t = t
	p := &ssh.Pool{Connect: f.connect}
	t.Cleanup(func() { p.Close() })
	return p
}

// sessions is a server that takes so many at a time.
func sessions(most int32) fault {
	var now atomic.Int32
	return fault{opens: func(s *faulty, channel xssh.NewChannel) bool {
		if now.Add(1) > most {
			now.Add(-1)
			_ = channel.Reject(xssh.ConnectionFailed, "open failed")
			return false
		}
		go func() {
			s.session(channel)
			now.Add(-1)
		}()
		return false
	}}
}

func TestPool(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		f := &farm{}
		p := newPool(t, f)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				host := fmt.Sprintf("web%d", i%40)
				if r, err := p.Run(t.Context(), host, "echo hello"); err != nil || string(r.Stdout) != "hello\n" {
					t.Errorf("%q, %v", r.Stdout, err)
				}
			})
		}
		wg.Wait()
		for host, n := range f.dials {
			if n != 1 {
				t.Errorf("%s was dialed %d times", host, n)
			}
		}
		if len(f.dials) != 40 || f.most != 8 {
			t.Errorf("%d hosts, %d dials at a time", len(f.dials), f.most)
		}
	})
}

// No refusal of a session reaches the caller, however few the server takes.
func TestPoolSessions(t *testing.T) {
	t.Parallel()
	for _, most := range []int32{1, 2, 5, 20} {
		bubble(t, func(t *testing.T) {
			p := newPool(t, &farm{fault: func(string, int) fault { return sessions(most) }})
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					if r, err := p.Run(t.Context(), "web", "echo hello"); err != nil || string(r.Stdout) != "hello\n" {
						t.Errorf("%d sessions: %q, %v", most, r.Stdout, err)
					}
				})
			}
			wg.Wait()
		})
	}
}

// After the end of a connection there is another; what may have run is not run
// again.
func TestPoolReconnects(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		f := &farm{}
		p := newPool(t, f)
		var e *ssh.Error
		if _, err := p.Run(t.Context(), "web", "die"); !errors.As(err, &e) || e.Fate != ssh.MayHaveRun {
			t.Error(err)
		}
		for range 3 {
			if _, err := p.Run(t.Context(), "web", "exit 0"); err != nil {
				t.Error(err)
			}
		}
		f.servers["web"].conn.freeze()
		began := time.Now()
		_, err := p.Run(t.Context(), "web", "exit 0") // its channel is not confirmed, and the server is asked
		t.Logf("after %v: %v", time.Since(began), err)
		time.Sleep(time.Minute)
		if _, err := p.Run(t.Context(), "web", "exit 0"); err != nil || f.count("web") != 3 {
			t.Errorf("%v, after %d dials", err, f.count("web"))
		}
	})
}

func TestPoolRetries(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	for name, row := range map[string]struct {
		retries int
		fails   int // so many attempts
		err     error
		dials   int
		is      error
	}{
		"comes back":            {fails: 2, err: down, dials: 3},
		"stays away":            {fails: 9, err: down, dials: 3, is: down},
		"not to be tried again": {retries: -1, fails: 9, err: down, dials: 1, is: down},
		"more":                  {retries: 5, fails: 5, err: down, dials: 6},
		"host key":              {fails: 9, err: ssh.ErrHostKey, dials: 1, is: ssh.ErrHostKey},
		"authentication":        {fails: 9, err: ssh.ErrAuthentication, dials: 1, is: ssh.ErrAuthentication},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				f := &farm{err: func(_ string, n int) error {
					if n < row.fails {
						return row.err
					}
					return nil
				}}
				p := newPool(t, f)
				p.Retries = row.retries
				_, err := p.Run(t.Context(), "web", "exit 0")
				if !errors.Is(err, row.is) || f.count("web") != row.dials {
					t.Errorf("%v after %d dials", err, f.count("web"))
				}
			})
		})
	}
}

// Many wait for one attempt, and each for no longer than its own context.
func TestPoolWaits(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		f := &farm{fault: func(string, int) fault { return fault{freeze: func(n int) bool { return n == 1 }} }}
		p := newPool(t, f)
		p.Retries = -1
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				limit := time.Duration(i+1) * s
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				began := time.Now()
				_, err := p.Run(ctx, "web", "exit 0")
				if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != min(limit, 10*s+s/10) {
					t.Errorf("%v: %v after %v", limit, err, took)
				}
			})
		}
		wg.Wait()
		if n := f.count("web"); n != 1 {
			t.Errorf("%d dials", n)
		}
	})
}

// Channels that a server never confirms make for another connection at last.
func TestPoolAbandons(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		f := &farm{fault: func(_ string, n int) fault {
			return fault{opens: func(*faulty, xssh.NewChannel) bool { return n > 0 }}
		}}
		p := newPool(t, f)
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), s)
			if _, err := p.Run(ctx, "web", "exit 0"); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		if _, err := p.Run(t.Context(), "web", "exit 0"); err != nil || f.count("web") != 2 {
			t.Errorf("%v after %d dials", err, f.count("web"))
		}
	})
}

// Commands that were given up and go on keep their sessions at sshd, but not
// others from running.
func TestOpenSSHPoolStuck(t *testing.T) {
	t.Parallel()
	d := startSSHD(t, "MaxSessions 2")
	var dials atomic.Int32
	p := &ssh.Pool{Connect: func(ctx context.Context, host string) (*ssh.Client, error) {
		dials.Add(1)
		return ssh.Dial(ctx, d.addr, d.config)
	}}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), s)
	defer cancel()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := p.Run(ctx, "web", "trap '' TERM HUP; sleep 10"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	began := time.Now()
	r, err := p.Run(t.Context(), "web", "echo hello")
	t.Logf("after %v and %d dials: %v", time.Since(began), dials.Load(), err)
	if err != nil || string(r.Stdout) != "hello\n" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
}

func TestPoolCloses(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		p := newPool(t, &farm{})
		p.Sessions = 2
		ended := make(chan error, 5)
		for range cap(ended) {
			go func() {
				_, err := p.Run(context.Background(), "web", "say part")
				ended <- err
			}()
		}
		go func() {
			_, err := p.Client(context.Background(), "slow")
			if err != nil && !errors.Is(err, ssh.ErrClosed) {
				t.Error(err)
			}
		}()
		time.Sleep(s)
		if err := errors.Join(p.Close(), p.Close()); err != nil {
			t.Error(err)
		}
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, ssh.ErrClosed) {
				t.Error(err)
			}
		}
		if _, err := p.Run(t.Context(), "web", "exit 0"); !errors.Is(err, ssh.ErrClosed) {
			t.Error(err)
		}
		var none ssh.Pool
		if _, err := none.Run(t.Context(), "web", "exit 0"); err == nil {
			t.Error("no Connect")
		}
		none.Close()
	})
}

// 64 at a time on a server with sshd's own limit, without one refusal.
func TestOpenSSHPool(t *testing.T) {
	t.Parallel()
	for _, options := range [][]string{nil, {"MaxSessions 2"}} {
		d := startSSHD(t, options...)
		p := &ssh.Pool{Connect: func(ctx context.Context, host string) (*ssh.Client, error) { return ssh.Dial(ctx, d.addr, d.config) }}
		var wg sync.WaitGroup
		began := time.Now()
		for i := range 64 {
			wg.Go(func() {
				r, err := p.Run(t.Context(), "web", fmt.Sprintf("echo %d", i))
				if err != nil || string(r.Stdout) != fmt.Sprintf("%d\n", i) {
					t.Errorf("%q, %v", r.Stdout, err)
				}
			})
		}
		wg.Wait()
		t.Logf("%v: 64 commands in %v", options, time.Since(began).Round(time.Millisecond))
		_ = p.Close()
	}
}
