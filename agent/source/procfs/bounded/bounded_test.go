package bounded

import (
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestReturns(t *testing.T) {
	var c Calls
	cause := errors.New("cause")
	value, err := Do(&c, "a", func() (int, error) { return 7, cause })
	if value != 7 || err != cause {
		t.Fatalf("got %v, %v", value, err)
	}
}

func TestHangsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Calls
		release := make(chan struct{})
		hang := func() (int, error) { <-release; return 1, nil }

		start := time.Now()
		if _, err := Do(&c, "a", hang); !errors.Is(err, ErrHung) {
			t.Fatalf("got %v, want ErrHung", err)
		}
		if took := time.Since(start); took != Patience {
			t.Fatalf("took %v, want %v", took, Patience)
		}
		start = time.Now()
		if _, err := Do(&c, "a", hang); !errors.Is(err, ErrHung) || time.Since(start) != 0 {
			t.Fatalf("the second call: %v after %v, want ErrHung at once", err, time.Since(start))
		}
		if value, err := Do(&c, "b", func() (int, error) { return 2, nil }); value != 2 || err != nil {
			t.Fatalf("another key: %v, %v", value, err)
		}

		close(release)
		synctest.Wait()
		if value, err := Do(&c, "a", hang); value != 1 || err != nil {
			t.Fatalf("after it returned: %v, %v", value, err)
		}
	})
}

func TestBoundOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Calls
		release := make(chan struct{})
		var calls atomic.Int32
		start := time.Now()
		for i := range 100 {
			_, err := Do(&c, strconv.Itoa(i), func() (int, error) { calls.Add(1); <-release; return 0, nil })
			if !errors.Is(err, ErrHung) {
				t.Fatalf("call %d: %v", i, err)
			}
		}
		if took := time.Since(start); took != MostHung*Patience || calls.Load() != MostHung {
			t.Errorf("100 hanging calls: %d made, %v; want %d, %v", calls.Load(), took, MostHung, MostHung*Patience)
		}
		close(release)
	})
}

// A call that returns must not strike out another of the same key that hangs.
func TestSameKeyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Calls
		release := make(chan struct{})
		go Do(&c, "a", func() (int, error) { <-release; return 0, nil })
		if _, err := Do(&c, "a", func() (int, error) { time.Sleep(Patience / 2); return 0, nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(Patience)
		if !c.refuses("a") {
			t.Error("the call that hangs was forgotten")
		}
		close(release)
		synctest.Wait()
		if c.refuses("a") || len(c.hung) != 0 {
			t.Errorf("left: %v", c.hung)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	var c Calls
	for b.Loop() {
		Do(&c, "a", func() (int, error) { return 0, nil })
	}
}
