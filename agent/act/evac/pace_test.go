//go:build linux

package evac

import (
	"testing"
	"time"
)

// walk asks p every step, and returns how many were due by each end of a step.
func walk(p *pace, start time.Time, step time.Duration, left *int, until func(now time.Time, done int) bool) (took time.Duration) {
	done := 0
	for now := start; ; {
		now = now.Add(step)
		n := p.due(now, *left)
		*left -= n
		done += n
		if until(now, done) {
			return now.Sub(start)
		}
	}
}

func TestPaceIsEven(t *testing.T) {
	const flows, within = 4224, 24 * time.Second
	start := time.Unix(0, 0)
	for _, step := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 700 * time.Millisecond} {
		p, left := pace{last: start, end: start.Add(within)}, flows
		took := walk(&p, start, step, &left, func(now time.Time, done int) bool {
			want := float64(flows) * float64(min(now.Sub(start), within)) / float64(within)
			if diff := float64(done) - want; diff > 2 || diff < -2 {
				t.Errorf("every %v: %d after %v, want %.1f", step, done, now.Sub(start), want)
			}
			return left == 0
		})
		if took < within-within/20 || took > within+step {
			t.Errorf("every %v: took %v, want %v", step, took, within)
		}
	}
}

// Flows that begin meanwhile do not make it late.
func TestPaceOfMore(t *testing.T) {
	start := time.Unix(0, 0)
	p, left := pace{last: start, end: start.Add(10 * time.Second)}, 1000
	more := false
	took := walk(&p, start, 20*time.Millisecond, &left, func(now time.Time, done int) bool {
		if !more && now.Sub(start) >= 5*time.Second {
			more = true
			left += 500
		}
		return more && left == 0
	})
	if took < 9500*time.Millisecond || took > 10*time.Second+20*time.Millisecond {
		t.Errorf("took %v, want 10s", took)
	}
}

func TestPaceWithoutEnd(t *testing.T) {
	start := time.Unix(0, 0)
	p, left := pace{last: start}, Rate
	took := walk(&p, start, 5*time.Millisecond, &left, func(now time.Time, done int) bool { return left == 0 })
	if took < 950*time.Millisecond || took > 1050*time.Millisecond {
		t.Errorf("%d took %v, want 1s", Rate, took)
	}
	if n := p.due(start.Add(time.Hour), 10*mostAtOnce); n != mostAtOnce {
		t.Errorf("%d are due after an hour, want no more than %d", n, mostAtOnce)
	}
}

func TestPaceWhenTimeIsUp(t *testing.T) {
	start := time.Unix(0, 0)
	p := pace{last: start, end: start.Add(time.Second)}
	if n := p.due(start.Add(2*time.Second), 7); n != 7 {
		t.Errorf("%d are due after the end, want all 7", n)
	}
	if n := p.due(start.Add(3*time.Second), 0); n != 0 {
		t.Errorf("%d of none are due", n)
	}
}
