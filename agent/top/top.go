// Package top is the screen of lifeline top: states go in, keys go in, lines
// come out. It is pure: what it wants to know beside states it says as an [Ask],
// and whoever drives it brings the [Answer]; the time is told to it.
//
// Whatever it draws passes through one place that lets no control character
// out: names of processes are chosen by others.
package top

import (
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

// Ink is what a terminal can show beside letters. What a line means is in its
// words with any of them.
type Ink uint8

// The inks.
const (
	InkNone  Ink = iota // letters alone
	InkMono             // bold and reverse too
	InkColor            // and colours
)

// Options say how to draw, and what to say of where states come from. The zero
// Options draw letters alone.
type Options struct {
	Ink   Ink
	ASCII bool           // the terminal shows no other characters
	Zone  *time.Location // of the times shown; nil: as they come

	From    string // whom states come from, in words
	Itself  bool   // there is no agent: this program looks itself
	History bool   // questions about the past may be asked
}

// The smallest screen that is drawn on; on a smaller one, lines are cut.
const (
	leastWidth  = 20
	leastHeight = 5
)

// view is one of the lists.
type view int

const (
	findingsView view = iota
	peersView
	connectionsView
	leaksView
	namesView
	callsView
	sourcesView
	historyView
	views
)

// Screen is what lifeline top shows. It is used by one goroutine. Use [New].
type Screen struct {
	o             Options
	width, height int
	now           time.Time

	latest, shown *state.State // shown is older while frozen; nil before the first
	frozen        time.Time    // since when; zero = not
	lost          string       // why no states come; "" = they do
	lostAt        time.Time

	view   view
	tables [views]table
	pages  []*page // what was opened on top of the list, one out of another
	help   bool
	helpAt int // lines scrolled
	typing bool
	done   bool

	conns window
	past  pastView

	asks []Ask
	last int // ID of an Ask
}

// New returns a Screen of 80 columns and 24 lines that has seen nothing yet.
func New(o Options) *Screen {
	s := &Screen{o: o, width: 80, height: 24}
	s.past.span = 1
	for v := range s.tables {
		s.tables[v].by = unsorted
	}
	return s
}

// Resize says how large the terminal is. What is not known, 0, stays as it was.
func (s *Screen) Resize(width, height int) {
	if width > 0 {
		s.width = max(width, leastWidth)
	}
	if height > 0 {
		s.height = max(height, leastHeight)
	}
}

// Tick says what time it is.
func (s *Screen) Tick(now time.Time) {
	s.now = now
	s.askPast()
	s.askConnections()
}

// Take takes in the latest state. While the screen is frozen it is kept for
// later.
func (s *Screen) Take(now time.Time, latest *state.State) {
	s.now, s.latest, s.lost = now, latest, ""
	if s.frozen.IsZero() {
		s.show(latest)
	}
}

// show draws a state from now on, and asks again for what depends on it.
func (s *Screen) show(next *state.State) {
	anew := s.shown == nil || next.Run != s.shown.Run || !next.Totals.Looked.Equal(s.shown.Totals.Looked)
	s.shown = next
	if anew { // another census
		s.conns.old = true
		for _, p := range s.pages {
			p.askAgain(s)
		}
	}
	s.askConnections()
}

// Lose says that no states come any more, and why. The next one that is taken in
// ends that.
func (s *Screen) Lose(now time.Time, why string) {
	if s.now = now; s.lost == "" {
		s.lostAt = now
	}
	s.lost = why
}

// Done reports that the user wants to leave.
func (s *Screen) Done() bool { return s.done }

// freeze holds what is shown, or lets it go on.
func (s *Screen) freeze() {
	if !s.frozen.IsZero() {
		s.frozen = time.Time{}
		if s.latest != nil {
			s.show(s.latest)
		}
		return
	}
	s.frozen = s.now
}

// Ask is a question about what is in no state. One of the pointers is set.
type Ask struct {
	ID          int
	Connections *state.Query
	WhatIf      string // address of a peer
	Past        *Past
	Difference  *Period
}

// Period is a time from one moment to another.
type Period struct{ From, To time.Time }

// Past asks for the connections in steps over a period, and for the findings in
// it. A zero From means as far back as there is something.
type Past struct {
	Period
	Steps int // how many, about
}

// Answer is what came of an [Ask].
type Answer struct {
	ID          int
	Err         string // why there is none
	Connections state.Connections
	Loss        state.Loss
	Difference  state.Difference
	Span        state.Span // of a Past: what there is
	Points      []state.Point
	Findings    []state.PastFinding
}

// Asks returns what is to be asked, once.
func (s *Screen) Asks() []Ask {
	asks := s.asks
	s.asks = nil
	return asks
}

func (s *Screen) ask(a Ask) int {
	s.last++
	a.ID = s.last
	s.asks = append(s.asks, a)
	return a.ID
}

// Answer takes in what came of an Ask. What nobody waits for any more is left out.
func (s *Screen) Answer(now time.Time, a *Answer) {
	s.now = now
	s.conns.answer(s, a)
	s.past.answer(s, a)
	for _, p := range s.pages {
		p.answer(a)
	}
}

// page returns what was opened last; nil when that is the list.
func (s *Screen) page() *page {
	if len(s.pages) == 0 {
		return nil
	}
	return s.pages[len(s.pages)-1]
}
