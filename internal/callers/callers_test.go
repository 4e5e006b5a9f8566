package callers_test

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lifeline-go/lifeline/internal/callers"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

//go:noinline
func deep(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deep(n-1, f)
	runtime.KeepAlive(n)
}

// fill returns the key of its caller, and what runtime.Callers says.
func fill() (k callers.Key, n int, logical []uintptr) {
	n = k.Fill()
	logical = make([]uintptr, 100)
	return k, n, logical[:runtime.Callers(2, logical)]
}

// known reports whether this architecture has keys.
func known(t *testing.T) bool {
	t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		if _, n, _ := fill(); n != 0 {
			t.Errorf("%d addresses on %s", n, runtime.GOARCH)
		}
		return false
	}
	return true
}

// names returns the functions of return addresses, inlined ones as what they
// were inlined into.
func names(pcs []uintptr) (all []string) {
	for _, pc := range pcs {
		entry := runtime.FuncForPC(pc - 1).Entry()
		if name := runtime.FuncForPC(entry).Name(); !strings.Contains(name, ".gowrap") { // by the compiler, and for its own use
			all = append(all, name)
		}
	}
	return slices.Compact(all)
}

// What frame pointers lead to are the functions that the runtime knows of.
func TestSameFunctions(t *testing.T) {
	if !known(t) {
		return
	}
	for _, depth := range []int{0, 1, 5, 15} {
		deep(depth, func() {
			k, n, logical := fill()
			if n == 0 || n == callers.Most {
				t.Fatalf("%d addresses", n)
			}
			got, want := names(k[:n]), names(logical)
			if len(got) < 3 || !slices.Equal(got[len(got)-3:], want[len(want)-3:]) {
				t.Errorf("depth %d: got %q, want %q", depth, got, want)
			}
		})
	}
}

func TestLimit(t *testing.T) {
	if !known(t) {
		return
	}
	deep(2*callers.Most, func() {
		if _, n, _ := fill(); n != callers.Most {
			t.Errorf("%d addresses, and %d are the most", n, callers.Most)
		}
	})
}

// The same stack has the same key, and another line another one.
func TestKeysTellStacksApart(t *testing.T) {
	if !known(t) {
		return
	}
	var keys []callers.Key
	for range 2 {
		k, _, _ := fill()
		keys = append(keys, k)
	}
	other, _, _ := fill()
	if keys[0] != keys[1] || keys[0] == other {
		t.Error("keys do not tell stacks apart")
	}
}

// Stacks that grow, shrink and are moved all the time are walked too.
func TestMovingStacks(t *testing.T) {
	stop, collecting := make(chan struct{}), sync.WaitGroup{}
	collecting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	var walking sync.WaitGroup
	for g := range 8 {
		walking.Go(func() {
			for i := range 200 {
				deep((g*37+i*13)%200, func() {
					var k callers.Key
					for range 20 {
						k.Fill()
					}
				})
			}
		})
	}
	walking.Wait()
	close(stop)
	collecting.Wait()
}

func BenchmarkFill(b *testing.B) {
	deep(10, func() {
		var k callers.Key
		for b.Loop() {
			k.Fill()
		}
	})
}

func BenchmarkRuntime(b *testing.B) {
	deep(10, func() {
		var pcs [callers.Most]uintptr
		for b.Loop() {
			runtime.Callers(1, pcs[:])
		}
	})
}
