package show

import (
	"fmt"
	"io"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
)

// statusColours are SGR codes.
var statusColours = map[state.Status]string{state.Kept: "32", state.Warned: "33", state.Broken: "31;1", state.Unknown: "36"}

// mostOpen is how many findings Status writes; the page has the others.
const mostOpen = 10

// Status writes what an agent knows in a few lines: how it stands with the four
// promises and what was looked at, the open findings, with what to do about each,
// what could not be seen, and one line that sums it up. No text of it draws on a
// terminal: what answered may be no agent.
func Status(w io.Writer, st *state.State, s Style) {
	p := &page{w: w, style: s}
	for _, one := range st.Promises {
		p.hang(fmt.Sprintf("%-8s %s ", one.Promise, s.paint(statusColours[one.Status], fact.Printable(fmt.Sprintf("%-7s", one.Status)))), "                 ", fact.Printable(one.Summary))
	}
	open := 0
	for i := range st.Findings {
		f := &st.Findings[i]
		if f.Resolved != nil || f.Cause != "" {
			continue
		}
		if open++; open == 1 {
			p.line("")
		}
		if open <= mostOpen {
			p.finding(&f.Finding, i > 0 && st.Findings[i-1].Code == f.Code)
		}
	}
	if open > mostOpen {
		p.line(fmt.Sprintf("  and %s more: see the page", plural(open-mostOpen, "finding")))
	}
	p.line("")
	if len(st.Blind) > 0 {
		p.line("Could not see:")
		for _, b := range st.Blind {
			text := b.Source + ": " + b.Error
			if b.Needs != nil {
				text += "; needs " + *b.Needs
			}
			p.hang("  ", "  ", fact.Printable(text))
		}
		p.line("")
	}
	text, unseen := statusSummary(st, open)
	if unseen != "" {
		unseen += " above"
	}
	p.line(text + unseen + ".")
}

// Summary is the last line of [Status] where it stands alone: how many findings are
// open, the worst of them, and how much could not be seen.
func Summary(st *state.State) string {
	open, worst := 0, (*state.Finding)(nil)
	for i := range st.Findings {
		f := &st.Findings[i]
		if f.Resolved != nil || f.Cause != "" {
			continue
		}
		if open++; worst == nil || f.Severity > worst.Severity {
			worst = f
		}
	}
	text, unseen := statusSummary(st, open)
	if worst != nil {
		text += ": " + fact.Printable(worst.Title)
	}
	return text + unseen
}

// statusSummary never calls well what could not be looked at.
func statusSummary(st *state.State, open int) (text, unseen string) {
	text, unknown := "All four promises are kept", 0
	for _, one := range st.Promises {
		if one.Status == state.Unknown {
			unknown++
		}
	}
	switch {
	case open > 0:
		text = plural(open, "finding") + " open"
	case unknown > 0:
		text = "Nothing found"
	}
	if unknown > 0 {
		text += fmt.Sprintf(", %s could not be looked at", plural(unknown, "promise"))
	}
	if n := len(st.Blind); n > 0 {
		unseen = ", as far as could be seen: " + plural(n, "blind spot")
	}
	return text, unseen
}
