package show

import (
	"fmt"
	"strings"
)

const (
	mostEdits   = 1000 // more than this in common is not looked for: it takes the square of it
	contextSize = 3
)

// Unified returns how one text differs from another, in the form of diff -u.
// Texts that differ in more than a thousand lines are only said to.
func Unified(fromName, toName, from, to string) string {
	if from == to {
		return ""
	}
	a, b := linesOf(from), linesOf(to)
	header := fmt.Sprintf("--- %s\n+++ %s\n", fromName, toName)
	edits, ok := compare(a, b)
	if !ok {
		return header + fmt.Sprintf("(they differ in more than %d lines)\n", mostEdits)
	}
	return header + hunks(edits)
}

func linesOf(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if body, ended := strings.CutSuffix(line, "\n"); ended {
			lines = append(lines, body)
		} else {
			lines = append(lines, line+" (without an end of line)")
		}
	}
	return lines
}

// edit is one line that stays (' '), goes ('-') or comes ('+').
type edit struct {
	kind byte
	text string
}

// compare finds the fewest edits, as in E. Myers, "An O(ND) Difference Algorithm
// and Its Variations", 1986.
func compare(a, b []string) (edits []edit, ok bool) {
	most := min(len(a)+len(b), mostEdits)
	furthest := make([]int, 2*most+3) // by diagonal: how far into a
	at := func(k int) *int { return &furthest[k+most+1] }
	var trace [][]int // those after each number of edits, of its diagonals -d to d
	for d := 0; d <= most; d++ {
		for k := -d; k <= d; k += 2 {
			x := *at(k - 1) + 1
			if k == -d || k != d && *at(k - 1) < *at(k + 1) {
				x = *at(k + 1)
			}
			y := x - k
			for x < len(a) && y < len(b) && x >= 0 && y >= 0 && a[x] == b[y] {
				x, y = x+1, y+1
			}
			*at(k) = x
			if x >= len(a) && y >= len(b) {
				return walkBack(a, b, trace, k, d), true
			}
		}
		trace = append(trace, append([]int(nil), furthest[most+1-d:most+2+d]...))
	}
	return nil, false
}

// walkBack collects the edits from the end to the beginning.
func walkBack(a, b []string, trace [][]int, k, d int) []edit {
	var reversed []edit
	x, y := len(a), len(b)
	for ; d > 0; d-- {
		before := trace[d-1]
		reach := func(k int) int {
			if i := k + d - 1; i >= 0 && i < len(before) {
				return before[i]
			}
			return -1
		}
		from := k - 1
		if k == -d || k != d && reach(k-1) < reach(k+1) {
			from = k + 1
		}
		startX := reach(from)
		startY := startX - from
		for x > startX && y > startY {
			x, y = x-1, y-1
			reversed = append(reversed, edit{' ', a[x]})
		}
		if x > startX {
			x--
			reversed = append(reversed, edit{'-', a[x]})
		} else {
			y--
			reversed = append(reversed, edit{'+', b[y]})
		}
		k = from
	}
	for x > 0 {
		x--
		reversed = append(reversed, edit{' ', a[x]})
	}
	edits := make([]edit, 0, len(reversed))
	for i := len(reversed) - 1; i >= 0; i-- {
		edits = append(edits, reversed[i])
	}
	return edits
}

// hunks writes what changed with a few lines around it.
func hunks(edits []edit) string {
	var b strings.Builder
	fromLine, toLine := 1, 1
	for i := 0; i < len(edits); {
		if edits[i].kind == ' ' && !changesSoon(edits[i:]) {
			i, fromLine, toLine = i+1, fromLine+1, toLine+1
			continue
		}
		end := i
		for same := 0; end < len(edits) && same <= 2*contextSize; end++ {
			if same++; edits[end].kind != ' ' {
				same = 0
			}
		}
		for end > i && trailing(edits[i:end]) > contextSize {
			end--
		}
		var body strings.Builder
		from, to := 0, 0
		for _, e := range edits[i:end] {
			if e.kind != '+' {
				from++
			}
			if e.kind != '-' {
				to++
			}
			fmt.Fprintf(&body, "%c%s\n", e.kind, e.text)
		}
		fmt.Fprintf(&b, "@@ -%s +%s @@\n%s", span(fromLine, from), span(toLine, to), body.String())
		fromLine, toLine, i = fromLine+from, toLine+to, end
	}
	return b.String()
}

// changesSoon says whether a change is so near that this line is shown with it.
func changesSoon(edits []edit) bool {
	for _, e := range edits[:min(len(edits), contextSize+1)] {
		if e.kind != ' ' {
			return true
		}
	}
	return false
}

// trailing counts the lines at the end that stay.
func trailing(edits []edit) (n int) {
	for n < len(edits) && edits[len(edits)-1-n].kind == ' ' {
		n++
	}
	return n
}

func span(line, count int) string {
	if count == 0 {
		line--
	}
	return fmt.Sprintf("%d,%d", line, count)
}
