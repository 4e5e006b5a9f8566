package daemon

import (
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Rates are of namespaces that were there all the time; what goes back is
// another one with the same number.
func TestRates(t *testing.T) {
	at := time.Now()
	first := countedAt{at, map[uint32]fact.TCPCounts{1: {Opened: 100, Accepted: 10, Reset: 5, Resent: 7}, 2: {Opened: 1000, Accepted: 1000}}}
	last := countedAt{at.Add(10 * time.Second), map[uint32]fact.TCPCounts{1: {Opened: 130, Accepted: 20, Reset: 6, Resent: 7}, 2: {Opened: 4, Reset: 3}, 3: {Opened: 1 << 40}}}
	r := ratesOf(&first, &last)
	if r.opened == nil || *r.opened != 4 || *r.resets != 0.1 || *r.resent != 0 {
		t.Errorf("%v %v %v a second", *r.opened, *r.resets, *r.resent)
	}
	if r := ratesOf(&first, &first); r.opened != nil {
		t.Error("a rate over no time")
	}
}

func TestFullest(t *testing.T) {
	if fullest([]fact.Conntrack{{Count: fact.Seen(7)}}) != nil {
		t.Error("a table without a limit is full to some part")
	}
	tables := []fact.Conntrack{{Count: fact.Seen(10), Max: fact.Seen(100)}, {Count: fact.Seen(90), Max: fact.Seen(100)}, {Count: fact.Seen(1), Max: fact.Seen(100)}}
	if share := fullest(tables); share == nil || *share != 0.9 {
		t.Errorf("%v", share)
	}
	if n := entriesOf(tables); n != 101 {
		t.Errorf("%d entries", n)
	}
}
