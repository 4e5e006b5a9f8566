package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

func steps(lines ...string) (all []Step) {
	for _, line := range lines {
		all = append(all, Step{Command: line})
	}
	return all
}

func hosts(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("h%03d", i))
	}
	return names
}

// answers runs a plan and fails unless there is one answer for each host.
func answers(t *testing.T, ctx context.Context, p Plan) map[string]fact.HostAnswer {
	t.Helper()
	all := map[string]fact.HostAnswer{}
	for a := range p.Run(ctx) {
		if _, twice := all[a.Host]; twice {
			t.Errorf("%s answered twice", a.Host)
		}
		if a.Outcome != fact.OutcomeOK && a.Reason == "" || strings.ContainsAny(a.Reason, "\n\x1b") {
			t.Errorf("%+v: no reason in one line", a)
		}
		all[a.Host] = a
	}
	if !slices.Equal(slices.Sorted(maps.Keys(all)), slices.Sorted(slices.Values(p.Hosts))) {
		t.Errorf("%d answers of %d hosts", len(all), len(p.Hosts))
	}
	return all
}

func count(all map[string]fact.HostAnswer) map[fact.Outcome]int {
	n := map[fact.Outcome]int{}
	for _, a := range all {
		n[a.Outcome]++
	}
	return n
}

func expect(t *testing.T, all map[string]fact.HostAnswer, want map[fact.Outcome]int) {
	t.Helper()
	if got := count(all); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
		for _, a := range all {
			t.Logf("%+v", a)
		}
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]fact.HostAnswer{
		"exit 0":    {Outcome: fact.OutcomeOK, Exit: fact.Seen(0), Phase: "run"},
		"exit 3":    {Outcome: fact.OutcomeFailed, Exit: fact.Seen(3), Phase: "run", Reason: "exited with status 3"},
		"say hi":    {Outcome: fact.OutcomeOK, Exit: fact.Seen(0), Phase: "run", Stdout: []byte("hi\n"), Stderr: []byte("err hi\n")},
		"sleep 50s": {Outcome: fact.OutcomeTimedOut, Phase: "run", MayHaveRun: true, Reason: "the command did not end within 5 s"},
		"freeze":    {Outcome: fact.OutcomeUnreachable, Phase: "run", MayHaveRun: true, Reason: "silent, nothing heard for 2 s"},
		"die":       {Outcome: fact.OutcomeUnreachable, Phase: "run", MayHaveRun: true, Reason: "the connection was ended by the other side"},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				s := serveInMemory(t)
				got := answers(t, t.Context(), Plan{Hosts: []string{"h"}, Steps: steps(line), Dial: s.dial, Timeout: 5 * time.Second})["h"]
				want.Host, want.Attempts, want.Started, want.Took = "h", 1, got.Started, got.Took
				want.Detail = got.Detail
				if reason, _, _ := strings.Cut(want.Reason, ", "); strings.HasPrefix(got.Reason, reason) { // how long differs
					want.Reason = got.Reason
				}
				if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
					t.Errorf("%+v\nwant %+v", got, want)
				}
			})
		})
	}
}

// 20 of 200 hosts are frozen: each is reported at its bound, and the others are
// not delayed, though there is room for no more than 64 at a time.
func TestFrozen(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		silent, err := s.memory.Listen("silent:22") // whose kernel connects, and who never says a word
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		var healthy time.Duration
		began := time.Now()
		p := Plan{
			Hosts: hosts(200), Steps: steps("sleep 1s"), Connect: 9 * time.Second,
			Dial: func(ctx context.Context, host string) (*Conn, error) {
				if strings.HasSuffix(host, "7") {
					return s.dialTo(ctx, "silent:22", host)
				}
				return s.dial(ctx, host)
			},
		}
		n := 0
		for a := range p.Run(t.Context()) {
			if n++; a.Outcome == fact.OutcomeOK {
				healthy = time.Since(began)
				continue
			}
			if a.Outcome != fact.OutcomeUnreachable || a.Phase != "handshake" || a.Reason != "no connection within 9 s" || a.Took != 9*time.Second || !strings.HasSuffix(a.Host, "7") {
				t.Errorf("%+v", a)
			}
		}
		took := time.Since(began)
		t.Logf("200 hosts, 20 of them frozen: 180 after %v, all after %v", healthy, took)
		// The last frozen host is begun with the fourth of the healthy ones' seconds.
		if n != 200 || healthy > 4*time.Second || took > healthy+9*time.Second {
			t.Errorf("%d answers", n)
		}
	})
}

func TestTwoHundred(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		began := time.Now()
		expect(t, answers(t, t.Context(), Plan{Hosts: hosts(200), Steps: steps("sleep 20ms"), Dial: s.dial}), map[fact.Outcome]int{fact.OutcomeOK: 200})
		t.Logf("200 hosts of a server in this process: %v", time.Since(began))
		if s.mostAt > 64 {
			t.Errorf("%d at a time", s.mostAt)
		}
	})
}

func TestWindow(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		expect(t, answers(t, t.Context(), Plan{Hosts: hosts(30), Steps: steps("sleep 5ms"), Dial: s.dial, Window: 3}), map[fact.Outcome]int{fact.OutcomeOK: 30})
		if s.mostAt > 3 {
			t.Errorf("%d at a time", s.mostAt)
		}
	})
}

// Several commands go over one connection, until one fails.
func TestScript(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		all := answers(t, t.Context(), Plan{Hosts: hosts(3), Steps: steps("say a", "say b", "exit 4", "say c"), Dial: s.dial})
		expect(t, all, map[fact.Outcome]int{fact.OutcomeFailed: 3})
		if a := all["h001"]; string(a.Stdout) != "a\nb\n" || a.Command != "exit 4" || a.Exit != fact.Seen(4) {
			t.Errorf("%+v", a)
		}
		if n := s.connects.Load(); n != 3 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestMaxFail(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		all := answers(t, t.Context(), Plan{Hosts: hosts(50), Steps: steps("exit 1"), Dial: s.dial, Window: 2, MaxFail: share(t, "10%")})
		n := count(all)
		if n[fact.OutcomeFailed] < 6 || n[fact.OutcomeFailed] > 7 || n[fact.OutcomeNotRun] != 50-n[fact.OutcomeFailed] || len(s.ran) != n[fact.OutcomeFailed] {
			t.Error(n)
		}
		if a := all["h049"]; a.Reason != "not begun, because more than 5 hosts failed" || !a.Started.IsZero() {
			t.Errorf("%+v", a)
		}
	})
}

func share(t *testing.T, text string) Share {
	t.Helper()
	s, err := ParseShare(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A batch is begun when the one before has answered, and not after a failure.
func TestBatches(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		p := Plan{Hosts: hosts(10), Steps: steps("sleep 10ms"), Dial: s.dial, Batches: []Share{share(t, "1"), share(t, "40%")}}
		var begun []int
		var n atomic.Int32
		p.Began = func(string) { n.Add(1) }
		for range p.Run(t.Context()) {
			begun = append(begun, int(n.Load()))
		}
		if len(begun) != 10 || begun[0] != 1 || begun[4] != 5 || begun[8] != 9 || begun[9] != 10 {
			t.Error(begun)
		}
		p.Steps = steps("exit 1")
		expect(t, answers(t, t.Context(), p), map[fact.Outcome]int{fact.OutcomeFailed: 1, fact.OutcomeNotRun: 9})
	})
}

// What was not sent is tried again; what may have run is not.
func TestRetries(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		var tries atomic.Int32
		flaky := func(ctx context.Context, host string) (*Conn, error) {
			if tries.Add(1) < 3 {
				return s.dialTo(ctx, "nobody:22", host) // refused
			}
			return s.dial(ctx, host)
		}
		p := Plan{Hosts: []string{"h"}, Steps: steps("say x"), Dial: flaky, Retries: 2}
		a := answers(t, t.Context(), p)["h"]
		if a.Outcome != fact.OutcomeOK || a.Attempts != 3 {
			t.Errorf("%+v", a)
		}
		tries.Store(0)
		p.Retries = 1
		if a := answers(t, t.Context(), p)["h"]; a.Outcome != fact.OutcomeUnreachable || a.Attempts != 2 || a.Phase != "connect" {
			t.Errorf("%+v", a)
		}
		p.Dial, p.Steps, p.Retries = s.dial, steps("die"), 5
		if a := answers(t, t.Context(), p)["h"]; a.Outcome != fact.OutcomeUnreachable || !a.MayHaveRun || a.Attempts != 1 {
			t.Errorf("%+v", a)
		}
	})
}

// When it is interrupted, what runs is ended and the rest is not begun.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := Plan{Hosts: hosts(20), Steps: steps("sleep 50s"), Dial: s.dial, Window: 8}
		var at time.Time
		go func() {
			for {
				s.mu.Lock()
				all := s.running == 8
				s.mu.Unlock()
				if all {
					at = time.Now()
					cancel()
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		all := answers(t, ctx, p)
		t.Logf("after %v", time.Since(at))
		if took := time.Since(at); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		expect(t, all, map[fact.Outcome]int{fact.OutcomeFailed: 8, fact.OutcomeNotRun: 12})
		if a := all["h000"]; a.Reason != "interrupted" || !a.MayHaveRun {
			t.Errorf("%+v", a)
		}
	})
}

// Nothing that a host's goroutine does loses its answer, or another's.
func TestFaults(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		held := make(chan struct{})
		defer close(held)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := Plan{
			Hosts: []string{"ok", "panics", "errs", "holds", "writes"}, Steps: steps("say x"),
			Dial: func(ctx context.Context, host string) (*Conn, error) {
				switch host {
				case "panics":
					panic("oh\nno")
				case "errs":
					return nil, errors.New("bad\x1b[31m option")
				case "holds":
					<-held
					return nil, errors.New("too late")
				}
				return s.dial(ctx, host)
			},
			Output: func(host string, _ bool, _ []byte) error {
				if host == "writes" {
					panic("no room")
				}
				return nil
			},
			Began: func(string) { time.AfterFunc(8*time.Second, cancel) },
		}
		all := answers(t, ctx, p)
		expect(t, all, map[fact.Outcome]int{fact.OutcomeOK: 1, fact.OutcomeFailed: 2, fact.OutcomeUnreachable: 2})
		for host, want := range map[string]string{
			"panics": "a fault of lifeline itself, please report it: oh no",
			"errs":   `bad\x1b[31m option`,
			"holds":  "nothing came of it within 2 s, and it could not be stopped",
			"writes": "a fault of lifeline itself, please report it: no room",
		} {
			if got := all[host].Reason; got != want {
				t.Errorf("%s: %q, want %q", host, got, want)
			}
		}
	})
}

// The memory of output is bounded, for each host and for all.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := serve(t)
	p := Plan{Hosts: hosts(2), Steps: steps("flood"), Dial: s.dial, Timeout: 3 * time.Second, MaxOutput: 64 << 10}
	for _, a := range answers(t, t.Context(), p) {
		if a.Outcome != fact.OutcomeTimedOut || !a.Truncated || len(a.Stdout) != 64<<10 {
			t.Errorf("%s, truncated %v, %d bytes", a.Outcome, a.Truncated, len(a.Stdout))
		}
	}
	r := &run{Plan: Plan{MaxOutput: 100}}
	r.room.Store(150)
	for i, want := range []int{100, 0, 50} {
		o := &output{task: &task{run: r}}
		_, _ = o.Write(make([]byte, []int{120, 60, 50}[i]))
		if kept, more := o.kept(); len(kept) != want || more != (i < 2) {
			t.Errorf("%d: %d kept, %v", i, len(kept), more)
		}
	}
}

// Who leaves the loop has everything stopped.
func TestLeave(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		s := serveInMemory(t)
		p := Plan{Hosts: hosts(9), Steps: steps("sleep 50ms"), Dial: s.dial, Window: 3}
		for range p.Run(t.Context()) {
			break
		}
		if len(s.ran) > 3 {
			t.Errorf("%d were begun", len(s.ran))
		}
	})
}

func TestShare(t *testing.T) {
	for text, want := range map[string][2]int{"0": {0, 0}, "3": {3, 3}, "10%": {1, 2}, "0.5%": {0, 1}, "100%": {15, 15}} {
		s := share(t, text)
		down, _ := s.of(15, false)
		up, _ := s.of(15, true)
		if down != want[0] || up != want[1] {
			t.Errorf("%s of 15: %d and %d", text, down, up)
		}
	}
	for _, text := range []string{"", "-1", "%", "0%", "101%", "NaN%", "many", "1.5"} {
		if s, err := ParseShare(text); err == nil || !strings.Contains(err.Error(), "take") {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
}

func TestBound(t *testing.T) {
	p := Plan{Steps: steps("a", "b"), Timeout: 10 * time.Second, Connect: time.Second, Retries: 1}
	if got := p.Bound(); got != 34*time.Second {
		t.Error(got)
	}
	if got := (Plan{Steps: steps("a", "b"), Timeout: 1<<63 - 1}).Bound(); got != 1<<63-1 {
		t.Error(got)
	}
}
