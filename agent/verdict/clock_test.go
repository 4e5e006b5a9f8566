package verdict

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"
)

// A machine's clock is set while peers are being watched: no peer dies of it,
// and none that died is forgotten. Only the monotonic readings decide.
func TestDetectorDoesNotMindTheClock(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 3, 20, 200} {
		var steady, jumping Detector
		start, set := time.Now(), rand.New(rand.NewPCG(1, 2))
		l, shift := newLossy(7, 0.2, conns), time.Duration(0)
		const death, end = 30 * time.Second, 120 * time.Second
		fell := false
		for at := step; at < end; at += step {
			if l.advance(at); at >= death {
				l.loss = 1
			}
			if set.IntN(4) == 0 {
				shift = time.Duration(set.Int64N(int64(48*time.Hour))) - 24*time.Hour
			}
			m := bare(l.look())
			m.Time = start.Add(at)
			want := steady.Look(m, step)
			m.Time = clockSet(m.Time, shift)
			got := jumping.Look(m, step)
			if len(got) != len(want) || len(got) > 0 && (got[0].Verdict != want[0].Verdict || got[0].Silent != want[0].Silent) {
				t.Fatalf("%d connections, after %v: got %+v, want %+v", conns, at, got, want)
			}
			fell = fell || len(got) > 0
		}
		if conns >= 20 && !fell {
			t.Errorf("%d connections: nobody says that the peer died", conns)
		}
	}
}

// clockSet is what time.Now would have returned at t if the clock had been set
// by so much: another time of day with the same monotonic reading. There is no
// other way to make one, see the comment of time.Time's fields; that it worked is
// checked.
func clockSet(t time.Time, by time.Duration) time.Time {
	u := t
	by = by.Truncate(time.Second)
	*(*uint64)(unsafe.Pointer(&u)) += uint64(by/time.Second) << 30
	if u.Sub(t) != 0 || u.Round(0).Sub(t.Round(0)) != by {
		panic("time.Time is not what it was when this was written")
	}
	return u
}
