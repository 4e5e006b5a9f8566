package top

import "fmt"

// mostReported is how many rows of each list a report has.
const mostReported = 20

// Report is all that there is to see at this moment, as text of the width of the
// screen: what lifeline top --once prints.
func (s *Screen) Report() []string {
	lines := []line{s.title()}
	if s.shown == nil {
		return []string{s.draw(lines[0], s.width)}
	}
	s.height = max(s.height, smallHeight)
	lines = append(lines, s.promises()...)
	for v := range views {
		if v == connectionsView || v == historyView { // they are asked for
			continue
		}
		s.view = v
		l := s.list()
		name := definition(v).name
		if l.total > mostReported {
			name += fmt.Sprintf(", the first %d of %s", mostReported, count(l.total).text)
		}
		lines = append(lines, nil, lineOf(bold, name))
		if l.total == 0 {
			lines = append(lines, hang(plain, "  ", s.none(), s.width)...)
			continue
		}
		lines = append(lines, s.text(&l, mostReported)...)
	}
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = s.draw(l, s.width)
	}
	return out
}
