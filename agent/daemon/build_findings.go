package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// The codes of findings that come from what goes on, not from a look.
const (
	silentCode = "S001"
	leakCode   = verdict.LeakingCode // a line of code that opens sockets and does not close them
)

// silence is the finding of a verdict of the watch: that of S001.
func silence(c *verdict.Change) verdict.Finding {
	f := verdict.Finding{Code: silentCode, Promise: verdict.Silence, Severity: verdict.Fail, Evidence: c.Evidence,
		Subject: verdict.Values{{Key: "peer", V: c.Addr.String()}, {Key: "netns", V: c.Netns}, {Key: "processes", V: holderNames(c.Processes)}, {Key: "count", V: c.Count}},
		Why:     "What was sent to it went unanswered. Programs that use these connections do not know it: writes succeed, reads wait."}
	f.Title = fmt.Sprintf("%s is silent: %s", c.Addr, many(c.Count, "connection"))
	if quiet, ok := c.Quiet.Get(); ok {
		f.Title += fmt.Sprintf(", nothing acknowledged for %s when it was noticed", bound.Format(quiet))
	}
	last, known := c.Last.Get()
	switch {
	case c.Never:
		f.Why += " Of some the kernel never tells."
	case known:
		f.Bound = c.Last
		f.Why += fmt.Sprintf(" The kernel tells the last of them after %s.", bound.Format(last))
	}
	f.Fix = fixOf(silentCode, c.Addr)
	return f
}

// fixOf is the advice of a rule about a peer.
func fixOf(code string, peer netip.Addr) []string {
	i := slices.IndexFunc(verdict.Rules, func(r verdict.Rule) bool { return r.Code == code })
	fix := slices.Clone(verdict.Rules[i].Fix)
	for i := range fix {
		fix[i] = strings.ReplaceAll(fix[i], "PEER", peer.String())
	}
	return fix
}

func holderNames(holders []verdict.Holder) []string {
	names := []string{}
	for _, h := range holders {
		names = append(names, fmt.Sprintf("%s[%d]", h.Name, h.PID))
	}
	return names
}

// leaking are the findings about code that does not close what it opens.
func leaking(sites []verdict.LeakSite) []verdict.Finding {
	var found []verdict.Finding
	for i := range sites {
		s := &sites[i]
		if s.Verdict == verdict.Healthy {
			continue
		}
		at := s.AskedBy
		if at.Func == "" {
			at = s.OpenedAt
		}
		f := verdict.Finding{Code: leakCode, Promise: verdict.Leaks, Severity: verdict.Warn,
			Title: fmt.Sprintf("%s (pid %d) leaves sockets open: %s to %s, opened in %s", s.Process, s.PID, verdict.Number(s.Open), s.Peer, place(at)),
			Subject: verdict.Values{{Key: "pid", V: s.PID}, {Key: "process", V: s.Process}, {Key: "peer", V: s.Peer},
				{Key: "function", V: at.Func}, {Key: "file", V: at.File}, {Key: "line", V: at.Line}, {Key: "count", V: s.Open}},
			Evidence: verdict.Values{{Key: "opened", V: s.Opened}, {Key: "open", V: s.Open}, {Key: "idle_count", V: s.IdleMany},
				{Key: "idle_seconds", V: secondsOf(s.Idle)}, {Key: "file_limit_in_seconds", V: secondsOf(s.Left)}},
			Why: s.Diagnosis, Bound: s.Left,
			Fix: []string{"close what is opened there: the response's body, the connection, or the client with all it keeps",
				fmt.Sprintf("lifeline leaks --pid %d shows who asks for it", s.PID)},
		}
		if s.Verdict == verdict.Leaking {
			f.Severity = verdict.Fail
		}
		f.Title, f.Why = fact.Printable(f.Title), fact.Printable(f.Why)
		found = append(found, f)
	}
	return found
}

// place is a call in words.
func place(c fact.Call) string {
	if c.Line == 0 {
		return c.Func
	}
	return fmt.Sprintf("%s (%s:%d)", c.Func, c.File[strings.LastIndex(c.File, "/")+1:], c.Line)
}

// secondsOf is nil for what is not known.
func secondsOf(d fact.Known[time.Duration]) any {
	if v, ok := d.Get(); ok {
		return v.Seconds()
	}
	return nil
}
