package node

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	for cost, calmly := range map[time.Duration]time.Duration{
		0: quickest, time.Millisecond: quickest, 8 * time.Millisecond: time.Second, 100 * time.Millisecond: slowest,
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
