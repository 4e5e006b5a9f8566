package top

import (
	"cmp"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/lifeline-go/lifeline/agent/verdict"
)

// column is one of a table.
type column struct {
	title string
	right bool
	flex  bool   // may be cut when there is too little room
	least int    // columns that a flex one keeps
	drop  int    // left out when there is too little room, the highest first; 0 = never
	name  string // by which connections are asked for in its order; "" = its rows are sorted here
	fixed bool   // nothing is sorted by it
}

// cell is a value in a column: its text, and the number by which it sorts, if it
// is one.
type cell struct {
	text   string
	number float64
	is     bool // it is a number
	lacks  bool // it is not known: sorted last
	style  style
}

func word(text string) cell { return cell{text: text} }

func painted(st style, text string) cell { return cell{text: text, style: st} }

func count(n int) cell { return cell{text: verdict.Number(n), number: float64(n), is: true} }

// measure is a number of seconds, or the like, with its words.
func measure(n *float64, text string) cell {
	if n == nil {
		return cell{text: text, is: true, lacks: true}
	}
	return cell{text: text, number: *n, is: true}
}

// row is one of a table. Its key is the same from state to state.
type row struct {
	key   string
	cells []cell
	also  string // what a filter finds beside the cells
}

// unsorted is the order in which states have things: worst first.
const unsorted = -1

// table is what the user has made of a list: where in it, which part, in which
// order.
type table struct {
	at     int    // the row that is chosen
	key    string // its key
	top    int    // the first row drawn
	by     int    // column; see unsorted
	back   bool   // the other way round
	filter string
}

// list is the rows of a table that are there to be drawn: those that the filter
// leaves, in order; or, of a long list, a part that begins at offset.
type list struct {
	columns []column
	rows    []row
	offset  int
	total   int // without the filter where the rows are all
	whole   int // before the filter
	by      int // the column it is sorted by
}

// arrange filters and sorts all rows of a list.
func (t *table) arrange(columns []column, rows []row) list {
	l := list{columns: columns, whole: len(rows), by: t.by}
	words := strings.Fields(strings.ToLower(t.filter))
	for _, r := range rows {
		if r.has(words) {
			l.rows = append(l.rows, r)
		}
	}
	l.total = len(l.rows)
	if t.by >= 0 && t.by < len(columns) {
		slices.SortStableFunc(l.rows, func(a, b row) int { return compare(&a.cells[t.by], &b.cells[t.by], t.back) })
	} else if t.back {
		slices.Reverse(l.rows)
	}
	return l
}

func (r *row) has(words []string) bool {
	if len(words) == 0 {
		return true
	}
	var all strings.Builder
	for i := range r.cells {
		all.WriteString(r.cells[i].text)
		all.WriteByte(' ')
	}
	all.WriteString(r.also)
	text := strings.ToLower(all.String())
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// compare orders numbers from the largest and texts from A; what is not known is
// last either way.
func compare(a, b *cell, back bool) int {
	if a.lacks != b.lacks {
		if a.lacks {
			return 1
		}
		return -1
	}
	order := 0
	if a.is && b.is {
		order = cmp.Compare(b.number, a.number)
	} else {
		order = strings.Compare(strings.ToLower(a.text), strings.ToLower(b.text))
	}
	if back {
		return -order
	}
	return order
}

// settle finds the chosen row again after the list has changed, and keeps it in
// sight on so many lines.
func (t *table) settle(l *list, lines int) {
	if t.key != "" && l.offset == 0 && len(l.rows) == l.total {
		if i := slices.IndexFunc(l.rows, func(r row) bool { return r.key == t.key }); i >= 0 {
			t.at = i
		}
	}
	t.at = max(min(t.at, l.total-1), 0)
	if r := l.row(t.at); r != nil {
		t.key = r.key
	}
	lines = max(lines, 1)
	t.top = max(min(t.top, l.total-lines), 0)
	t.top = max(min(t.top, t.at), t.at-lines+1, 0)
}

// move chooses another row.
func (t *table) move(l *list, to int) {
	t.at = max(min(to, l.total-1), 0)
	t.key = ""
	if r := l.row(t.at); r != nil {
		t.key = r.key
	}
}

// row is the one at a place; nil when it is not there.
func (l *list) row(at int) *row {
	if at < l.offset || at >= l.offset+len(l.rows) {
		return nil
	}
	return &l.rows[at-l.offset]
}

// layout gives each column of a list its width; 0 = it is left out.
func (l *list) layout(from, to, width int, clean func(string) string) []int {
	widths := make([]int, len(l.columns))
	for i, c := range l.columns {
		widths[i] = len(c.title)
		if i == l.by {
			widths[i] += len(" v")
		}
		for at := from; at < to; at++ {
			if r := l.row(at); r != nil {
				widths[i] = max(widths[i], ansi.StringWidth(clean(r.cells[i].text)))
			}
		}
	}
	room := width - 2 // the mark of the chosen row
	l.leaveOut(widths, room)
	for taken(widths) > room {
		at := -1
		for i, c := range l.columns { // the widest of those that may be cut
			if c.flex && widths[i] > c.keeps() && (at < 0 || widths[i] > widths[at]) {
				at = i
			}
		}
		if at < 0 {
			break // the line is cut
		}
		widths[at] -= min(taken(widths)-room, widths[at]-max(l.columns[at].keeps(), l.second(widths, at)))
	}
	return widths
}

// taken is the room that columns take, with what is between them.
func taken(widths []int) (n int) {
	for _, w := range widths {
		if w > 0 {
			n += w + 2
		}
	}
	return n - 2
}

// keeps is how narrow a column that may be cut can get.
func (c *column) keeps() int { return max(c.least, len(c.title)) }

// leaveOut gives no room to columns that there is none for, even with the others
// as narrow as they may be.
func (l *list) leaveOut(widths []int, room int) {
	narrow := slices.Clone(widths)
	for i, c := range l.columns {
		if c.flex {
			narrow[i] = min(narrow[i], c.keeps())
		}
	}
	for taken(narrow) > room {
		at := -1
		for i, c := range l.columns {
			if c.drop > 0 && widths[i] > 0 && (at < 0 || c.drop > l.columns[at].drop) {
				at = i
			}
		}
		if at < 0 {
			return
		}
		narrow[at], widths[at] = 0, 0
	}
}

// second is the width down to which the widest column gives before another one
// does: one less than the next, so that both give.
func (l *list) second(widths []int, widest int) int {
	next := 0
	for i, c := range l.columns {
		if i != widest && c.flex && widths[i] > c.keeps() {
			next = max(next, widths[i]-1)
		}
	}
	return next
}

// lines draws a table on so many lines: titles, and rows from top.
func (s *Screen) lines(t *table, l *list, height int) []line {
	t.settle(l, height-1)
	return s.tableLines(l, t.top, min(t.top+height-1, l.total), t)
}

// text draws the first rows of a table as text: none is chosen.
func (s *Screen) text(l *list, rows int) []line {
	return s.tableLines(l, 0, min(rows, l.total), &table{by: unsorted, at: -1})
}

func (s *Screen) tableLines(l *list, from, to int, t *table) []line {
	l.by = t.by
	widths := l.layout(from, to, s.width, s.clean)
	head := "  "
	for i, c := range l.columns {
		if widths[i] == 0 {
			continue
		}
		title := c.title
		if i == t.by {
			if title += " v"; t.back {
				title = c.title + " ^"
			}
		}
		head += pad(title, widths[i], c.right) + "  "
	}
	out := []line{lineOf(dim, strings.TrimRight(head, " "))}
	for at := from; at < to; at++ {
		out = append(out, s.rowLine(l, at, at == t.at, widths))
	}
	return out
}

func (s *Screen) rowLine(l *list, at int, isChosen bool, widths []int) line {
	r := l.row(at)
	if r == nil {
		return lineOf(dim, "  …")
	}
	var parts line
	if parts = append(parts, span{plain, "  "}); isChosen {
		parts[0].text = "> "
	}
	for i, c := range l.columns {
		if widths[i] == 0 {
			continue
		}
		parts = append(parts, span{r.cells[i].style, pad(s.clean(r.cells[i].text), widths[i], c.right)}, span{plain, "  "})
	}
	parts = parts[:len(parts)-1]
	if !isChosen {
		last := &parts[len(parts)-1]
		last.text = strings.TrimRight(last.text, " ")
		return parts
	}
	text := ""
	for _, p := range parts {
		text += p.text
	}
	return lineOf(chosen, pad(text, s.width, false))
}
