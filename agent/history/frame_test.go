package history

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/lifeline-go/lifeline/agent/state"
)

func TestFold(t *testing.T) {
	many := make([]state.Group, mostGroups+10)
	for i := range many {
		many[i].Count = 1 + i
	}
	folded := fold(many)
	if last := folded[mostGroups]; len(folded) != mostGroups+1 || folded[0].Count != mostGroups+10 || last.Peer != Others || last.Count != 55 || many[0].Count != 1 {
		t.Errorf("%d groups, first %v, last %v", len(folded), folded[0], last)
	}
	for i := range many { // who is folded must not change from record to record
		many[i] = state.Group{Series: state.Series{Peer: fmt.Sprint(i)}, Count: 1}
	}
	folded = fold(many)
	slices.Reverse(many)
	if !slices.Equal(folded, fold(many)) {
		t.Error("of equal groups others are folded when they come in another order")
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(encode(changes(nil, nil, values{1: 5, 2: 1, 300: 4225})))
	f.Add(encode(changes(nil, values{1: 5, 2: 1, 300: 4225}, values{1: 6, 9: 1})))
	f.Add(bytes.Repeat([]byte{255}, 20))
	f.Fuzz(func(t *testing.T, data []byte) {
		v := values{1: 5, 2: 1}
		before := maps.Clone(v)
		if v.apply(data) != nil {
			return
		}
		for id, n := range v {
			if id <= 0 || n <= 0 {
				t.Fatalf("series %d has %d", id, n)
			}
		}
		if err := before.apply(encode(changes(nil, before, v))); err != nil || !maps.Equal(before, v) {
			t.Fatalf("%v is not %v: %v", before, v, err)
		}
	})
}
