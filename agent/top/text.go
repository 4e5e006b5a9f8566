package top

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// style is how a text is drawn, beside its words.
type style uint8

const (
	plain style = iota
	bold
	dim
	good
	warned
	bad
	noted
	chosen
)

// codes are the styles as SGR codes, with colours and without.
var (
	codes     = [...]string{plain: "", bold: "1", dim: "2", good: "32", warned: "33", bad: "31;1", noted: "36", chosen: "7"}
	monoCodes = [...]string{plain: "", bold: "1", dim: "", good: "", warned: "", bad: "1", noted: "", chosen: "7"}
)

// span is a text in one style, line is several on one line.
type span struct {
	style style
	text  string
}

type line []span

func lineOf(st style, text string) line { return line{{st, text}} }

// draw makes a line of at most width columns that a terminal shows. No text of
// others gets past it as anything but letters.
func (s *Screen) draw(l line, width int) string {
	var b strings.Builder
	for _, part := range l {
		text := s.clean(part.text)
		if w := ansi.StringWidth(text); w > width {
			text = clip(text, width)
			width = 0
		} else {
			width -= w
		}
		code := ""
		switch s.o.Ink {
		case InkColor:
			code = codes[part.style]
		case InkMono:
			code = monoCodes[part.style]
		}
		if code != "" && text != "" {
			text = "\x1b[" + code + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
		if width == 0 {
			break
		}
	}
	return b.String()
}

// plainer are characters that are drawn as others where the terminal has only
// ASCII.
var plainer = strings.NewReplacer("·", "-", "…", "~", "▁", "_", "▂", "_", "▃", "-", "▄", "-", "▅", "=", "▆", "=", "▇", "#", "█", "#")

// clean makes a text one that a terminal shows and does nothing else by.
func (s *Screen) clean(text string) string {
	text = fact.Printable(text)
	if !s.o.ASCII {
		return text
	}
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, plainer.Replace(text))
}

// clip cuts a clean text to width columns, and shows that it did.
func clip(text string, width int) string {
	if ansi.StringWidth(text) <= width {
		return text
	}
	if width <= 0 {
		return ""
	}
	tail := "…"
	if isASCII(text) { // it may be one that has nothing else
		tail = "~"
	}
	return ansi.Truncate(text, width, tail)
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] > '~' {
			return false
		}
	}
	return true
}

// pad fills a text up to width columns; what is longer is cut.
func pad(text string, width int, right bool) string {
	text = clip(text, width)
	fill := strings.Repeat(" ", max(width-ansi.StringWidth(text), 0))
	if right {
		return fill + text
	}
	return text + fill
}

// hang wraps a text to width columns: first stands before its first line, and as
// many blanks before the others.
func hang(st style, first, text string, width int) []line {
	indent := strings.Repeat(" ", ansi.StringWidth(first))
	var lines []line
	row, empty := "", true
	flush := func() {
		lines = append(lines, line{{dim, first}, {st, row}})
		first, row, empty = indent, "", true
	}
	room := max(width-len(indent), 10)
	for word := range strings.FieldsSeq(text) {
		if !empty && ansi.StringWidth(row)+1+ansi.StringWidth(word) > room {
			flush()
		}
		if !empty {
			row += " "
		}
		row += word
		empty = false
		for ansi.StringWidth(row) > room { // a word that no line holds
			rest := row
			row = ansi.Truncate(rest, room, "")
			if row == "" || row == rest {
				break
			}
			rest = rest[len(row):]
			flush()
			row, empty = rest, false
		}
	}
	flush()
	return lines
}

// The words for values.

const unknown = "unknown"

// seconds is a time in seconds as people read it.
func seconds(s *float64) string {
	if s == nil {
		return unknown
	}
	return bound.Format(time.Duration(*s * float64(time.Second)))
}

func boundText(s *float64, never bool) string {
	if never {
		return "never"
	}
	return seconds(s)
}

// since is how long ago something was. A clock that went back makes it no time.
func (s *Screen) since(t time.Time) string {
	if t.IsZero() {
		return unknown
	}
	ago := s.now.Sub(t).Round(time.Second)
	if ago <= 0 {
		return "0 s"
	}
	return bound.Format(ago)
}

// clock is a moment of today, moment one of any day.
func (s *Screen) clock(t time.Time) string {
	if t.IsZero() {
		return "not yet"
	}
	if s.o.Zone != nil {
		t = t.In(s.o.Zone)
	}
	return t.Format(time.TimeOnly)
}

func (s *Screen) moment(t time.Time) string {
	if t.IsZero() {
		return "not yet"
	}
	if s.o.Zone != nil {
		t = t.In(s.o.Zone)
	}
	return t.Format(time.DateTime)
}

func (s *Screen) momentOf(t *time.Time) string {
	if t == nil {
		return "not yet"
	}
	return s.moment(*t)
}

// many is a number with its noun.
func many(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if noun == "process" {
		noun += "e"
	}
	return verdict.Number(n) + " " + noun + "s"
}

// holder names a process.
func holder(h *state.Holder) string {
	switch {
	case h.PID == 0:
		return "(no process)"
	case h.Name == "":
		return fmt.Sprintf("pid %d", h.PID)
	}
	return fmt.Sprintf("%s[%d]", h.Name, h.PID)
}

// value is a fact of a finding: its key without the unit, and what it is.
func value(v *verdict.Value) (key, text string) {
	key, text = strings.ReplaceAll(v.Key, "_", " "), ""
	switch x := v.V.(type) {
	case nil:
		text = unknown
	case float64:
		if name, is := strings.CutSuffix(v.Key, "_seconds"); is {
			return strings.ReplaceAll(name, "_", " "), seconds(&x)
		}
		text = fmt.Sprintf("%.4g", x)
	case int:
		if name, is := strings.CutSuffix(v.Key, "_seconds"); is {
			f := float64(x)
			return strings.ReplaceAll(name, "_", " "), seconds(&f)
		}
		text = fmt.Sprint(x)
		if key != "pid" && key != "netns" && key != "line" {
			text = verdict.Number(x)
		}
	case bool:
		if text = "no"; x {
			text = "yes"
		}
	case []string:
		text = strings.Join(x, ", ")
	default:
		text = fmt.Sprint(x)
	}
	return key, text
}

// bars is a line of counts over time, the latest at the right; at most width of
// them. What is not known is a blank.
func bars(counts []*float64, width int) string {
	if len(counts) > width {
		counts = counts[len(counts)-width:]
	}
	most := 0.0
	for _, n := range counts {
		if n != nil {
			most = max(most, *n)
		}
	}
	levels := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, n := range counts {
		switch {
		case n == nil:
			b.WriteRune(' ')
		case most == 0:
			b.WriteRune(levels[0])
		default:
			b.WriteRune(levels[int(max(*n, 0)*float64(len(levels)-1)/most)])
		}
	}
	return b.String()
}
