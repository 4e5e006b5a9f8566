package show

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// LabRun is what one end of a replay's connections came to know, and when. All
// times count from the failure.
type LabRun struct {
	Story    string // silence
	Traffic  string // idle or sending
	With     string // what stood guard
	At       string // server or clients
	Count    int    // connections
	Learned  int    // those whose program learned; 0 in a run that was only computed
	Computed bool   // was not waited for: only Bound is known
	Verdict  fact.Known[time.Duration]
	First    fact.Known[time.Duration] // that a program learned
	Last     fact.Known[time.Duration] // unknown unless all did
	Bound    bound.Bound               // that the kernel keeps, by the options of the sockets
	Retries2 int                       // tcp_retries2 where it was shortened, else 0
	By       []string                  // what the programs were told
}

// Lab writes the runs as a table.
func Lab(w io.Writer, runs []LabRun) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "TRAFFIC\tWITH\tAT\tCONNECTIONS\tVERDICT\tFIRST LEARNED\tLAST LEARNED\tKERNEL'S BOUND\tTOLD\n")
	for i := range runs {
		r := &runs[i]
		last := elapsed(r.Last, fmt.Sprintf("%s of %s never did", verdict.Number(r.Count-r.Learned), verdict.Number(r.Count)))
		if r.Computed {
			last = "not waited for"
		}
		limit := r.Bound.String()
		if r.Retries2 != 0 {
			limit += fmt.Sprintf(", tcp_retries2=%d", r.Retries2)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Traffic, r.With, r.At, verdict.Number(r.Count), elapsed(r.Verdict, "-"),
			elapsed(r.First, "-"), last, limit, cmp.Or(strings.Join(r.By, ", "), "-"))
	}
	_ = t.Flush()
	fmt.Fprintf(w, "\nTimes count from the death of the node, or from its being told to go.\nKERNEL'S BOUND is how long programs could have waited; those that send, from their next heartbeat on.\n")
}

// elapsed tells seconds, so that those of a column compare at a glance.
func elapsed(d fact.Known[time.Duration], otherwise string) string {
	switch {
	case !d.OK:
		return otherwise
	case d.Value < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Value.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Value.Seconds())
}

// LabJSON writes the runs as one document. Of m only the host, the time and
// what could not be seen are used.
func LabJSON(w io.Writer, m *fact.Machine, runs []LabRun) error {
	type run struct {
		Story    string   `json:"story"`
		Traffic  string   `json:"traffic"`
		With     string   `json:"with"`
		At       string   `json:"at"`
		Count    int      `json:"count"`
		Learned  int      `json:"learned"`
		Measured bool     `json:"measured"`
		Verdict  any      `json:"verdict_seconds"`
		First    any      `json:"first_seconds"`
		Last     any      `json:"seconds"` // null unless all learned
		Bound    any      `json:"bound_seconds"`
		Retries2 *int     `json:"tcp_retries2"` // null where it is the kernel's own
		By       []string `json:"told"`
	}
	document := struct {
		Head
		Runs []run `json:"runs"`
	}{head(m), []run{}}
	for i := range runs {
		r := &runs[i]
		j := run{Story: r.Story, Traffic: r.Traffic, With: r.With, At: r.At, Count: r.Count, Learned: r.Learned, Measured: !r.Computed,
			Verdict: secondsJSON(r.Verdict), First: secondsJSON(r.First), Last: secondsJSON(r.Last),
			Bound: boundJSON(fact.Seen(r.Bound)), By: append([]string{}, r.By...)}
		if r.Retries2 != 0 {
			j.Retries2 = &r.Retries2
		}
		document.Runs = append(document.Runs, j)
	}
	return encode(w, document, false)
}
