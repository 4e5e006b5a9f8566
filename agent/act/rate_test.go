package act

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]Rate{"500/s": 500, "1": 1, "max": Unpaced, "1000000/s": fastest} {
		got, err := ParseRate(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if again, err := ParseRate(got.String()); err != nil || again != want {
			t.Errorf("%v is read back as %v, %v", got, again, err)
		}
	}
	for _, bad := range []string{"", "0", "-1", "0/s", "fast", "5/m", "1000001", "/s"} {
		if r, err := ParseRate(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, r)
		}
	}
}

// run paces n connections and returns how long that took from the first to
// the last batch, and what a plan without any error takes for the same.
func run(t *testing.T, rate Rate, n int, work func(batch int) time.Duration) (took, plan time.Duration) {
	t.Helper()
	p := pace{rate: rate}
	start := time.Now()
	last := 0
	for left, i := n, 0; left > 0; i++ {
		last = min(rate.batch(), left)
		if err := p.wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		took = time.Since(start)
		time.Sleep(work(i))
		left -= last
	}
	return took, rate.Duration(n - last)
}

func TestPaceIsExact(t *testing.T) {
	for _, rate := range []Rate{0, 1, 7, 19, 21, 500, 2000, 10_000} {
		n := 4 * int(rate.orDefault())
		for name, work := range map[string]func(int) time.Duration{
			"idle":  func(int) time.Duration { return 0 },
			"busy":  func(int) time.Duration { return rate.Duration(rate.batch()) / 2 },
			"jerky": func(i int) time.Duration { return time.Duration(i%2) * rate.Duration(rate.batch()) * 3 / 2 },
		} {
			synctest.Test(t, func(t *testing.T) {
				took, plan := run(t, rate, n, work)
				if off := math.Abs(float64(took-plan)) / float64(plan); off > 0.05 {
					t.Errorf("%v, %s: %v for %d connections, want %v", rate, name, took, n, plan)
				}
			})
		}
	}
}

// What was missed by more than a batch is not made up for in a burst.
func TestPaceDoesNotBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: 100}
		var at []time.Duration
		start := time.Now()
		for i := range 20 {
			if err := p.wait(t.Context(), p.rate.batch()); err != nil {
				t.Fatal(err)
			}
			at = append(at, time.Since(start))
			if i == 4 {
				time.Sleep(time.Minute)
			}
		}
		if resumed := at[6] - at[5]; resumed != 0 {
			t.Errorf("the batch after the stop came %v late, want one to be caught up", resumed)
		}
		for i := 7; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap != 50*time.Millisecond {
				t.Errorf("batch %d came after %v, want 50ms", i, gap)
			}
		}
	})
}

func TestPaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		p := pace{rate: 1}
		if err := p.wait(ctx, 1); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(300*time.Millisecond, func() { cancel(enough) })
		start := time.Now()
		if err := p.wait(ctx, 1); !errors.Is(err, enough) || time.Since(start) != 300*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if err := p.wait(ctx, 1); !errors.Is(err, enough) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestUnpacedDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if took, _ := run(t, Unpaced, 100_000, func(int) time.Duration { return 0 }); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}
