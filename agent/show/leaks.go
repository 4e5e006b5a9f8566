package show

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// Leaks writes what leaks and what may, with all also the rest; at the end what
// was open before.
func Leaks(w io.Writer, o *fact.Openings, sites []verdict.LeakSite, all bool, s Style) {
	p := &page{w: w, style: s}
	told, open := 0, 0
	for i := range sites {
		open += sites[i].Open
		if sites[i].Verdict == verdict.Healthy && !all {
			continue
		}
		if told > 0 {
			p.line("")
		}
		told++
		Leak(w, &sites[i], s)
	}
	if told == 0 {
		rest := "nothing that was opened meanwhile is open"
		if open > 0 {
			rest = fmt.Sprintf("%s of those opened meanwhile %s open, by %s of code", plural(open, "socket"), choose(open, "is", "are"), plural(len(sites), "line"))
		}
		p.hang("", "  ", fmt.Sprintf("Nothing leaks, as far as %s can tell: %s.", bound.Format(o.Now), rest))
	}
	for _, program := range o.Programs {
		if program.Older > 0 {
			p.hang("", "  ", fmt.Sprintf("%s (pid %d) had %s open before: who opened those is not known, and they are not judged.",
				orUnknown(program.Name), program.PID, plural(program.Older, "connection")))
		}
	}
	if o.Dropped > 0 {
		p.hang("", "  ", fmt.Sprintf("%s found no room and were not noted.", plural(int(o.Dropped), "socket")))
	}
}

// Leak writes one line of code that opens sockets, with what is thought of it and
// the way from it to the socket.
func Leak(w io.Writer, site *verdict.LeakSite, s Style) {
	p := &page{w: w, style: s}
	colour := map[verdict.LeakVerdict]string{verdict.Leaking: "31", verdict.Suspected: "33"}[site.Verdict]
	head := fmt.Sprintf("%s %s (pid %d)", strings.ToUpper(site.Verdict.String()), orUnknown(site.Process), site.PID)
	if site.Container != "" {
		head += " in container " + site.Container[:min(len(site.Container), 12)]
	}
	p.hang("", "  ", s.paint(colour, head)+": "+siteText(site))
	if site.Diagnosis != "" {
		p.hang("  ", "  ", site.Diagnosis+".")
	}
	stackOf(p, site)
}

// siteText is what was counted.
func siteText(s *verdict.LeakSite) string {
	peer := s.Peer
	if s.PeerProcess != "" {
		peer += fmt.Sprintf(" of %s (pid %d)", s.PeerProcess, s.PeerPID)
	}
	preposition := "to"
	if s.Accepted {
		preposition = "from"
	}
	text := fmt.Sprintf("%s open %s %s, of %s opened, %s at a time", plural(s.Open, "socket"), preposition, peer, verdict.Number(s.Opened), verdict.Number(s.PerOperation()))
	if idle, ok := s.Idle.Get(); ok {
		text += fmt.Sprintf("; idle for up to %s", bound.Format(idle))
	}
	if s.Clients > 0 {
		text += fmt.Sprintf("; of %s", plural(s.Clients, "http.Transport"))
	}
	if left, ok := s.Left.Get(); ok {
		text += fmt.Sprintf("; the file limit is reached in %s", bound.Format(left))
	}
	return text + "."
}

// stackOf writes the program's own code that asked with its callers first, then by
// which way the socket was opened, of each library only the call into it.
func stackOf(p *page, s *verdict.LeakSite) {
	lines := entries(s.Stack)
	if at := slices.Index(s.Stack, s.AskedBy); at >= 0 {
		lines = entries(s.Stack[at:])
		if at > 0 {
			way := slices.Clone(s.Stack[:at])
			slices.Reverse(way)
			lines = append(append(lines, stackLine{"by way of", ""}), entries(way)...)
		}
	}
	if s.UsedAt.Func != "" {
		lines = append(lines, stackLine{"used last in", ""}, stackLine{s.UsedAt.Func, place(s.UsedAt)})
	}
	width := 0
	for _, l := range lines {
		width = max(width, min(visible(l.call), 70))
	}
	for _, l := range lines {
		indent := "      "
		if l.place == "" && !strings.HasPrefix(l.call, "…") {
			indent = "    "
		}
		p.line(strings.TrimRight(indent+l.call+strings.Repeat(" ", max(width-visible(l.call), 0))+"  "+l.place, " "))
	}
	if s.Unknown != "" {
		p.hang("    ", "    ", "("+s.Unknown+")")
	}
}

// entries are calls in lines. Of several within one library only the first is of
// use to who asks what leaks.
func entries(calls []fact.Call) (lines []stackLine) {
	for i := 0; i < len(calls); {
		end := i + 1
		root := library(calls[i])
		for end < len(calls) && root != "" && library(calls[end]) == root {
			end++
		}
		lines = append(lines, stackLine{calls[i].Func, place(calls[i])})
		switch hidden := end - i - 1; {
		case hidden > 1:
			lines = append(lines, stackLine{fmt.Sprintf("… %d calls within %s", hidden, root), ""})
		case hidden == 1:
			lines = append(lines, stackLine{calls[i+1].Func, place(calls[i+1])})
		}
		i = end
	}
	return lines
}

// library is what a call belongs to that is no code of the program: a package of
// the standard library, those below net as one, or the repository of another; ""
// for packages without a host, which are the program's.
func library(c fact.Call) string {
	path := c.Package()
	parts := strings.Split(path, "/")
	switch {
	case path == "main":
		return ""
	case verdict.Library(c) && !strings.Contains(parts[0], "."):
		if path == "net" || slices.Contains([]string{"internal", "runtime", "syscall"}, parts[0]) {
			return "net"
		}
		return path
	case !strings.Contains(parts[0], "."):
		return ""
	case strings.HasSuffix(parts[0], "hub.com") || strings.HasSuffix(parts[0], "lab.com") || parts[0] == "bitbucket.org" || parts[0] == "golang.org":
		return strings.Join(parts[:min(3, len(parts))], "/")
	}
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// siteJSON is verdict.LeakSite in JSON.
type siteJSON struct {
	PID          int32               `json:"pid"`
	Process      *string             `json:"process"`
	Container    string              `json:"container,omitempty"`
	AskedBy      *callJSON           `json:"asked_by"`
	OpenedAt     *callJSON           `json:"opened_at"`
	UsedAt       *callJSON           `json:"used_at"`
	Stack        []callJSON          `json:"stack"`
	Unknown      *string             `json:"stack_unknown"`
	Peer         string              `json:"peer"`
	Peers        int                 `json:"peers"`
	PeerPID      *int32              `json:"peer_pid"`
	PeerProcess  *string             `json:"peer_process"`
	Accepted     bool                `json:"accepted"`
	Opened       int                 `json:"opened"`
	Open         int                 `json:"open"`
	Idle         *float64            `json:"idle_seconds"` // of the one that is idle longest
	IdleMany     int                 `json:"idle_count"`
	Transports   *int                `json:"transports"`
	PerOperation int                 `json:"per_operation"`
	Left         *float64            `json:"files_left_seconds"`
	Verdict      verdict.LeakVerdict `json:"verdict"`
	Diagnosis    *string             `json:"diagnosis"`
}

func siteOf(s *verdict.LeakSite) siteJSON {
	j := siteJSON{PID: s.PID, Process: text(s.Process), Container: s.Container, AskedBy: callOf(s.AskedBy), OpenedAt: callOf(s.OpenedAt), UsedAt: callOf(s.UsedAt),
		Stack: []callJSON{}, Unknown: text(s.Unknown), Peer: s.Peer, Peers: s.Peers, PeerProcess: text(s.PeerProcess), Accepted: s.Accepted,
		Opened: s.Opened, Open: s.Open, IdleMany: s.IdleMany, PerOperation: s.PerOperation(), Verdict: s.Verdict, Diagnosis: text(s.Diagnosis)}
	for _, c := range s.Stack {
		j.Stack = append(j.Stack, callJSON{c.Func, c.File, c.Line})
	}
	if s.PeerPID != 0 {
		j.PeerPID = &s.PeerPID
	}
	if idle, ok := s.Idle.Get(); ok {
		v := seconds(idle)
		j.Idle = &v
	}
	if left, ok := s.Left.Get(); ok {
		v := seconds(left)
		j.Left = &v
	}
	if s.Clients > 0 {
		j.Transports = &s.Clients
	}
	return j
}

// text is null where there is none.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// LeaksJSON writes who opened what is open as one document.
func LeaksJSON(w io.Writer, m *fact.Machine, o *fact.Openings, sites []verdict.LeakSite, line bool) error {
	type older struct {
		PID     int32  `json:"pid"`
		Process string `json:"process"`
		Count   int    `json:"count"`
	}
	d := struct {
		Head
		Looked  float64    `json:"looked_seconds"`
		Dropped uint64     `json:"not_noted"`
		Older   []older    `json:"older"`
		Sites   []siteJSON `json:"sites"`
	}{head(m), seconds(o.Now), o.Dropped, []older{}, []siteJSON{}}
	for _, p := range o.Programs {
		if p.Older > 0 {
			d.Older = append(d.Older, older{p.PID, p.Name, p.Older})
		}
	}
	for i := range sites {
		d.Sites = append(d.Sites, siteOf(&sites[i]))
	}
	return encode(w, d, line)
}
