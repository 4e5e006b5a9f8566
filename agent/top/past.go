package top

import (
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// spans are the times that the history is shown of.
var spans = []struct {
	name  string
	hours int // 0 = all
}{{"hour", 1}, {"6 hours", 6}, {"24 hours", 24}, {"7 days", 7 * 24}, {"all", 0}}

const (
	// pastEvery is how often the history is asked for anew while it is looked at.
	pastEvery = 30 * time.Second

	// around is how far before and after a moment is looked for what changed.
	around = time.Minute
)

// pastView is the history as the screen has it.
type pastView struct {
	span  int // of spans
	got   *Answer
	of    int // span of got
	at    time.Time
	asked int
}

// askPast asks for the history where it is looked at and what is there is old.
func (s *Screen) askPast() {
	p := &s.past
	if !s.o.History || s.view != historyView || s.page() != nil || p.asked != 0 || !s.frozen.IsZero() && p.got != nil && p.of == p.span {
		return
	}
	if p.got != nil && p.of == p.span && s.now.Sub(p.at) < pastEvery {
		return
	}
	ask := Past{Period: Period{To: s.now}, Steps: 240}
	if hours := spans[p.span].hours; hours > 0 {
		ask.From = s.now.Add(-time.Duration(hours) * time.Hour)
	}
	p.of = p.span
	p.asked = s.ask(Ask{Past: &ask})
}

func (p *pastView) answer(s *Screen, a *Answer) {
	if a.ID == 0 || a.ID != p.asked {
		return
	}
	p.asked, p.got, p.at = 0, a, s.now
	s.askPast() // another span may be wanted by now
}

// aboveList is what is said above a list: of connections when they were seen, of
// the history how many connections there were.
func (s *Screen) aboveList(height int) []line {
	switch {
	case s.view == connectionsView && s.conns.known && s.conns.err == "":
		return []line{lineOf(dim, fmt.Sprintf("  %s, in the census of %s", many(s.conns.total, "connection"), s.clock(s.conns.census)))}
	case s.view == historyView && s.o.History && s.past.got != nil && s.past.got.Err == "":
		return s.timeLine(height)
	}
	return nil
}

// timeLine is the number of connections over the time that is shown.
func (s *Screen) timeLine(height int) []line {
	got := s.past.got
	there := fmt.Sprintf("%s since %s, %s", many(got.Span.Records, "record"), s.momentOf(got.Span.First), size(got.Span.Bytes))
	lines := []line{lineOf(plain, fmt.Sprintf("  Last %s ([ less, ] more) of %s", spans[s.past.of].name, there))}
	if spans[s.past.of].hours == 0 {
		lines[0][0].text = "  All ([ less): " + there
	}
	room := s.width - 4
	counts := shrink(got.Points, room)
	least, most := -1, -1
	for _, n := range counts {
		if n != nil && (least < 0 || int(*n) < least) {
			least = int(*n)
		}
		if n != nil {
			most = max(most, int(*n))
		}
	}
	if most < 0 {
		return append(lines, lineOf(noted, "  Nothing was written in that time."), nil)
	}
	lines = append(lines, lineOf(plain, "  "+bars(counts, room)))
	if height > 10 {
		first, last := got.Points[0].Time, got.Points[len(got.Points)-1].Time
		lines = append(lines, lineOf(dim, fmt.Sprintf("  %s to %s: %s to %s connections; blank: not written", s.moment(first), s.clock(last), verdict.Number(least), verdict.Number(most))), nil)
	}
	return lines
}

func size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// shrink makes at most so many counts of more: of those that become one the one
// that differs most from what is before it, so that a dip stays a dip.
func shrink(points []state.Point, most int) []*float64 {
	most = max(most, 1)
	if len(points) <= most {
		most = len(points)
	}
	counts := make([]*float64, most)
	for i, p := range points {
		at := i * most / len(points)
		if n := p.Count; n != nil && (counts[at] == nil || at > 0 && differs(counts[at-1], n) > differs(counts[at-1], counts[at])) {
			counts[at] = n
		}
	}
	return counts
}

func differs(a, b *float64) float64 {
	if a == nil || b == nil {
		return 0
	}
	return max(*a-*b, *b-*a)
}

func pastRows(s *Screen) []row {
	if s.past.got == nil {
		return nil
	}
	var rows []row
	for i := len(s.past.got.Findings) - 1; i >= 0; i-- { // the latest first
		f := &s.past.got.Findings[i]
		if f.Cause != "" {
			continue
		}
		lasted, words := f.Last.Sub(f.First).Seconds(), "still open"
		if f.Resolved != nil {
			lasted = f.Resolved.Sub(f.First).Seconds()
			words = seconds(&lasted)
		}
		first := float64(f.First.Unix())
		severity, _ := verdict.ParseSeverity(f.Severity)
		c := severityCell(severity, false)
		c.text = f.Severity
		rows = append(rows, row{key: pastKey(f), cells: []cell{{text: s.moment(f.First), number: first, is: true}, measure(&lasted, words), c, word(f.Code), word(f.Title)}})
	}
	return rows
}

func pastKey(f *state.PastFinding) string { return f.ID + " " + f.First.UTC().String() }

func noPast(s *Screen) string {
	switch {
	case !s.o.History:
		return "The history is kept by an agent, and none runs here: start lifeline agent."
	case s.past.got == nil:
		return "Asking for it."
	case s.past.got.Err != "":
		return "It cannot be told: " + s.past.got.Err
	}
	return "No finding was open in that time."
}

func openPast(s *Screen, key string) *page {
	for i := range s.past.got.Findings {
		f := &s.past.got.Findings[i]
		if pastKey(f) != key {
			continue
		}
		p := &page{key: key, draw: (*page).pastPage, past: *f, asked: make(map[int]**Answer)}
		p.asked[s.ask(Ask{Difference: &Period{From: f.First.Add(-around), To: f.First.Add(around)}})] = &p.change
		return p
	}
	return nil
}

// pastPage says of a finding of the past what else changed when it came.
func (p *page) pastPage(s *Screen) []line {
	f := &p.past
	lines := p.head(s, fmt.Sprintf("%s %s  %s", f.Severity, f.Code, f.Title))
	life := fmt.Sprintf("from %s", s.moment(f.First))
	if f.Resolved != nil {
		life += " to " + s.moment(*f.Resolved)
	} else {
		life += ", last seen " + s.moment(f.Last)
	}
	lines = append(lines, hang(plain, "  since  ", life, s.width)...)
	lines = append(lines, section(fmt.Sprintf("What changed from %s to %s", s.clock(f.First.Add(-around)), s.clock(f.First.Add(around))))...)
	switch {
	case p.change == nil:
		return append(lines, lineOf(dim, "  asking"))
	case p.change.Err != "":
		return append(lines, lineOf(warned, "  It cannot be told: "+p.change.Err))
	}
	d := &p.change.Difference
	lines = append(lines, lineOf(plain, fmt.Sprintf("  %s before, %s after; the same with %s", many(d.Before, "connection"), verdict.Number(d.After), many(d.Same, "peer"))))
	for _, kind := range []struct {
		name    string
		changes []state.Change
	}{{"came", d.Came}, {"went", d.Went}, {"grew", d.Grew}, {"shrank", d.Shrank}} {
		for i := range kind.changes {
			c := &kind.changes[i]
			lines = append(lines, hang(plain, "  "+pad(kind.name, 8, false), fmt.Sprintf("%s: %s to %s%s", c.Peer, verdict.Number(c.From), verdict.Number(c.To), programs(c.Programs)), s.width)...)
		}
	}
	return append(append(lines, nil), hang(dim, "  more: ", fmt.Sprintf("lifeline diff --from %q --to %q", s.moment(f.First.Add(-around)), s.moment(f.First.Add(around))), s.width)...)
}

func programs(names []string) string {
	text := ""
	for i, name := range names {
		if text += ", "; i == 0 {
			text = ", of "
		}
		text += name
	}
	return text
}
