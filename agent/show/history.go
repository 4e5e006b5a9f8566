package show

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// pastGroup is the connections of a past census that have all keys in common.
type pastGroup struct {
	labels   []string
	programs []string
	count    int
}

// countPast counts the groups of a census by keys of a [state.Series].
func countPast(groups []state.Group, by []string) []pastGroup {
	index, counted := make(map[string]int), []pastGroup{}
	for i := range groups {
		g := &groups[i]
		var labels []string
		for _, key := range by {
			labels = append(labels, seriesKey(&g.Series, key))
		}
		id := strings.Join(labels, "\x00")
		at, known := index[id]
		if !known {
			at = len(counted)
			index[id] = at
			counted = append(counted, pastGroup{labels: labels})
		}
		c := &counted[at]
		c.count += g.Count
		if !slices.Contains(c.programs, g.Program) && len(c.programs) <= mostPrograms {
			c.programs = append(c.programs, g.Program)
		}
	}
	slices.SortFunc(counted, func(a, b pastGroup) int {
		return cmp.Or(cmp.Compare(b.count, a.count), slices.Compare(a.labels, b.labels))
	})
	return counted
}

// mostPrograms is how many programs a line names.
const mostPrograms = 3

// PastKeys are what a past census can be counted by.
var PastKeys = []string{"peer", "program", "unit", "port"}

func seriesKey(s *state.Series, key string) string {
	switch key {
	case "program":
		return s.Program
	case "unit":
		return cmp.Or(s.Unit, "(no unit)")
	case "port":
		return cmp.Or(s.Port, "-")
	}
	return s.Peer
}

func programs(list []string) string {
	if len(list) > mostPrograms {
		return strings.Join(list[:mostPrograms], ", ") + " …"
	}
	return strings.Join(list, ", ")
}

// Past writes the census of a moment as a table. top limits the lines; 0 means all.
func Past(w io.Writer, past *state.Past, by []string, top int) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "COUNT\t%s\tPROGRAMS\n", strings.ToUpper(strings.Join(by, "\t")))
	total, shown := 0, countPast(past.Groups, by)
	for i, g := range shown {
		total += g.count
		switch {
		case top == 0 || i < top:
			fmt.Fprintf(t, "%s\t%s\t%s\n", verdict.Number(g.count), strings.Join(g.labels, "\t"), programs(g.programs))
		case i == top:
			rest := 0
			for _, other := range shown[top:] {
				rest += other.count
			}
			fmt.Fprintf(t, "%s\t(%s more)\n", verdict.Number(rest), verdict.Number(len(shown)-top))
		}
	}
	at := past.Totals.Looked // of the census; its record may be later
	if at.IsZero() {
		at = past.Time
	}
	fmt.Fprintf(t, "%s\ttotal at %s\n", verdict.Number(total), clock(at))
	_ = t.Flush()
}

// Gap says that nothing was written at a moment; nothing when something was.
func Gap(w io.Writer, m *state.Moment, s Style) {
	if !m.Gap {
		return
	}
	until := "since"
	if m.Next != nil {
		until = "until " + clock(*m.Next)
	}
	p := &page{w: w, style: s}
	p.hang("", "  ", fmt.Sprintf("At %s nothing was written: the agent did not run, or could not write, from %s %s. What is shown is from before that. %s",
		clock(m.Asked), clock(m.Time), until, m.Note))
}

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

// beginning is where a comparison begins.
func beginning(m *state.Moment) string {
	if m.Asked.Before(m.Time) {
		return clock(m.Time) + ", where the history begins,"
	}
	return clock(m.Time)
}

// Difference writes what changed between two moments.
func Difference(w io.Writer, d *state.Difference, top int) {
	fmt.Fprintf(w, "From %s to %s: %s connections, then %s; %s peers as before.\n",
		beginning(&d.From), clock(d.To.Time), verdict.Number(d.Before), verdict.Number(d.After), verdict.Number(d.Same))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, part := range []struct {
		name string
		list []state.Change
	}{{"came", d.Came}, {"went", d.Went}, {"grew", d.Grew}, {"shrank", d.Shrank}} {
		for i, c := range part.list {
			if top > 0 && i == top {
				fmt.Fprintf(t, "%s\t(%s more)\n", part.name, verdict.Number(len(part.list)-top))
				break
			}
			fmt.Fprintf(t, "%s\t%s\t%s → %s\t%s\n", part.name, c.Peer, verdict.Number(c.From), verdict.Number(c.To), programs(c.Programs))
		}
	}
	_ = t.Flush()
	pastFindings(w, "", d.Findings)
}

// PastJSON writes the census of a moment as one document.
func PastJSON(w io.Writer, host string, past *state.Past, by []string, top int) error {
	d := struct {
		Head
		At     state.Moment     `json:"at"`
		By     []string         `json:"by"`
		Groups []verdict.Values `json:"groups"`
		Total  int              `json:"total"`
		Totals state.Totals     `json:"totals"`
	}{Head{Schema, host, past.Time, []blind{}}, past.Moment, by, []verdict.Values{}, 0, past.Totals}
	for i, g := range countPast(past.Groups, by) {
		d.Total += g.count
		if top > 0 && i >= top {
			continue
		}
		var v verdict.Values
		for j, key := range by {
			v = append(v, verdict.Value{Key: key, V: g.labels[j]})
		}
		d.Groups = append(d.Groups, append(v, verdict.Value{Key: "count", V: g.count}, verdict.Value{Key: "programs", V: g.programs}))
	}
	return encode(w, d, false)
}

// DifferenceJSON writes what changed as one document.
func DifferenceJSON(w io.Writer, host string, d *state.Difference) error {
	return encode(w, struct {
		Head
		*state.Difference
	}{Head{Schema, host, d.To.Time, []blind{}}, d}, false)
}
