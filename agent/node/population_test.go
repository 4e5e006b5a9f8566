package node

import (
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
)

// What the kernel counts in a namespace is what is found there, and nothing of the
// others; one that is gone holds nobody up.
func TestTallyOfNamespaces(t *testing.T) {
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Wire(a, "10.77.0.1/24", b, "10.77.0.2/24")
	b.Listen("tcp", "10.77.0.2:80")
	for range 3 {
		a.Dial("tcp", "10.77.0.2:80")
	}
	var p Populations
	tally := func(of ...uint32) map[uint32]int {
		found := make(map[uint32]int)
		if err := p.Tally(of, func(s *fact.Socket) { found[s.Netns]++ }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	all := p.Count()
	if all[a.Netns()] != 3 || all[b.Netns()] != 4 {
		t.Errorf("counted: %v", all)
	}
	if found := tally(a.Netns()); len(found) != 1 || found[a.Netns()] != 3 {
		t.Errorf("of one: %v", found)
	}
	if found := tally(a.Netns(), b.Netns()); found[a.Netns()] != 3 || found[b.Netns()] != 4 {
		t.Errorf("of both: %v", found)
	}
	empty := l.Host("c")
	gone := empty.Netns()
	p = Populations{}
	p.Count()
	vanish(t, empty)
	if found := tally(gone, a.Netns()); found[a.Netns()] != 3 {
		t.Errorf("beside one that is gone: %v", found)
	}
}
