package daemon

import (
	"slices"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// Of too many calls those stay that wait for sure.
func TestMostSure(t *testing.T) {
	all := []verdict.Waiting{{PID: 1}, {PID: 2, Sure: true}, {PID: 3}, {PID: 4, Sure: true}, {PID: 5, Sure: true}}
	for most, want := range map[int][]int32{9: {1, 2, 3, 4, 5}, 4: {1, 2, 4, 5}, 3: {2, 4, 5}, 2: {2, 4}, 0: {}} {
		var got []int32
		for _, w := range mostSure(slices.Clone(all), most) {
			got = append(got, w.PID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d of them: %v, want %v", most, got, want)
		}
	}
}

// Programs that wait are looked at first, the others in turn; who is gone is
// forgotten, and what is old does not count.
func TestCallTurns(t *testing.T) {
	prompt := fact.Goroutine{ID: 1, State: "chan receive", Stack: []fact.Call{{Func: "golang.org/x/crypto/ssh.(*mux).openChannel"}}}
	var l callLook
	now := time.Now()
	callers := []int32{1, 2, 3, 4}
	if got := l.turns(callers, map[int32]bool{3: true}); !slices.Equal(got, []int32{3, 1, 2, 4}) {
		t.Errorf("who waits by its sockets comes first: %v", got)
	}
	l.remember(now, callers, []fact.Goroutines{{PID: 3}, {PID: 1}, {PID: 2, Parked: []fact.Goroutine{prompt}}})
	if got := l.turns(callers, nil); !slices.Equal(got, []int32{2, 4, 1, 3}) {
		t.Errorf("then who waits by its goroutines, and who was not looked at: %v", got)
	}
	got := l.remember(now.Add(callsSlack+time.Second), []int32{2, 4}, []fact.Goroutines{{PID: 4}})
	if len(got) != 1 || got[0].PID != 4 || len(l.last) != 2 {
		t.Errorf("what is old, or gone: %+v, %v", got, l.last)
	}
}
