package daemon

import (
	"testing"
	"time"
)

// The first looks are not paid for; in the long run a source takes no more than it
// may.
func TestPurse(t *testing.T) {
	const rest = 200
	var p purse
	begin := time.Now()
	now, worked := begin, time.Duration(0)
	look := func(cost time.Duration) (wait time.Duration) {
		now, worked = now.Add(cost), worked+cost
		wait = p.pay(now, cost, rest, 10*time.Second, rare)
		now = now.Add(wait)
		return wait
	}
	for range 2 {
		if wait := look(200 * time.Millisecond); wait != 10*time.Second {
			t.Errorf("it waits %v while the purse is not empty", wait)
		}
	}
	for now.Sub(begin) < 6*time.Hour {
		look(200 * time.Millisecond)
	}
	if most := purseful + now.Sub(begin)/rest + 300*time.Millisecond; worked > most {
		t.Errorf("it worked for %v, want %v at the most", worked, most)
	}
	if least := now.Sub(begin) / rest * 9 / 10; worked < least {
		t.Errorf("it worked for %v, and may %v", worked, least)
	}
	if wait := look(time.Hour); wait != rare {
		t.Errorf("it waits %v after a look that took an hour, want %v", wait, rare)
	}
	now = now.Add(time.Hour) // nothing to do, and the purse fills
	for range 2 {
		if wait := look(200 * time.Millisecond); wait != 10*time.Second {
			t.Errorf("it waits %v while the purse is not empty again", wait)
		}
	}
	now = begin // the clock of a test may do that
	if wait := look(time.Millisecond); wait < 10*time.Second || wait > rare {
		t.Errorf("it waits %v", wait)
	}
}
