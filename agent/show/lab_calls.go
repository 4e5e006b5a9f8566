package show

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// LabCall is what became of one call in a replay.
type LabCall struct {
	Story  string // calls
	Host   string // what became of the host
	Call   string
	With   string                    // the client
	Lost   bool                      // whether the host does not answer: only then is Bound of meaning
	Bound  fact.Known[time.Duration] // how long the call may block by what is known of the client; not OK: for ever
	Took   fact.Known[time.Duration] // not OK: it was still blocked when the replay ended
	Waited time.Duration             // how long the replay waited
	Said   string                    // the error of the call; empty: none
}

// LabLeft is what a client had left behind at the end of a replay.
type LabLeft struct {
	With                    string
	Blocked                 int             // calls
	Goroutines, Descriptors fact.Known[int] // not OK where the client is a program
	Processes               int
}

// LabCalls writes the calls as a table, and below it what was left behind.
func LabCalls(w io.Writer, calls []LabCall, left []LabLeft) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "HOST\tCALL\tWITH\tBLOCKED\tBOUND\tSAID\n")
	for i := range calls {
		c := &calls[i]
		limit := "-"
		if c.Lost {
			limit = "none"
		}
		if c.Bound.OK {
			limit = bound.Format(c.Bound.Value.Round(time.Second))
		}
		said := cmp.Or(c.Said, "-")
		if !c.Took.OK {
			said = "nothing: it is still blocked"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Host, c.Call, c.With, elapsed(c.Took, "> "+bound.Format(c.Waited)), limit, said)
	}
	fmt.Fprintf(t, "\nLEFT BEHIND BY\tBLOCKED CALLS\tGOROUTINES\tDESCRIPTORS\tPROCESSES\n")
	for _, l := range left {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%d\n", l.With, l.Blocked, countOf(l.Goroutines), countOf(l.Descriptors), l.Processes)
	}
	_ = t.Flush()
}

func countOf(n fact.Known[int]) string {
	if !n.OK {
		return "-"
	}
	return fmt.Sprint(n.Value)
}

// LabCallsJSON writes the same as one document. Of m only the host, the time and
// what could not be seen are used.
func LabCallsJSON(w io.Writer, m *fact.Machine, calls []LabCall, left []LabLeft) error {
	type run struct {
		Story  string  `json:"story"`
		Host   string  `json:"host"`
		Call   string  `json:"call"`
		With   string  `json:"with"`
		Count  int     `json:"count"`
		Took   any     `json:"seconds"` // null: still blocked
		Waited float64 `json:"waited_seconds"`
		Bound  any     `json:"bound_seconds"` // null: none, or a host that answers
		Said   *string `json:"said"`          // null: no error
	}
	type rest struct {
		With        string `json:"with"`
		Blocked     int    `json:"blocked"`
		Goroutines  *int   `json:"goroutines"` // null: not counted, the client is a program
		Descriptors *int   `json:"descriptors"`
		Processes   int    `json:"processes"`
	}
	document := struct {
		Head
		Runs []run  `json:"runs"`
		Left []rest `json:"left"`
	}{head(m), []run{}, []rest{}}
	for i := range calls {
		c := &calls[i]
		j := run{Story: c.Story, Host: c.Host, Call: c.Call, With: c.With, Count: 1, Took: secondsJSON(c.Took), Waited: seconds(c.Waited), Bound: secondsJSON(c.Bound)}
		if c.Said != "" {
			j.Said = &c.Said
		}
		document.Runs = append(document.Runs, j)
	}
	for i := range left {
		l := &left[i]
		j := rest{With: l.With, Blocked: l.Blocked, Processes: l.Processes}
		if l.Goroutines.OK {
			j.Goroutines = &l.Goroutines.Value
		}
		if l.Descriptors.OK {
			j.Descriptors = &l.Descriptors.Value
		}
		document.Left = append(document.Left, j)
	}
	return encode(w, document, false)
}
