package goroutines

import (
	"slices"
	"testing"
	"time"
)

// collections makes the runtime's list: ends by both clocks, as they were when
// each was written.
func collections(ends ...[2]time.Duration) []uint64 {
	w := make([]uint64, statsWords)
	for i, e := range ends {
		w[pauseEnd+i%mostKept] = uint64(e[1])
		w[lastUnix], w[lastNano] = uint64(e[1]), uint64(e[0])
	}
	w[numGC] = uint64(len(ends))
	return w
}

func TestKept(t *testing.T) {
	const s, epoch = time.Second, 1_790_000_000 * time.Second
	even := collections([2]time.Duration{100 * s, epoch + 100*s}, [2]time.Duration{220 * s, epoch + 220*s}, [2]time.Duration{340 * s, epoch + 340*s})
	jumped := collections([2]time.Duration{100 * s, epoch + 100*s}, [2]time.Duration{220 * s, epoch + 220*s}, [2]time.Duration{340 * s, epoch + 3940*s})
	var many [][2]time.Duration
	for i := range time.Duration(1000) {
		many = append(many, [2]time.Duration{(i + 1) * s, epoch + (i+1)*s})
	}
	for _, c := range []struct {
		name  string
		stats []uint64
		given time.Duration // to a goroutine, at the beginning of a pause
		want  time.Duration // the collection that it surely waited at
	}{
		{"seen by the second", even, 100*s - time.Millisecond, 220 * s},
		{"seen by the third", even, 220*s - time.Millisecond, 340 * s},
		{"since the last, which is not over", even, 340*s - time.Millisecond, 0},
		{"never seen", even, 0, 0},
		{"the clock was set between the last two", jumped, 100*s - time.Millisecond, 340 * s},
		{"longer ago than the list", collections(many...), s - time.Millisecond, 745 * s},
	} {
		given := []int64{int64(c.given)}
		l := timeline(append(slices.Clone(given), kept(c.stats, given)...))
		slices.Sort(l)
		if got := l.after(int64(c.given)); got != int64(c.want) {
			t.Errorf("%s: %v, want %v; %v", c.name, time.Duration(got), c.want, l[:min(len(l), 5)])
		}
	}
}
