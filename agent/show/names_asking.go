package show

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// Asking writes what a process asks for names, of whom, and since when.
func Asking(w io.Writer, m *fact.Machine, a *verdict.Asking, s Style) {
	p := &page{w: w, style: s}
	who := processText(&verdict.Waiting{PID: a.PID, Process: a.Process, Container: a.Container})
	if len(a.Questions)+len(a.Goroutines) == 0 {
		p.hang("", "  ", s.paint("1", who)+" asks nobody for a name now.")
	} else {
		p.line(s.paint("1", who) + ":")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range a.Questions {
		q := &a.Questions[i]
		if i == 0 {
			fmt.Fprintf(t, "  FD\tASKS\tBY\tSINCE\tSTATE\n")
		}
		fmt.Fprintf(t, "  %d\t%s\t%s\t%s\t%s\n", q.FD, askedOf(q), q.Protocol, sinceText(q), questionState(q))
	}
	_ = t.Flush()
	goroutineGroups(p, a.Goroutines)
	if a.Ended > 0 {
		p.hang("  ", "    ", fmt.Sprintf("%s open when the look began and %s closed meanwhile: answered, or given up and asked again.",
			plural(a.Ended, "socket")+was(a.Ended), was(a.Ended)[1:]))
	}
	if a.Unconnected > 0 {
		p.hang("  ", "    ", fmt.Sprintf("%s no peer: the kernel does not say whom they ask, if anybody (musl and c-ares ask so).", plural(a.Unconnected, "UDP socket")+has(a.Unconnected)))
	}
	if m.Names != nil {
		for _, line := range serverRoutes(m.Names) {
			p.hang("  ", "    ", line)
		}
	}
}

func was(n int) string {
	if n == 1 {
		return " was"
	}
	return " were"
}

func has(n int) string {
	if n == 1 {
		return " has"
	}
	return " have"
}

func askedOf(q *verdict.Question) string {
	switch {
	case q.Daemon != "":
		return q.Daemon
	case q.Configured:
		return q.Server.String()
	}
	return q.Server.String() + ", not of resolv.conf"
}

func sinceText(q *verdict.Question) string {
	switch {
	case q.Looked:
		return "all " + bound.Format(q.Since) + " of this look or longer"
	case q.Since == 0:
		return "during this look"
	}
	return bound.Format(q.Since)
}

func questionState(q *verdict.Question) string {
	switch {
	case q.Connecting:
		return "not connected yet"
	case q.Bytes > 0:
		return fmt.Sprintf("answered, not read: %s", plural(int(q.Bytes), "byte"))
	case q.Waits:
		return "no answer"
	}
	return "answered, or nothing asked"
}

type questionJSON struct {
	FD         int32   `json:"fd"`
	Server     *string `json:"server"` // null: a daemon
	Daemon     *string `json:"daemon"`
	Protocol   string  `json:"protocol"`
	Configured bool    `json:"configured"`
	Waits      bool    `json:"unanswered"`
	Since      float64 `json:"since_seconds"` // at least
	Looked     bool    `json:"since_is_look"` // it is only the length of the look
	Connecting bool    `json:"connecting"`
	Bytes      uint32  `json:"unread_bytes"`
}

// AskingJSON writes the same as one document.
func AskingJSON(w io.Writer, m *fact.Machine, a *verdict.Asking) error {
	questions := []questionJSON{}
	for i := range a.Questions {
		q := &a.Questions[i]
		j := questionJSON{FD: q.FD, Daemon: given(q.Daemon), Protocol: q.Protocol.String(), Configured: q.Configured, Waits: q.Waits,
			Since: seconds(q.Since), Looked: q.Looked, Connecting: q.Connecting, Bytes: q.Bytes}
		if q.Server.IsValid() {
			j.Server = given(q.Server.String())
		}
		questions = append(questions, j)
	}
	goroutines := []goroutineJSON{}
	for i := range a.Goroutines {
		goroutines = append(goroutines, goroutineOf(&a.Goroutines[i]))
	}
	return encode(w, struct {
		Head
		PID         int32           `json:"pid"`
		Process     *string         `json:"process"`
		Container   *string         `json:"container"`
		Questions   []questionJSON  `json:"asking"`
		Ended       int             `json:"ended"`
		Unconnected int             `json:"unconnected"`
		Goroutines  []goroutineJSON `json:"goroutines"`
	}{head(m), a.PID, given(a.Process), given(a.Container), questions, a.Ended, a.Unconnected, goroutines}, false)
}
