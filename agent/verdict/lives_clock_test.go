package verdict

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The clock of a machine is set, forwards and backwards, by up to two days, while
// findings come and go: each has the same life as if it had not been, is held
// open as long, and is forgotten at the same time. Only the monotonic readings
// decide.
func TestLivesDoNotMindTheClock(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	start := time.Now()
	var steady, jumping Lives
	shift, flapped, forgotten, most := time.Duration(0), false, false, 0
	for at := time.Duration(0); at < 12*time.Hour; at += time.Duration(1+r.IntN(120)) * time.Second {
		if r.IntN(10) == 0 {
			shift = time.Duration(r.Int64N(int64(96*time.Hour))) - 48*time.Hour
		}
		var found []Finding
		for i := range 4 { // some often, some rarely
			if r.IntN(2+30*i) == 0 {
				found = append(found, Finding{Code: "S005", Promise: Silence, Severity: Warn, Subject: Values{{"netns", i}}})
			}
		}
		now := start.Add(at)
		steady.Look(now, "census", found)
		jumping.Look(clockSet(now, shift), "census", found)
		want, got := steady.List(now), jumping.List(clockSet(now, shift))
		same := slices.EqualFunc(want, got, func(a, b Life) bool {
			return a.ID == b.ID && a.Times == b.Times && a.Flapping == b.Flapping && a.Resolved.OK == b.Resolved.OK && a.First.Sub(b.First) == 0 && a.Last.Sub(b.Last) == 0
		})
		if !same {
			t.Fatalf("after %v, with the clock set by %v: got %+v, want %+v", at, shift, got, want)
		}
		flapped = flapped || slices.ContainsFunc(want, func(l Life) bool { return l.Flapping })
		forgotten, most = forgotten || len(want) < most, max(most, len(want))
	}
	if !flapped || !forgotten {
		t.Errorf("flapped %t, forgotten %t: the story shows too little", flapped, forgotten)
	}
}
