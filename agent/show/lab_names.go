package show

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// LabName is what became of one client of a replay.
type LabName struct {
	Story  string // names
	Client string
	With   string // what helped
	Took   time.Duration
	OK     bool // it got what it asked for
	Said   string
}

// LabNames writes the clients as a table.
func LabNames(w io.Writer, clients []LabName) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CLIENT\tWITH\tTOOK\tRESULT\tSAID\n")
	for _, c := range clients {
		result := "ok"
		if !c.OK {
			result = "failed"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Client, c.With, elapsed(fact.Seen(c.Took), ""), result, c.Said)
	}
	_ = t.Flush()
}

// LabNamesJSON writes the same as one document. Of m only the host, the time and
// what could not be seen are used.
func LabNamesJSON(w io.Writer, m *fact.Machine, clients []LabName) error {
	type run struct {
		Story  string  `json:"story"`
		Client string  `json:"client"`
		With   string  `json:"with"`
		Count  int     `json:"count"`
		Took   float64 `json:"seconds"`
		OK     bool    `json:"ok"`
		Said   string  `json:"said"`
	}
	document := struct {
		Head
		Runs []run `json:"runs"`
	}{head(m), []run{}}
	for _, c := range clients {
		document.Runs = append(document.Runs, run{Story: c.Story, Client: c.Client, With: c.With, Count: 1, Took: seconds(c.Took), OK: c.OK, Said: c.Said})
	}
	return encode(w, document, false)
}
