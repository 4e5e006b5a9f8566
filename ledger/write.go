package ledger

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/bound"
)

// Loss tells where something was opened that nobody closed, as the garbage
// collector found. Package net closes such connections when it finds them, which
// may be late: until then they take up descriptors.
type Loss struct {
	Count int     `json:"count"`
	Stack []Frame `json:"stack"` // as in [Entry]
}

// Dropped returns what nobody closed and nobody can close any more, since the
// process began, by where it was opened, the most first.
func Dropped() (all []Loss) {
	for s, count := range losses() {
		all = append(all, Loss{count, s.frames()})
	}
	slices.SortStableFunc(all, func(a, b Loss) int { return cmp.Compare(b.Count, a.Count) })
	return all
}

func losses() map[*stack]int {
	book.mu.Lock()
	defer book.mu.Unlock()
	count := make(map[*stack]int)
	for _, s := range book.stacks.byHash {
		for ; s != nil; s = s.other {
			if s.dropped > 0 {
				count[s] = s.dropped
			}
		}
	}
	return count
}

// WriteJSON writes all that is open, and was dropped, as one JSON document.
func WriteJSON(w io.Writer) error {
	document := struct {
		Schema  string    `json:"schema"`
		Time    time.Time `json:"time"`
		Open    []Entry   `json:"open"`
		Dropped []Loss    `json:"dropped"`
	}{"lifeline/v1", time.Now(), Open(), append([]Loss{}, Dropped()...)}
	return json.NewEncoder(w).Encode(document)
}

// A group is what was opened by the same stack to the same peer, in the same
// scope.
type group struct {
	first Entry
	count int
	used  time.Time // the last of all
}

// groups returns entries in groups, the largest first.
func groups(all []Entry) []*group {
	type kind struct {
		scope, peer string
		stack       *stack
		asked       uintptr
	}
	known := make(map[kind]*group)
	var list []*group
	for _, e := range all {
		name := kind{e.Scope, e.peer(), e.stack, e.asked}
		g := known[name]
		if g == nil {
			g = &group{first: e}
			known[name], list = g, append(list, g)
		}
		g.count++
		if e.Used.After(g.used) {
			g.used = e.Used
		}
	}
	slices.SortStableFunc(list, func(a, b *group) int { return cmp.Compare(b.count, a.count) })
	return list
}

// Write tells people what is open: a line for each group that the same stack
// opened to the same peer in the same scope, the largest first, and then the
// stacks.
func Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	now, open, lost := time.Now(), Open(), Dropped()
	all := groups(open)
	fmt.Fprintf(out, "open: %d, in groups: %d\n\n", len(open), len(all))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tCOUNT\tOPENED BY\tPEER\tSCOPE\tOLDEST\tNONE USED FOR")
	for i, g := range all {
		e := g.first
		fmt.Fprintf(table, "[%d]\t%d\t%s\t%s\t%s\t%s\t%s\n", i+1, g.count, e.Site(), e.peer(), cmp.Or(e.Scope, "-"),
			bound.Format(now.Sub(e.Opened)), bound.Format(now.Sub(g.used)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i, g := range all {
		fmt.Fprintf(out, "\n[%d] %s of %s\n", i+1, g.first.Op, g.first.peer())
		if g.first.Asked != nil {
			fmt.Fprint(out, "asked for in its scope by\n")
			writeStack(out, []Frame{*g.first.Asked})
			fmt.Fprint(out, "opened by\n")
		}
		writeStack(out, g.first.Stack)
	}
	for _, d := range lost {
		fmt.Fprintf(out, "\n%d that nobody closed and nobody can close any more were opened by\n", d.Count)
		writeStack(out, d.Stack)
	}
	return out.Flush()
}

// peer says to whom something is open.
func (e Entry) peer() string {
	switch {
	case e.Remote != "":
		return e.Remote
	case e.Op == "listen":
		return cmp.Or(e.Local, "(listening)")
	}
	return cmp.Or(e.Local, "("+cmp.Or(e.Network, "no address")+")")
}

func writeStack(w io.Writer, stack []Frame) {
	for _, f := range stack {
		fmt.Fprintf(w, "\t%s\n\t\t%s:%d\n", f.Function, f.File, f.Line)
	}
}
