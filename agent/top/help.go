package top

import "strconv"

func number(n int32) string { return strconv.Itoa(int(n)) }

// keysHelp is what each key does.
var keysHelp = [][2]string{
	{"1 to 8, tab", "go to a view"},
	{"up down, j k, page up and down, home end, g G", "move"},
	{"enter", "open: of a finding its evidence, why, what to do and its connections; of a peer what falls silent if it dies"},
	{"escape", "back; or take the filter away"},
	{"c", "on such a page: all its connections"},
	{"/", "filter: rows that have all words; of connections a peer or network, process, pid, state, netns=NUMBER"},
	{"s S", "sort by the next column, or the one before; v and ^ mark it"},
	{"r", "the other way round"},
	{"space, f", "freeze what is shown, and go on"},
	{"[ ]", "history: less, more"},
	{"?", "this help"},
	{"q, ctrl+c", "leave; ctrl+z sets aside"},
}

// wordsHelp is what the words mean.
var wordsHelp = [][2]string{
	{"kept, warning, BROKEN, unknown", "how it stands with a promise; unknown: it could not be looked at, or not yet"},
	{"noticed: idle", "how long the death of the other end would go unnoticed by a connection that is idle; never: keepalive is off"},
	{"noticed: sending", "the same, for one that has sent something"},
	{"heard", "when something last came from the other end"},
	{"BLIND", "what could not be seen, and the right that would show it"},
	{"explains 3 more", "this is the root of others: enter lists them"},
}

func (s *Screen) helpLines() []line {
	lines := append([]line{nil, lineOf(bold, "  Keys")}, s.pairs(keysHelp)...)
	lines = append(append(lines, nil, lineOf(bold, "  Words")), s.pairs(wordsHelp)...)
	return append(lines, nil, lineOf(plain, "  It only looks: nothing on this machine is changed."))
}
