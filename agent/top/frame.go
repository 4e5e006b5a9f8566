package top

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// smallHeight is the height below which the four promises get one line.
const smallHeight = 16

// Lines is what the terminal shows: as many lines as it has, none wider than it is.
func (s *Screen) Lines() []string {
	head := s.header()
	body := s.height - len(head) - 1
	var middle []line
	switch {
	case s.help:
		middle = s.scrolled(s.helpLines(), &s.helpAt, body)
	case s.shown == nil:
		middle = []line{nil, lineOf(plain, "  Waiting for the first look.")}
	case s.page() != nil:
		p := s.page()
		middle = s.scrolled(p.lines(s), &p.at, body)
	default:
		middle = s.listLines(body)
	}
	all := append(head, middle...)
	all = all[:min(len(all), s.height-1)]
	for len(all) < s.height-1 {
		all = append(all, nil)
	}
	all = append(all, s.footer())
	out := make([]string, len(all))
	for i, l := range all {
		out[i] = s.draw(l, s.width)
	}
	return out
}

// scrolled is a part of lines, from at; which is put right when it is beyond.
func (s *Screen) scrolled(lines []line, at *int, height int) []line {
	height = max(height, 1)
	*at = max(min(*at, len(lines)-height), 0)
	lines = lines[*at:]
	if len(lines) > height {
		lines = append(lines[:height-1:height-1], lineOf(dim, fmt.Sprintf("  … %s below", many(len(lines)-height+1, "line"))))
	}
	return lines
}

// listLines is the list of the view, with what is to be said above it.
func (s *Screen) listLines(height int) []line {
	t := &s.tables[s.view]
	above := s.aboveList(height)
	l := s.list()
	if l.total == 0 {
		why := s.none()
		if t.filter != "" {
			why = fmt.Sprintf("None of %s fits the filter %q. Press / to change it, escape to take it away.", verdict.Number(l.whole), t.filter)
			if s.view == connectionsView {
				why = fmt.Sprintf("No connection fits the filter %q. Press / to change it, escape to take it away.", t.filter)
			}
		}
		return append(append(above, nil), hang(plain, "  ", why, s.width)...)
	}
	return append(above, s.lines(t, &l, height-len(above))...)
}

// header says whose machine it is, where that is known from, how it stands with
// the four promises, and which views there are.
func (s *Screen) header() []line {
	lines := []line{s.title()}
	if s.lost != "" {
		text := fmt.Sprintf("NO AGENT for %s, since %s", s.since(s.lostAt), s.clock(s.lostAt))
		if s.shown != nil {
			text += fmt.Sprintf("; this is from %s", s.clock(s.shown.Time))
		}
		lines = append(lines, lineOf(bad, text+": "+s.lost))
	}
	if !s.frozen.IsZero() {
		lines = append(lines, lineOf(warned, fmt.Sprintf("FROZEN for %s, since %s; space goes on", s.since(s.frozen), s.clock(s.frozen))))
	}
	lines = append(lines, s.promises()...)
	return append(lines, s.tabs())
}

// title is the first line: the machine at the left, where from at the right.
func (s *Screen) title() line {
	left, from := "Lifeline", s.o.From
	if s.shown != nil {
		left += " on " + s.clean(s.shown.Host)
		if n := len(s.shown.Blind); n > 0 {
			from += ", " + many(n, "blind spot")
		}
		if s.lost == "" {
			from += ", " + s.clock(s.shown.Time)
		}
		t := &s.shown.Totals
		wide := fmt.Sprintf("%s: %s, %s, %s", left, many(t.Sockets, "socket"), many(t.Processes, "process"), many(t.Peers, "peer"))
		if !t.Looked.IsZero() && ansi.StringWidth(wide)+ansi.StringWidth(from)+2 <= s.width {
			left = wide
		}
	}
	from = s.clean(from)
	room := s.width - ansi.StringWidth(from) - 2
	if room < 10 { // where it comes from matters most
		return lineOf(bold, clip(from, s.width))
	}
	return line{{bold, pad(left, room, false)}, {plain, "  " + from}}
}

// statusWords says how it stands with a promise; what is wrong stands out by its
// letters too.
func statusWords(p *state.Promise) (string, style) {
	switch p.Status {
	case state.Kept:
		return "kept", good
	case state.Warned:
		return fmt.Sprintf("warning %d", max(p.Findings, 1)), warned
	case state.Broken:
		return fmt.Sprintf("BROKEN %d", max(p.Findings, 1)), bad
	}
	return unknown, noted
}

func (s *Screen) promises() []line {
	if s.shown == nil {
		return nil
	}
	var lines []line
	var all line
	for i := range s.shown.Promises {
		p := &s.shown.Promises[i]
		words, st := statusWords(p)
		if i > 0 {
			all = append(all, span{plain, ", "})
		}
		all = append(all, span{plain, p.Promise.String() + " "}, span{st, words})
		one := line{{plain, pad(p.Promise.String(), 9, false)}, {st, pad(words, 11, false)}, {plain, s.clean(p.Summary)}}
		if p.Looked != nil && s.width >= 110 {
			looked := "  looked at " + s.clock(*p.Looked)
			room := s.width - 20 - len(looked)
			one[2].text = pad(one[2].text, room, false)
			one = append(one, span{dim, looked})
		}
		lines = append(lines, one)
	}
	if s.height < smallHeight {
		return []line{all}
	}
	return lines
}

// tabs are the views, as many words as there is room for.
func (s *Screen) tabs() line {
	var l line
	for _, form := range []func(view) string{
		func(v view) string { return fmt.Sprintf("%d %s", v+1, cmp.Or(s.counted(v), definition(v).name)) },
		func(v view) string { return fmt.Sprintf("%d %s", v+1, definition(v).name) },
		func(v view) string { return fmt.Sprintf("%d %s", v+1, definition(v).short) },
		func(v view) string {
			if v == s.view {
				return fmt.Sprintf("%d %s", v+1, definition(v).name)
			}
			return fmt.Sprint(int(v + 1))
		},
	} {
		l = nil
		width := 0
		for v := range views {
			text, st := " "+form(v)+" ", plain
			if v == s.view {
				text, st = "["+form(v)+"]", chosen
			}
			l, width = append(l, span{st, text}), width+len(text)
		}
		if width <= s.width {
			break
		}
	}
	return l
}

// counted is the name of a view with how many there are in it.
func (s *Screen) counted(v view) string {
	if s.shown == nil {
		return ""
	}
	n := 0
	switch v {
	case findingsView:
		n = len(rootsOf(s.shown.Findings))
	case peersView:
		n = s.shown.Totals.Peers
	case leaksView:
		n = max(s.shown.Totals.Sites, len(s.shown.Leaks))
	case callsView:
		n = len(s.shown.Calls)
	default:
		return ""
	}
	return definition(v).name + " " + verdict.Number(n)
}

// footer is what can be done, or what is being typed.
func (s *Screen) footer() line {
	t := &s.tables[s.view]
	if s.typing {
		return line{{bold, "/" + t.filter + "_"}, {dim, "   " + s.viewed().hint}}
	}
	keys := "enter open  / filter  s sort  space freeze  ? help  q quit"
	switch {
	case s.help:
		keys = "escape back  q quit"
	case s.page() != nil:
		keys = s.page().keys() + "  space freeze  ? help  q quit"
	}
	if !s.frozen.IsZero() {
		keys = strings.Replace(keys, "space freeze", "space go on", 1)
	}
	where := s.where()
	room := s.width - len(where) - 1
	if room < 24 {
		return lineOf(dim, keys)
	}
	return line{{dim, pad(keys, room, false)}, {plain, " " + where}}
}

// where says which row is chosen, of how many, and by which filter.
func (s *Screen) where() string {
	if s.help || s.page() != nil || s.shown == nil {
		return ""
	}
	l, t := s.list(), &s.tables[s.view]
	text := fmt.Sprintf("%s of %s", verdict.Number(min(t.at+1, l.total)), verdict.Number(l.total))
	if t.filter != "" {
		text = s.clean("/"+t.filter) + "  " + text
	}
	return text
}
