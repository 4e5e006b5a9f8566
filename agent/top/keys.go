package top

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// mostFilter is how long a filter may be.
const mostFilter = 200

// Key is one key: name is as terminals' libraries have it, such as "up", "enter",
// "ctrl+c" or "a"; text is what it types, "" for nothing.
func (s *Screen) Key(now time.Time, name, text string) {
	s.now = now
	switch {
	case name == "ctrl+c":
		s.done = true
	case s.typing:
		s.typed(name, text)
	case name == "q":
		s.done = true
	case s.help:
		s.inHelp(name)
	case name == "?" || name == "h" || name == "f1":
		s.help, s.helpAt = true, 0
	case name == "space" || name == " " || name == "f":
		s.freeze()
	case s.shown == nil: // there is no list to move in yet
		if v, is := viewKey(name, s.view); is {
			s.to(v)
		}
	case s.page() != nil:
		s.inPage(name)
	default:
		s.inList(name)
	}
	if s.shown != nil {
		s.askConnections()
		s.askPast()
	}
}

// Paste is text that came at once. Only a filter takes it.
func (s *Screen) Paste(now time.Time, text string) {
	if s.typing {
		s.Key(now, "", text)
	}
}

// typed is a key while a filter is typed.
func (s *Screen) typed(name, text string) {
	t := &s.tables[s.view]
	switch name {
	case "enter":
		s.typing = false
		return
	case "esc":
		s.typing, t.filter = false, ""
	case "ctrl+u":
		t.filter = ""
	case "backspace", "ctrl+h":
		if _, size := utf8.DecodeLastRuneInString(t.filter); size > 0 {
			t.filter = t.filter[:len(t.filter)-size]
		}
	default:
		if t.filter += text; len(t.filter) > mostFilter {
			t.filter = t.filter[:mostFilter]
		}
	}
	t.at, t.top, t.key = 0, 0, ""
}

func (s *Screen) inHelp(name string) {
	switch name {
	case "esc", "?", "backspace", "left", "enter", "h":
		s.help = false
	default:
		scroll(&s.helpAt, name, s.height)
	}
}

func (s *Screen) inPage(name string) {
	p := s.page()
	switch name {
	case "esc", "backspace", "left":
		s.pages = s.pages[:len(s.pages)-1]
	case "c":
		if p.query != nil {
			s.pages = nil
			s.to(connectionsView)
			t := &s.tables[connectionsView]
			*t = table{by: unsorted, filter: filterOf(p)}
		}
	default:
		if v, is := viewKey(name, s.view); is {
			s.pages = nil
			s.to(v)
			return
		}
		scroll(&p.at, name, s.height)
	}
}

// filterOf is the filter that leaves the connections of a page.
func filterOf(p *page) string {
	var words []string
	if p.query.Peer != "" {
		words = append(words, p.query.Peer)
	}
	if p.query.PID > 0 {
		words = append(words, number(p.query.PID))
	}
	if p.query.Netns > 0 {
		words = append(words, namespace+strconv.FormatUint(uint64(p.query.Netns), 10))
	}
	return strings.Join(words, " ")
}

func (s *Screen) to(v view) { s.view, s.typing = v, false }

// viewKey is the view that a key leads to from another.
func viewKey(name string, from view) (view, bool) {
	switch {
	case name == "tab":
		return (from + 1) % views, true
	case name == "shift+tab":
		return (from + views - 1) % views, true
	case len(name) == 1 && name[0] >= '1' && view(name[0]-'1') < views:
		return view(name[0] - '1'), true
	}
	return from, false
}

// scroll moves a text; what is too far is put right when it is drawn.
func scroll(at *int, name string, height int) {
	page := max(height-10, 1)
	switch name {
	case "up", "k":
		*at--
	case "down", "j", "enter":
		*at++
	case "pgup", "ctrl+b":
		*at -= page
	case "pgdown", "ctrl+f":
		*at += page
	case "home", "g":
		*at = 0
	case "end", "G":
		*at = 1 << 30
	}
	*at = max(*at, 0)
}

func (s *Screen) inList(name string) {
	if v, is := viewKey(name, s.view); is {
		s.to(v)
		return
	}
	t, l := &s.tables[s.view], s.list()
	page := max(s.height-10, 1)
	switch name {
	case "up", "k":
		t.move(&l, t.at-1)
	case "down", "j":
		t.move(&l, t.at+1)
	case "pgup", "ctrl+b":
		t.move(&l, t.at-page)
	case "pgdown", "ctrl+f":
		t.move(&l, t.at+page)
	case "home", "g":
		t.move(&l, 0)
	case "end", "G":
		t.move(&l, l.total-1)
	case "/":
		s.typing = true
	case "esc":
		t.filter = ""
	case "s", "S":
		s.sortNext(t, name == "S")
	case "r":
		t.back = !t.back
	case "[", "]":
		if s.view == historyView {
			step := 1
			if name == "[" {
				step = -1
			}
			s.past.span = min(max(s.past.span+step, 0), len(spans)-1)
		}
	case "enter", "right":
		s.openChosen(t, &l)
	}
	t.settle(&l, s.height-10)
}

func (s *Screen) openChosen(t *table, l *list) {
	if r := l.row(t.at); r != nil {
		if p := s.opened(r.key); p != nil {
			s.open(p)
		}
	}
}

// sortNext sorts by the next column, or that before.
func (s *Screen) sortNext(t *table, before bool) {
	columns := s.viewed().columns
	step := 1
	if before {
		step = -1
	}
	n := len(columns) + 1 // and unsorted
	for {
		t.by = (t.by+1+step+n)%n - 1
		if t.by == unsorted || !columns[t.by].fixed {
			break
		}
	}
	t.back = false
}
