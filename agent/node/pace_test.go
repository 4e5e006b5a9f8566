package node

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	for cost, want := range map[time.Duration][2]time.Duration{
		0:                     {quickest, quickest},
		time.Millisecond:      {quickest, 4 * time.Second},
		4 * time.Millisecond:  {500 * time.Millisecond, 16 * time.Second},
		50 * time.Millisecond: {slowest, 200 * time.Second},
		time.Second:           {slowest, slowestTold},
	} {
		for i, told := range []bool{false, true} {
			p := pace{told: told, saved: purse}
			if got := p.next(0, cost, shown{}); got != want[i] {
				t.Errorf("a look that costs %v, told %v: the next in %v, want %v", cost, told, got, want[i])
			}
			if got := p.next(0, cost, shown{suspicious: true}); cost < purse && got != max(quickest, min(spread*cost, spreadMost)) {
				t.Errorf("a look that costs %v and shows something suspicious: the next in %v", cost, got)
			}
		}
	}
}

// The kernel does not tell who is back: while somebody is silent, looks at the
// sockets of that peer are not as far apart as those at all.
func TestPaceForWhoIsBack(t *testing.T) {
	p := pace{told: true, saved: purse}
	p.next(0, 200*time.Millisecond, shown{})
	for cost, want := range map[time.Duration]time.Duration{10 * time.Millisecond: 5 * time.Second, time.Second: slowestUntold} {
		p.narrow = 0
		if got := p.next(0, cost, shown{narrow: true, untold: true}); got != want {
			t.Errorf("a look at one peer that costs %v: the next in %v, want %v", cost, got, want)
		}
	}
	if got := p.next(0, 10*time.Millisecond, shown{narrow: true}); got != slowestTold {
		t.Errorf("nobody is doubted any more: the next in %v", got)
	}
}

// However long something is suspicious, a watch takes 1 % in the long run; and
// after a calm while it is quick again.
func TestPaceKeepsItsBudget(t *testing.T) {
	for _, told := range []bool{false, true} {
		const cost = 8 * time.Millisecond
		p := pace{told: told, saved: purse}
		var took, used, pause time.Duration
		for took < time.Hour {
			pause = p.next(pause, cost, shown{suspicious: true})
			took += pause
			used += cost
		}
		if share := float64(used) / float64(took); share > 0.0102 || share < 0.009 {
			t.Errorf("told %v: an hour of suspicion took %.2f %% of a processor", told, share*100)
		}
		for took = 0; took < 10*time.Minute; took += pause {
			pause = p.next(pause, cost, shown{})
		}
		quick := 0
		for p.next(quickest, cost, shown{suspicious: true}) == quickest {
			quick++
		}
		if quick < 40 {
			t.Errorf("told %v: after calm minutes only %d quick looks", told, quick)
		}
	}
}

// What is saved for is not over before a verdict can fall, however much a look
// costs.
func TestPaceLastsForAVerdict(t *testing.T) {
	for _, cost := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond, 150 * time.Millisecond} {
		p := pace{told: true, saved: purse}
		p.next(time.Minute, cost, shown{})
		over, looks := time.Duration(0), 0
		for pause := time.Duration(0); pause < time.Second && looks < 100; looks++ { // those that cost little never end
			over += pause
			pause = p.next(pause, cost, shown{suspicious: true})
		}
		if over < time.Second {
			t.Errorf("looks that cost %v: %d within %v, and then none for long", cost, looks, over)
		}
	}
}
