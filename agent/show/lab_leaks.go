package show

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// LabLeak is what became of one program in a replay of the leaked sockets.
type LabLeak struct {
	With     string // the client of the program
	Took     time.Duration
	Builds   int // how often it made a client
	Sockets  int // that it held in the end
	Suspect  fact.Known[time.Duration]
	Found    fact.Known[time.Duration]
	FoundAt  int // after so many builds
	Site     *verdict.LeakSite
	Expected bool // it is the one that leaks
}

// LabLeaks writes the programs as a table, and below it what was found.
func LabLeaks(w io.Writer, runs []LabLeak, s Style) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CLIENT\tBUILDS\tSOCKETS\tSUSPECTED\tFOUND\tAFTER\n")
	for i := range runs {
		r := &runs[i]
		after := "-"
		if r.Found.OK {
			after = plural(r.FoundAt, "build")
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\n", r.With, r.Builds, r.Sockets, elapsed(r.Suspect, "-"), elapsed(r.Found, "-"), after)
	}
	_ = t.Flush()
	for i := range runs {
		if site := runs[i].Site; site != nil {
			fmt.Fprintln(w)
			Leak(w, site, s)
		}
	}
}

// LabLeaksJSON writes the same as one document. Of m only the host, the time and
// what could not be seen are used.
func LabLeaksJSON(w io.Writer, m *fact.Machine, runs []LabLeak) error {
	type run struct {
		Story   string    `json:"story"`
		With    string    `json:"with"`
		Count   int       `json:"count"` // sockets
		Builds  int       `json:"builds"`
		Seconds any       `json:"seconds"` // until it was found; null: it was not
		Suspect any       `json:"suspect_seconds"`
		FoundAt *int      `json:"found_after_builds"`
		Took    float64   `json:"looked_seconds"`
		Leaks   bool      `json:"leaks"`
		Site    *siteJSON `json:"site"`
	}
	d := struct {
		Head
		Runs []run `json:"runs"`
	}{head(m), []run{}}
	for i := range runs {
		r := &runs[i]
		one := run{Story: "leaks", With: r.With, Count: r.Sockets, Builds: r.Builds, Seconds: secondsJSON(r.Found), Suspect: secondsJSON(r.Suspect),
			Took: seconds(r.Took), Leaks: r.Expected}
		if r.Found.OK {
			one.FoundAt = &r.FoundAt
		}
		if r.Site != nil {
			site := siteOf(r.Site)
			one.Site = &site
		}
		d.Runs = append(d.Runs, one)
	}
	return encode(w, d, false)
}
