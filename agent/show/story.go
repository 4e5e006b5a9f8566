package show

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// mostTold is how many findings are told with an event.
const mostTold = 5

// Story writes when connections changed most. ask is the command that tells all of
// an event, without its times.
func Story(w io.Writer, s *state.Story, ask string) {
	fmt.Fprintf(w, "From %s to %s: %s connections, then %s.\n", beginning(&s.From), clock(s.To.Time), verdict.Number(s.Before), verdict.Number(s.After))
	if len(s.Events) == 0 {
		fmt.Fprintln(w, "None came or went meanwhile.")
	}
	for i := range s.Events {
		e := &s.Events[i]
		begin, end := e.Span()
		gap := ""
		if e.Shifts[0].Gap {
			gap = ", at some time: nothing was written then"
		}
		fmt.Fprintf(w, "\n%s to %s%s\n", clock(begin), fullSecond(end), gap)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, c := range e.Shifts {
			fmt.Fprintf(t, "  %s\t%s\t%s → %s\t%s\n", kindOf(&c.Change), c.Peer, verdict.Number(c.From), verdict.Number(c.To), programs(c.Programs))
		}
		_ = t.Flush()
		storyFindings(w, e.Findings, mostTold)
		fmt.Fprintf(w, "  all of it: %s --from %q --to %q\n", ask, fullSecond(e.Begin), fullSecond(e.End))
	}
	if len(told(s.Findings)) > 0 {
		fmt.Fprintln(w, "\nFound at other times")
		storyFindings(w, s.Findings, 2*mostTold)
	}
}

// told are the findings of a story that are worth a line: no mere information, and
// none that another explains.
func told(list []state.PastFinding) (out []state.PastFinding) {
	for _, f := range roots(list) {
		if f.Severity != verdict.Info.String() {
			out = append(out, f)
		}
	}
	return out
}

func storyFindings(w io.Writer, list []state.PastFinding, most int) {
	list = told(list)
	pastFindings(w, "  ", list[:min(len(list), most)])
	if more := len(list) - most; more > 0 {
		fmt.Fprintf(w, "  and %s more\n", verdict.Number(more))
	}
}

// fullSecond is the first one from a time on: what was at that time was before it.
func fullSecond(t time.Time) string { return clock(t.Add(time.Second - time.Nanosecond)) }

func kindOf(c *state.Change) string {
	switch {
	case c.From == 0:
		return "came"
	case c.To == 0:
		return "went"
	case c.From < c.To:
		return "grew"
	}
	return "shrank"
}

// roots are the findings that no other explains.
func roots(list []state.PastFinding) (out []state.PastFinding) {
	for _, f := range list {
		if f.Cause == "" {
			out = append(out, f)
		}
	}
	return out
}

// pastFindings writes those that no other explains, a line each.
func pastFindings(w io.Writer, indent string, list []state.PastFinding) {
	for _, f := range roots(list) {
		end := "still open"
		if f.Resolved != nil {
			end = "ended " + clock(*f.Resolved)
			if day := f.First.Local().Format(time.DateOnly); strings.HasPrefix(end, "ended "+day) {
				end = "ended " + f.Resolved.Local().Format(time.TimeOnly)
			}
		}
		fmt.Fprintf(w, "%s%s %s  %s (since %s, %s)\n", indent, f.Code, f.Severity, strings.TrimSuffix(f.Title, "."), clock(f.First), end)
	}
}

// StoryJSON writes a story as one document.
func StoryJSON(w io.Writer, host string, s *state.Story) error {
	return encode(w, struct {
		Head
		*state.Story
	}{Head{Schema, host, s.To.Time, []blind{}}, s}, false)
}
