package node

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	for cost, calmly := range map[time.Duration]time.Duration{
		0: quickest, time.Millisecond: quickest, 2 * time.Millisecond: 250 * time.Millisecond, 4 * time.Millisecond: 2 * time.Second, 100 * time.Millisecond: slowest,
	} {
		p := newPace()
		if got := p.next(cost, false); got != calmly {
			t.Errorf("a look that costs %v: the next in %v, want %v", cost, got, calmly)
		}
		if got := p.next(cost, true); got != quickest {
			t.Errorf("a look that costs %v and shows something suspicious: the next in %v", cost, got)
		}
	}
}

// However long something is suspicious, a watch takes 1 % in the long run; and
// after a calm while it is quick again.
func TestPaceKeepsItsBudget(t *testing.T) {
	const cost = 8 * time.Millisecond
	p := newPace()
	var took, used time.Duration
	for took < time.Hour {
		took += p.next(cost, true)
		used += cost
	}
	if share := float64(used) / float64(took); share > 0.0102 || share < 0.009 {
		t.Errorf("an hour of suspicion took %.2f %% of a processor", share*100)
	}
	for took = 0; took < 10*time.Minute; {
		took += p.next(cost, false)
	}
	quick := 0
	for p.next(cost, true) == quickest {
		quick++
	}
	if quick < 40 {
		t.Errorf("after calm minutes only %d quick looks", quick)
	}
}

// Where looks come seldom there are glimpses between them, at a price.
func TestPaceOfGlimpses(t *testing.T) {
	p := newPace()
	if pause := p.next(time.Millisecond, false); p.glimpse(pause) < pause {
		t.Error("a glimpse before a look that comes soon")
	}
	for peek, most := range map[time.Duration]float64{2 * time.Millisecond: 0.016, 10 * time.Millisecond: 0.0095} {
		p = newPace()
		const look = 12 * time.Millisecond
		var took, used time.Duration
		for took < time.Hour {
			left := p.next(look, false)
			took, used = took+left, used+look
			for apart := p.glimpse(left); apart < left; apart = p.glimpse(left) {
				p.glimpsed(peek)
				left, used = left-apart, used+peek
			}
		}
		if share := float64(used) / float64(took); share > most || p.glimpse(slowest) > 2*time.Second {
			t.Errorf("glimpses of %v: %.2f %% of a processor, one each %v", peek, share*100, p.glimpse(slowest))
		}
	}
}
