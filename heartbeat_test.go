package lifeline

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// beating runs a test with a heartbeat in a bubble, where the time is exact, and
// checks that its goroutine ends when nothing is left to ask.
func beating(t *testing.T, test func(t *testing.T, h *Heartbeat)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var h Heartbeat
		test(t, &h)
		time.Sleep(2 * mostTurn)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.running || h.beats != 0 {
			t.Errorf("goes on with %d connections", h.beats)
		}
		for _, head := range h.slots {
			if head != nil {
				t.Fatal("keeps a connection that was given up or stopped")
			}
		}
	})
}

// hangs is the ping of a program that hangs.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func answers(context.Context) error { return nil }

func neverDead(t *testing.T) func(error) {
	return func(err error) { t.Errorf("given up: %v", err) }
}

// A program that hangs is noticed within the bound, by the clock to the turn,
// whatever the fields say; and the error says all there is to say.
func TestHeartbeatNotices(t *testing.T) {
	const s = time.Second
	for _, fields := range [][2]time.Duration{{}, {s, s}, {1, 1}, {10 * s, time.Minute}, {5 * time.Minute, 3 * s}, {9 * time.Hour, s}} {
		beating(t, func(t *testing.T, h *Heartbeat) {
			h.Every, h.Within = fields[0], fields[1]
			began, dead := time.Now(), make(chan error)
			h.Add("10.0.0.7:443", hangs, func(err error) { dead <- err })
			err := <-dead
			took := time.Since(began)
			if took > h.Bound() {
				t.Errorf("%v: noticed after %v, the bound is %v", fields, took, h.Bound())
			}
			var known *Error
			if !errors.As(err, &known) || !errors.Is(err, ErrMute) || errors.Is(err, ErrSilent) || !known.Timeout() ||
				known.Promise != Silence || known.Op != "ping" || known.Peer != "10.0.0.7:443" || known.Quiet != took ||
				!errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: after %v: %+v", fields, took, err)
			}
		})
	}
	var zero Heartbeat
	if zero.Bound() != 35*time.Second {
		t.Errorf("the bound of the zero value is %v", zero.Bound())
	}
}

func TestHeartbeatAnswered(t *testing.T) {
	beating(t, func(t *testing.T, h *Heartbeat) {
		var mu sync.Mutex
		var asked []time.Time
		b := h.Add("", func(context.Context) error {
			mu.Lock()
			asked = append(asked, time.Now())
			mu.Unlock()
			time.Sleep(5 * time.Second) // slow, and alive
			return nil
		}, neverDead(t))
		time.Sleep(time.Hour)
		b.Stop()
		time.Sleep(5 * time.Second) // for a ping that is under way
		mu.Lock()
		defer mu.Unlock()
		if n := len(asked); n < 100 || n > 160 {
			t.Errorf("asked %d times in an hour", n)
		}
		for i := range asked[1:] {
			if wait := asked[i+1].Sub(asked[i]) - 5*time.Second; wait < 18*time.Second || wait > 25*time.Second {
				t.Errorf("asked after %v", wait)
			}
		}
	})
}

// A ping that does not heed its context delays nobody else, and does not keep
// its connection from being given up.
func TestHeartbeatStubbornPing(t *testing.T) {
	beating(t, func(t *testing.T, h *Heartbeat) {
		began, dead, closed := time.Now(), make(chan time.Duration), make(chan struct{})
		const many = 100
		for range many {
			h.Add("", func(context.Context) error { <-closed; return net.ErrClosed }, func(error) { dead <- time.Since(began) })
		}
		var asked atomic.Int32
		other := h.Add("", func(context.Context) error { asked.Add(1); return nil }, neverDead(t))
		for range many {
			if took := <-dead; took > h.Bound() {
				t.Errorf("given up after %v", took)
			}
		}
		time.Sleep(time.Minute)
		if asked.Load() < 3 {
			t.Error("the wheel stood still")
		}
		close(closed)
		other.Stop()
	})
}

// Thousands that are added at once, or heard from at once, are not asked at once.
func TestHeartbeatSpreads(t *testing.T) {
	beating(t, func(t *testing.T, h *Heartbeat) {
		const many = 10_000
		var mu sync.Mutex
		asked := make(map[time.Duration]int) // in each second
		began := time.Now()
		ping := func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			asked[time.Since(began).Truncate(time.Second)]++
			return nil
		}
		most := func() (n int) {
			mu.Lock()
			defer mu.Unlock()
			for _, each := range asked {
				n = max(n, each)
			}
			clear(asked)
			return n
		}
		beats := make([]*Beat, many)
		for i := range beats {
			beats[i] = h.Add("", ping, neverDead(t))
		}
		time.Sleep(25 * time.Second)
		if n := most(); n > 5*many/50 { // some are asked again at the end
			t.Errorf("asked %d of %d in a second after they were added", n, many)
		}
		time.Sleep(100 * time.Millisecond)
		for _, b := range beats {
			b.Alive()
		}
		most()
		time.Sleep(25 * time.Second)
		if n := most(); n > 2*many/6 {
			t.Errorf("asked %d of %d in a second after they were heard from", n, many)
		}
		for _, b := range beats {
			b.Stop()
		}
	})
}

func TestHeartbeatAlive(t *testing.T) {
	beating(t, func(t *testing.T, h *Heartbeat) {
		var asked atomic.Int32
		dead := make(chan error)
		b := h.Add("", func(ctx context.Context) error { asked.Add(1); return hangs(ctx) }, func(err error) { dead <- err })
		b.Alive()
		for range 60 { // messages, more often than it would be asked
			time.Sleep(10 * time.Second)
			b.Alive()
		}
		if n := asked.Load(); n > 1 { // the first may come at any time
			t.Errorf("a peer that sends was asked %d times", n)
		}
		time.Sleep(20 * time.Second) // it is asked, or will be in 5 s
		for range 60 {               // messages, and never an answer
			b.Alive()
			time.Sleep(9 * time.Second)
		}
		heard := time.Now().Add(-9 * time.Second)
		err := <-dead
		if took := time.Since(heard); took > h.Bound() {
			t.Errorf("given up %v after the last message: %v", took, err)
		}
	})
}

// What ping says itself is passed on as it is.
func TestHeartbeatPingFails(t *testing.T) {
	beating(t, func(t *testing.T, h *Heartbeat) {
		dead := make(chan error)
		h.Add("", func(context.Context) error { return io.EOF }, func(err error) { dead <- err })
		if err := <-dead; err != io.EOF {
			t.Errorf("got %v", err)
		}
	})
}

func TestHeartbeatStop(t *testing.T) {
	beating(t, func(t *testing.T, h *Heartbeat) {
		before := h.Add("", answers, neverDead(t))
		before.Stop()
		before.Stop()

		asked := make(chan struct{})
		during := h.Add("", func(ctx context.Context) error {
			close(asked)
			return hangs(ctx)
		}, neverDead(t))
		<-asked
		during.Stop() // which ends the question, or the bubble would not end

		stopped, added := make(chan struct{}), make(chan *Beat, 1)
		added <- h.Add("", func(context.Context) error {
			(<-added).Stop()
			close(stopped)
			return io.EOF
		}, neverDead(t))
		<-stopped

		last := make(chan struct{})
		added <- h.Add("", hangs, func(error) { (<-added).Stop(); close(last) })
		<-last
	})
}

// Everything at once, for the race detector.
func TestHeartbeatRaces(t *testing.T) {
	h := Heartbeat{Every: leastBeat, Within: leastBeat}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Add(1)
		var once sync.Once
		done := func() { once.Do(wg.Done) }
		ping := []func(context.Context) error{answers, hangs, func(context.Context) error { return io.EOF }}[i%3]
		b := h.Add("", ping, func(error) { done() })
		go func() {
			for range 20 {
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
				b.Alive()
			}
			if i%3 == 0 || i%2 == 0 {
				b.Stop()
				done()
			}
		}()
	}
	wg.Wait()
}

// The time is counted in turns: a pause of this process is no silence of its
// peers, however long.
func TestHeartbeatOwnPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Heartbeat{running: true} // turned by hand
		pong := make(chan struct{})
		b := h.Add("", func(ctx context.Context) error {
			select {
			case <-pong:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, neverDead(t))
		for b.forget == nil {
			h.step()
		}
		time.Sleep(time.Hour)
		for range h.within - 1 {
			h.step()
		}
		pong <- struct{}{}
		synctest.Wait()
		h.step()
		b.Stop()
	})
}

// What the heartbeat keeps for a connection.
func TestHeartbeatMemory(t *testing.T) {
	const many, most = 10_000, 256
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var h Heartbeat
	h.Add("", answers, func(error) {}).Stop()
	beats, before := make([]*Beat, many), heap()
	for i := range beats {
		beats[i] = h.Add("", answers, func(error) {})
	}
	each := (int64(heap()) - int64(before)) / many
	t.Logf("%d bytes for each connection", each)
	if each > most {
		t.Errorf("%d bytes for each connection, of %d at most", each, most)
	}
	for _, b := range beats {
		b.Stop()
	}
}

// What people read.
func TestErrorTexts(t *testing.T) {
	for want, e := range map[string]Error{
		"lifeline: silence: read 10.0.0.7:443: the peer is silent, nothing heard for 20 s: connection timed out":                               {Op: "read", Kind: ErrSilent, Quiet: 20 * time.Second, Err: errors.New("connection timed out")},
		"lifeline: silence: write 10.0.0.7:443: cut by an administrator of this machine, nothing heard for 7.5 s: connection aborted":          {Op: "write", Kind: ErrCut, Quiet: 7500 * time.Millisecond, Err: errors.New("connection aborted")},
		"lifeline: silence: read 10.0.0.7:443: reset by the peer: connection reset":                                                            {Op: "read", Kind: ErrReset, Err: errors.New("connection reset")},
		"lifeline: silence: ping 10.0.0.7:443: the program at the other end does not answer, nothing heard for 35 s: not answered within 10 s": {Op: "ping", Kind: ErrMute, Quiet: 35 * time.Second, Err: overdue(10 * time.Second)},
	} {
		e.Promise, e.Peer = Silence, "10.0.0.7:443"
		if got := e.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	kinds := []error{ErrSilent, ErrReset, ErrCut, ErrMute, ErrUnanswered}
	for i, kind := range kinds {
		e := &Error{Kind: kind, Err: io.EOF}
		for j, other := range kinds {
			if errors.Is(e, other) != (i == j) {
				t.Errorf("%v and %v are not told apart", kind, other)
			}
		}
		if timeouts := []error{ErrSilent, ErrMute, ErrUnanswered}; e.Timeout() != slices.Contains(timeouts, kind) {
			t.Errorf("%v: Timeout is %v", kind, e.Timeout())
		}
		if strings.Contains(e.Error(), "\n") {
			t.Errorf("%v has more than one line", e)
		}
	}
}
