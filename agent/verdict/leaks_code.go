package verdict

import (
	"fmt"
	"strconv"
)

var leakingCode = Rule{
	Code:    "L004",
	Promise: Leaks,
	Title:   "code opens sockets and does not close them",
	Worst:   Fail,
	Sees:    []string{"openers"},
	Watch:   true,
	Meaning: `A line of code opens a socket although ever more that it opened before, to the same peer, are open and have not been used for long. Who has a pool takes an idle connection before opening another; who opens one all the same cannot use those any more, and has forgotten to close them. The process lasts until its file limit.

A failure when a socket was opened 6 times in a row while more than ever of the same line had been idle for over 5 minutes. A warning when they had been idle for over 30 seconds, or when of the sockets that were accepted, or went to ever more peers, in each of four periods of 5 minutes nearly all are open and unused. It takes minutes to hours of watching: ` + "`lifeline agent`" + ` and ` + "`lifeline leaks`" + ` find it, ` + "`lifeline check`" + ` does not. ` + "[leaks.md](leaks.md)" + ` has the reasons for the thresholds.`,
	Wrong: `A program that keeps connections on purpose and never uses those that it has, such as a standby per request, looks the same. A server may be meant to hold idle connections: what was accepted is only suspected. Sockets that were opened before the watch began are known by their number alone.`,
	Fix: []string{
		"close what is opened there: the response's body, the connection, or the client with all that it keeps",
		"lifeline leaks --pid PID shows who asks for it, with the whole stack",
		"until it is mended: restart it before its file limit is reached; the finding says how long that is, where it is known",
	},
	judge: judgeSites,
}

// JudgeSites applies the rule L004 to what [LeakWatch.Sites] returned, as Judge
// does the others to a look.
func JudgeSites(sites []LeakSite) []Finding {
	return judgeBy(&view{sites: sites}, leakingCode)
}

func judgeSites(v *view) []Finding {
	var findings []Finding
	for i := range v.sites {
		if s := &v.sites[i]; s.Verdict != Healthy {
			findings = append(findings, siteFinding(s))
		}
	}
	return findings
}

func siteFinding(s *LeakSite) Finding {
	at := s.AskedBy
	if at.Func == "" {
		at = s.OpenedAt
	}
	opened := "by code that is not known"
	if at.Func != "" && (at.Line > 0 || s.AskedBy.Func != "") { // not a function of the C library
		opened = fmt.Sprintf("in %s (%s)", at.Func, where(at))
	}
	f := Finding{
		Severity: Warn,
		Title:    fmt.Sprintf("%s (pid %d) leaves %s open to %s, opened %s", s.Process, s.PID, count(s.Open, "socket"), s.Peer, opened),
		Subject:  Values{{"pid", s.PID}, {"process", s.Process}},
		Evidence: Values{{"opened", s.Opened}, {"idle_count", s.IdleMany}, {"idle_seconds", known(s.Idle)}, {"time_left_seconds", known(s.Left)}},
		Why:      s.Diagnosis,
		Bound:    s.Left,
		weight:   s.Open,
		fill:     []string{"PID", strconv.Itoa(int(s.PID))},
	}
	if s.Container != "" {
		f.Subject = f.Subject.add("container", s.Container)
	}
	if s.Peers > 1 {
		f.Subject = f.Subject.add("peers", s.Peers)
	} else {
		f.Subject = f.Subject.add("peer", s.Peer)
	}
	f.Subject = f.Subject.add("count", s.Open)
	if at.Func != "" {
		f.Evidence = f.Evidence.add("opened_in", at.Func).add("file", at.File).add("line", at.Line)
	}
	if s.Verdict == Leaking {
		f.Severity = Fail
	}
	return f
}
