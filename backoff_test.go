package lifeline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline"
)

func TestBackoff(t *testing.T) {
	b := lifeline.Backoff{First: time.Second, Longest: 10 * time.Second}
	for round := range 2 {
		var sums [70]time.Duration
		const samples = 300
		for range samples {
			b.Reset()
			for i := range sums {
				wait := b.Next()
				if most := min(time.Second<<min(i, 30), 10*time.Second); wait < 0 || wait > most {
					t.Fatalf("wait %d is %v, at most %v", i, wait, most)
				}
				sums[i] += wait
			}
		}
		for i, sum := range sums { // of full jitter the mean is half
			most := min(time.Second<<min(i, 30), 10*time.Second)
			if mean := sum / samples; mean < most/3 || mean > most*2/3 {
				t.Errorf("round %d: wait %d is %v in the mean, of at most %v", round, i, mean, most)
			}
		}
	}
	b.Reset()
	if wait := b.After(time.Minute); wait < time.Minute || wait > time.Minute+time.Second {
		t.Errorf("told to come back in a minute, waits %v", wait)
	}
	var zero lifeline.Backoff
	if wait := zero.Next(); wait > 500*time.Millisecond {
		t.Errorf("first wait %v", wait)
	}
}

func TestBackoffWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := lifeline.Backoff{First: time.Hour, Longest: time.Hour}
		began := time.Now()
		if err := b.Wait(t.Context()); err != nil || time.Since(began) > time.Hour {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		began = time.Now()
		if err := b.WaitAfter(t.Context(), time.Hour); err != nil || time.Since(began) < time.Hour || time.Since(began) > 2*time.Hour {
			t.Errorf("told to come back in an hour: %v after %v", err, time.Since(began))
		}
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if err := b.Wait(ctx); !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
}
