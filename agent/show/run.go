package show

import (
	"fmt"
	"io"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// RunReport is what became of the questions of a program that lifeline run
// started, and of those that it started itself.
type RunReport struct {
	Way      string // seccomp or proxy
	Why      string // it is not seccomp; "" when it is
	Answered int64  // questions by the stub, or connections by the proxy
	Refused  int64  // that were not the program's
	Lost     bool   // the process that kept the program was killed, and what it had counted before
	Programs []RunCount
}

// RunCount is what became of one program's.
type RunCount struct {
	Program    string
	Redirected bool
	Reason     string // a sentence about the program
	Error      string
	Times      int
}

// RunText writes it for people.
func RunText(w io.Writer, r RunReport) {
	what := "questions answered"
	if r.Way == "proxy" {
		what = "connections by the proxy"
	}
	fmt.Fprintf(w, "lifeline run: %s %s, %s refused that were not the program's\n", verdict.Number(int(r.Answered)), what, verdict.Number(int(r.Refused)))
	if r.Lost {
		fmt.Fprintf(w, "  the process that kept the program was killed; another went on, and what was counted before is lost\n")
	}
	for _, c := range r.Programs {
		why := ""
		if c.Error != "" {
			why = ": " + c.Error
		}
		fmt.Fprintf(w, "  %s %s%s (%s×)\n", c.Program, c.Reason, why, verdict.Number(c.Times))
	}
}

// RunJSON writes it as one document.
func RunJSON(w io.Writer, m *fact.Machine, r RunReport) error {
	list := []verdict.Values{}
	for _, c := range r.Programs {
		list = append(list, verdict.Values{
			{Key: "program", V: c.Program},
			{Key: "redirected", V: c.Redirected},
			{Key: "reason", V: c.Reason},
			{Key: "error", V: textOrNull(c.Error)},
			{Key: "count", V: c.Times},
		})
	}
	h := head(m)
	return encode(w, verdict.Values{
		{Key: "schema", V: h.Schema},
		{Key: "host", V: h.Host},
		{Key: "time", V: h.Time},
		{Key: "blind", V: h.Blind},
		{Key: "way", V: r.Way},
		{Key: "why", V: textOrNull(r.Why)},
		{Key: "answered", V: r.Answered},
		{Key: "refused", V: r.Refused},
		{Key: "keeper_lost", V: r.Lost},
		{Key: "programs", V: list},
	}, false)
}

func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
