package tune

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/bound"
)

// zoo are connections of all kinds: both families, IPv4 spoken by IPv6 sockets,
// keepalive off, left to sysctls, tight, and with a user timeout.
func zoo(t testing.TB, near, far *lab.Host) (ends []*net.TCPConn) {
	t.Helper()
	for _, l := range [][]pair{
		dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 6),
		dial(t, near, far, "[fd77::2]:80", "[fd77::2]:80", 6),
		dial(t, near, far, "[::]:81", "10.77.1.2:81", 6),
	} {
		for i, p := range l {
			switch i {
			case 1:
				set(t, p.near, keepAlive, 0)
				set(t, p.far, keepAlive, 0)
			case 2: // as C programs have it: all left to the sysctls
				p.near, p.far = plain(t, near, far)
				set(t, p.near, keepAlive, 1)
			case 3:
				set(t, p.near, userTimeout, 45_000)
				set(t, p.far, userTimeout, 2_000)
			case 4:
				set(t, p.near, idle, 7200)
				set(t, p.far, interval, 75)
				set(t, p.far, count, 127)
			case 5:
				set(t, p.near, idle, 1)
				set(t, p.near, interval, 1)
				set(t, p.near, count, 2)
			}
			ends = append(ends, p.near, p.far)
		}
	}
	return ends
}

// plain opens a connection whose options nobody has set.
func plain(t testing.TB, near, far *lab.Host) (a, b *net.TCPConn) {
	t.Helper()
	err := far.Do(func() error {
		listen := net.ListenConfig{KeepAlive: -1}
		ln, err := listen.Listen(t.Context(), "tcp", "10.77.1.2:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		return near.Do(func() error {
			c, err := (&net.Dialer{KeepAlive: -1}).Dial("tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			p, err := ln.Accept()
			if err != nil {
				return err
			}
			t.Cleanup(func() { p.Close() })
			a, b = c.(*net.TCPConn), p.(*net.TCPConn)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func every(t testing.TB, ends []*net.TCPConn) (all []values) {
	t.Helper()
	for _, c := range ends {
		all = append(all, optionsOf(t, c))
	}
	return all
}

// Undo restores every option of every kind of connection, also after two tunes.
func TestTuneAndUndo(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		for _, timeout := range []time.Duration{0, 30 * time.Second} {
			t.Run(fmt.Sprint(way, " ", timeout), func(t *testing.T) {
				t.Parallel()
				near, far := hosts(t)
				ends := zoo(t, near, far)
				before := every(t, ends)
				dir := place(t)
				for _, within := range []time.Duration{60 * time.Second, 6 * time.Second} {
					m := look(t, false, near, far)
					r, err := Run(t.Context(), m, established(m), Options{Within: within, UserTimeout: timeout, Dir: dir, Way: way})
					if err != nil || len(r.Changed)+len(r.Gone)+len(r.Failed)+len(r.Left) != 0 || len(r.Tuned)+len(r.Tight) != len(established(m)) || len(r.Tight) == 0 && timeout == 0 {
						t.Fatalf("%v: %+v", err, r)
					}
					checkTuned(t, before, every(t, ends), within, timeout)
				}
				m := look(t, false, near, far)
				u, err := Undo(t.Context(), m, UndoOptions{Dir: dir, Way: way})
				if err != nil || len(u.Restored) == 0 || len(u.Same)+len(u.Changed)+len(u.Failed)+u.Left != 0 {
					t.Fatalf("%v: %+v", err, u)
				}
				for i, v := range every(t, ends) {
					if v != before[i] {
						t.Errorf("end %d has %v, had %v", i, v, before[i])
					}
				}
				if keeps(t, dir) {
					t.Error("it still keeps old options")
				}
			})
		}
	}
}

func checkTuned(t *testing.T, before, after []values, within, timeout time.Duration) {
	t.Helper()
	for i, v := range after {
		o := v.options()
		if o.UserTimeout == 0 || timeout == 0 && before[i][userTimeout] == 0 {
			if b := (bound.Conn{Options: o}).Idle(); b.Never() || b.Latest > within || b.OneLoss {
				t.Errorf("end %d has %v, the bound %+v, not %v", i, v, b, within)
			}
		}
		if was := before[i].options().UserTimeout; timeout == 0 && o.UserTimeout != was || timeout > 0 && (o.UserTimeout == 0 || o.UserTimeout > timeout) {
			t.Errorf("end %d had the user timeout %v, now %v, asked for %v", i, was, o.UserTimeout, timeout)
		}
		if was := (bound.Conn{Options: before[i].options()}).Idle(); timeout == 0 && !was.Never() && was.Latest <= within && v != before[i] && within > 6*time.Second {
			t.Errorf("end %d was tight with %v and has %v", i, before[i], v)
		}
	}
}

// 4,224 sockets, in each way; what they take is for bench tune to say.
func TestManySockets(t *testing.T) {
	const n = 4224
	near, far := hosts(t)
	links := dial(t, near, far, "[::]:80", "10.77.1.2:80", n)
	for _, way := range ways {
		dir := place(t)
		reach, err := Open(way)
		if err != nil {
			t.Fatal(err)
		}
		for _, within := range []time.Duration{20 * time.Second, 10 * time.Second, 5 * time.Second} {
			m := look(t, true, far)
			start, before := time.Now(), worked(t)
			r, err := Run(t.Context(), m, established(m), Options{Within: within, Dir: dir, Reach: reach})
			took, cost := time.Since(start), worked(t)-before
			if err != nil || len(r.Tuned) != n || r.Way != way {
				t.Fatalf("%v: %v, %d tuned, %d gone, %v failed", way, err, len(r.Tuned), len(r.Gone), r.Failed)
			}
			t.Logf("%v: %d sockets in %v, %v of a processor: read %v, kept %v, set %v", way, n, took, cost, r.Read, r.Kept, r.Set)
		}
		m := look(t, false, far)
		start := time.Now()
		u, err := Undo(t.Context(), m, UndoOptions{Dir: dir, Reach: reach})
		if err != nil || len(u.Restored) != n {
			t.Fatalf("%v: %v, %d restored, %d gone, %v failed", way, err, len(u.Restored), u.Gone, u.Failed)
		}
		t.Logf("%v: undone in %v", way, time.Since(start))
		if got := optionsOf(t, links[n-1].far); got != (values{1, 15, 15, 9, 0}) {
			t.Errorf("after undo: %v", got)
		}
		if err := reach.Close(); err != nil {
			t.Error(err)
		}
	}
}

// worked is the processor time of this process: what a test may hold to a limit
// also where the machine has other things to do.
func worked(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What a program sets after the tune stays.
func TestOwnChangeWins(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		near, far := hosts(t)
		links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 4)
		dir := place(t)
		m := look(t, false, near)
		if r, err := Run(t.Context(), m, established(m), Options{Dir: dir, Way: way}); err != nil || len(r.Tuned) != 4 {
			t.Fatalf("%v %+v", err, r)
		}
		set(t, links[0].near, count, 5)
		set(t, links[1].near, keepAlive, 0)
		links[2].near.Close()
		want := []values{optionsOf(t, links[0].near), optionsOf(t, links[1].near)}
		m = look(t, false, near)
		there, elsewhere, err := Kept(m, UndoOptions{Dir: dir})
		if err != nil || len(there)+elsewhere != 4 {
			t.Errorf("%v: %d kept, %d elsewhere", err, len(there), elsewhere)
		}
		u, err := Undo(t.Context(), m, UndoOptions{Dir: dir, Way: way})
		if err != nil || len(u.Changed) != 2 || len(u.Restored) != 1 || u.Gone != 1 || len(u.Failed)+len(u.Same) != 0 {
			t.Errorf("%v: %v: %+v", way, err, u)
		}
		for i, v := range want {
			if got := optionsOf(t, links[i].near); got != v {
				t.Errorf("%v: %d: %v became %v", way, i, v, got)
			}
		}
		if keeps(t, dir) {
			t.Error("it still keeps old options")
		}
	}
}

// broken touches some sockets and then is no more, as if it had been killed.
type broken struct {
	hand
	after int // jobs that are still done
}

var errKilled = errors.New("killed")

func (b *broken) touch(ns fact.Namespace, jobs []job) error {
	if jobs[0].Set == 0 {
		return b.hand.touch(ns, jobs)
	}
	if err := b.hand.touch(ns, jobs[:b.after]); err != nil {
		return err
	}
	panic(errKilled)
}

// A tune that was killed in the middle can be undone.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, touched := range []int{0, 3} {
		near, far := hosts(t)
		links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 5)
		dir := place(t)
		m := look(t, false, near)
		killed(t, m, dir, touched)
		if !keeps(t, dir) {
			t.Fatal("it touched before it kept")
		}
		if touched == 3 { // one of them half: the last of its settings never came
			set(t, links[0].near, idle, 15)
		}
		u, err := Undo(t.Context(), look(t, false, near), UndoOptions{Dir: dir})
		if err != nil || len(u.Restored) != touched || len(u.Same) != 5-touched || len(u.Changed) != 0 {
			t.Errorf("%d touched: %v: %+v", touched, err, u)
		}
		for _, l := range links {
			if got := optionsOf(t, l.near); got != (values{1, 15, 15, 9, 0}) {
				t.Errorf("%d touched: %v", touched, got)
			}
		}
	}
}

// killed runs a tune up to the touch, in the way of Run.
func killed(t *testing.T, m *fact.Machine, dir string, touched int) {
	t.Helper()
	defer func() {
		if v := recover(); v != errKilled {
			t.Fatalf("it ended with %v", v)
		}
	}()
	store, err := openStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.close()
	r := runner{machine: m}
	r.Left = established(m)
	r.target, r.within, _ = r.options()
	r.kept, err = store.load()
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(r.run(t.Context(), store, &broken{loans{}, touched}))
}

// A server that knows nothing of it learns within the bound.
func TestServerLearns(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.String(), func(t *testing.T) {
			t.Parallel()
			const within = 4 * time.Second
			near, far := hosts(t)
			links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 3)
			links = append(links, dial(t, near, far, "[fd77::2]:80", "[fd77::2]:80", 3)...)
			m := look(t, true, far)
			o := Options{Within: within, Dir: place(t), Way: way}
			p, err := Plan(m, established(m), o)
			if err != nil || p.IdleAfter.Latest > within || p.IdleBefore.After != 150*time.Second || len(p.Tune) != 6 || p.Late != 0 {
				t.Fatalf("%v: %+v", err, p)
			}
			if r, err := Run(t.Context(), m, established(m), o); err != nil || len(r.Tuned) != 6 {
				t.Fatalf("%v: %+v", err, r)
			}
			near.Unplug()
			start := time.Now()
			for _, l := range links {
				_ = l.far.SetReadDeadline(start.Add(3 * within))
				if _, err := l.far.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			}
			t.Logf("learned after %v, of %v", time.Since(start), within)
		})
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 4)
	set(t, links[0].near, keepAlive, 0)
	set(t, links[1].near, userTimeout, 30_000)
	set(t, links[2].near, idle, 1)
	set(t, links[2].near, interval, 1)
	set(t, links[2].near, count, 3)
	m := look(t, true, near)
	p, err := Plan(m, established(m), Options{})
	if err != nil || len(p.Tune) != 3 || len(p.Tight) != 1 || len(p.Unknown) != 0 || !p.IdleBefore.Never() || p.Late != 1 ||
		p.IdleAfter.By != bound.UserTimeout || p.SendingBefore != p.SendingAfter || p.ProbesBefore >= p.ProbesAfter {
		t.Errorf("%v: %+v", err, p)
	}
	for _, o := range []Options{{Within: 3 * time.Second}, {Within: -1}, {Within: 2 * time.Hour}, {UserTimeout: -1}, {UserTimeout: 25 * time.Hour}} {
		if _, err := Plan(m, nil, o); err == nil || o.Check() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// Paced, it stops when its context ends, and forgets what it did not touch.
func TestStopped(t *testing.T) {
	t.Parallel()
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 30)
	dir := place(t)
	m := look(t, false, near)
	ctx, stop := context.WithCancelCause(t.Context())
	batches := 0
	r, err := Run(ctx, m, established(m), Options{Dir: dir, Rate: 100, After: func(r Report) {
		if batches++; batches == 2 {
			stop(errKilled)
		}
	}})
	if err != nil && !errors.Is(err, errKilled) || len(r.Tuned) != 10 || len(r.Left) != 20 || batches != 2 {
		t.Fatalf("%v: %d tuned, %d left, %d batches", err, len(r.Tuned), len(r.Left), batches)
	}
	u, err := Undo(t.Context(), m, UndoOptions{Dir: dir})
	if err != nil || len(u.Restored) != 10 || len(u.Same) != 0 {
		t.Errorf("%v: %+v", err, u)
	}
	if got := every(t, []*net.TCPConn{links[0].near, links[29].near}); got[0] != got[1] {
		t.Errorf("got %v", got)
	}
}

// Two runs wait for each other.
func TestLocked(t *testing.T) {
	t.Parallel()
	dir := place(t)
	first, err := openStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errKilled)
	defer stop()
	var refused *act.Error
	if _, err := openStore(ctx, dir); !errors.Is(err, errKilled) || !errors.As(err, &refused) {
		t.Errorf("it did not wait: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, first.close)
	second, err := openStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	second.close()
}

// With their namespace connections are gone, and that is no error.
func TestNamespaceGone(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		near, far := hosts(t)
		links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 2)
		m := look(t, false, near)
		dir := place(t)
		if r, err := Run(t.Context(), m, established(m), Options{Dir: dir, Way: way}); err != nil || len(r.Tuned) != 2 {
			t.Fatalf("%v: %+v", err, r)
		}
		for _, l := range links {
			l.near.Close()
			l.far.Close()
		}
		if out, err := unmount(near.Path()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		r, err := Run(t.Context(), m, established(m), Options{Within: 4 * time.Second, Dir: dir, Way: way})
		if err != nil || len(r.Gone) != 2 {
			t.Errorf("%v: %v: %+v", way, err, r)
		}
		u, err := Undo(t.Context(), m, UndoOptions{Dir: dir, Way: way})
		if err != nil || u.Gone != 2 || keeps(t, dir) {
			t.Errorf("%v: %v: %+v", way, err, u)
		}
	}
}

func unmount(path string) (string, error) {
	err := unix.Unmount(path, unix.MNT_DETACH)
	return path, err
}

// Without the right there is one error that names it, and nothing is touched.
func TestRefused(t *testing.T) {
	near, far := hosts(t)
	links := dial(t, near, far, "10.77.1.2:80", "10.77.1.2:80", 2)
	m := look(t, false, near)
	dir := filepath.Join(t.TempDir(), "a", "b")
	var refused *act.Error
	if _, err := Run(t.Context(), m, established(m), Options{Dir: dir}); !errors.As(err, &refused) && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, mode := range []os.FileMode{0o777, 0o720} {
		open := t.TempDir()
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), m, established(m), Options{Dir: open}); err == nil || !strings.Contains(err.Error(), "only its owner") {
			t.Errorf("%v: got %v", mode, err)
		}
	}
	if got := optionsOf(t, links[0].near); got != (values{1, 15, 15, 9, 0}) {
		t.Errorf("it was touched: %v", got)
	}
}
