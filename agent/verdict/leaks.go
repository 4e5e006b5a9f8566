package verdict

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	// From 80 % of its file limit on, a process has room to be helped. At 95 % a
	// burst of connections ends it.
	filesHighPercent = 80
	filesFullPercent = 95

	// filesHour: who reaches the limit within the hour needs somebody now.
	filesHour = time.Hour

	// steadyGrowth is the least number of descriptors gained between two looks
	// that counts as growth. A process that opens and closes as often as it likes,
	// at random, gains 5 and closes none in under 1 % of looks; 2 in 10 %.
	steadyGrowth = 5

	// sandboxLimit: limits this small are set by programs that lock themselves in
	// (sshd's unprivileged half allows itself one descriptor), not by anyone who
	// runs a server.
	sandboxLimit = 64

	// closedFor is how long the peer must have been gone: a program that is busy
	// closes within seconds, and a Linux peer forgets its half within 60 s
	// (tcp_fin_timeout).
	closedFor = time.Minute

	// closedMany: connection pools notice a closed connection only when they want
	// to use it, so a few that wait are normal.
	closedMany = 10

	// closedShare is the share of the file limit, in per cent, that is worth a
	// word: a quarter spent on nothing.
	closedShare = 25
)

var fileLimit = Rule{
	Code:    "L001",
	Promise: Leaks,
	Title:   "a process is near its file limit",
	Worst:   Fail,
	Sees:    []string{"processes", "owners"},
	Meaning: `A process that reaches RLIMIT_NOFILE can open no file and accept no connection any more ("too many open files"), and many programs then spin or fall silent.

A warning above 80 % of the soft limit. A failure from 95 % on, or when the limit is less than an hour away at the rate between the two looks while the process gained at least 5 and closed none of the sockets that it held. Limits below 64, and limits below what is already open, are sandboxes that a program has built for itself and left out.`,
	Wrong: `A rate over a second is noisy: a burst looks like growth, and a slow leak like none. Programs that keep as many connections as they may (a proxy sized to its limit) live above 80 %.`,
	Fix: []string{
		"ls -l /proc/PID/fd | sort -k 11 shows what is open; lifeline census --by process,peer counts its sockets",
		"raise the limit: LimitNOFILE= in the unit, ulimits of the container, or prlimit --pid PID --nofile=LIMIT without a restart",
		"when the number only grows, find what is opened and never closed; a higher limit only moves the day",
	},
	judge: judgeFileLimit,
}

func judgeFileLimit(v *view) []Finding {
	var findings []Finding
	for i := range v.Processes {
		p := &v.Processes[i]
		files, ok := p.Files.Get()
		if !ok || files.Limit < sandboxLimit || files.Limit > math.MaxInt32 || uint64(max(files.Open, 0)) > files.Limit {
			continue
		}
		limit := int(files.Limit)
		if !above(files.Open, limit, filesHighPercent) {
			continue
		}
		findings = append(findings, v.filesFinding(p, files.Open, limit))
	}
	return findings
}

func (v *view) filesFinding(p *fact.Process, open, limit int) Finding {
	f := Finding{
		Severity: Warn,
		Title: fmt.Sprintf("%s has %s of %s file descriptors open (%d %%)",
			v.called(p.PID), Number(open), Number(limit), percent(open, limit)),
		Subject:  v.about(p.PID),
		Evidence: Values{{"open", open}, {"limit", limit}, {"used_percent", percent(open, limit)}},
		Why:      "At the limit it can open no file and accept no connection any more; many programs then spin or fall silent.",
		fill:     []string{"PID", strconv.Itoa(int(p.PID)), "LIMIT", strconv.FormatInt(4*int64(limit), 10)},
		weight:   percent(open, limit),
	}
	if open*100 >= limit*filesFullPercent {
		f.Severity = Fail
	}
	gained, ok := v.gained(p, open)
	if !ok {
		return f
	}
	perSecond := float64(gained) / v.elapsed.Seconds()
	f.Evidence = f.Evidence.add("growth_per_second", rounded(perSecond))
	if gained <= 0 {
		return f
	}
	const forever = 1e9 // seconds; a duration holds little more
	left := time.Duration(min(float64(limit-open)/perSecond, forever) * float64(time.Second))
	f.Evidence = f.Evidence.add("time_left_seconds", seconds(left))
	f.Title += fmt.Sprintf("; at the rate of the last %s the rest lasts %s", v.lately(), span(left))
	if gained >= steadyGrowth && left < filesHour && v.closedNothing(p.PID) {
		f.Severity = Fail
	}
	return f
}

// lately says which time a rate is of.
func (v *view) lately() string {
	if v.elapsed.Round(100*time.Millisecond) == time.Second {
		return "second"
	}
	return span(v.elapsed)
}

// gained is how many descriptors the process has more than in the earlier look.
func (v *view) gained(p *fact.Process, open int) (int, bool) {
	if v.Earlier == nil || v.elapsed <= 0 {
		return 0, false
	}
	was := v.Earlier.Process(p.PID)
	if was == nil || was.Name != p.Name { // the number was given to another process
		return 0, false
	}
	files, ok := was.Files.Get()
	return open - files.Open, ok
}

// closedNothing reports that the process still holds every socket that it held
// in the earlier look, and held some: it gathers, and does not turn over.
func (v *view) closedNothing(pid int32) bool {
	held := make(map[uint64]bool)
	for i := range v.Sockets {
		if s := &v.Sockets[i]; owner(s) == pid {
			held[s.Cookie] = true
		}
	}
	any := false
	for i := range v.Earlier.Sockets {
		if s := &v.Earlier.Sockets[i]; owner(s) == pid {
			if !held[s.Cookie] {
				return false
			}
			any = true
		}
	}
	return any
}

var closeWait = Rule{
	Code:    "L003",
	Promise: Leaks,
	Title:   "the peer has closed and the program does not",
	Worst:   Warn,
	Sees:    []string{"sockets", "owners"},
	Meaning: `A connection in CLOSE_WAIT was closed by its peer; it stays until the program closes it too. No timer of the kernel ever does. Programs that forget leave more of them with every connection, until their file limit.

Raised per process for connections whose peer has been gone for at least a minute: since when is not known, but not since the last acknowledgement. From 10 on it is a warning, below it is information, because connection pools notice a closed connection only when they want to use it.`,
	Wrong: `A peer that closes only its sending half and waits for a long answer looks the same. While the peer's kernel still acknowledges keepalive probes, the age cannot be told and the connection is left out.`,
	Fix: []string{
		"close the connection when a read returns end of file: defer resp.Body.Close() and defer conn.Close() in Go",
		"ss -tnp state close-wait lists them",
		"a connection pool: an idle timeout below the server's, or a check before use",
	},
	judge: judgeCloseWait,
}

func judgeCloseWait(v *view) []Finding {
	var stale []*conn
	for i := range v.conns {
		if c := &v.conns[i]; c.State == fact.CloseWait && c.Conn.Unacked == 0 && c.Conn.LastAck >= closedFor {
			stale = append(stale, c)
		}
	}
	return eachCrowd(stale, v.closeWaitFinding)
}

func (v *view) closeWaitFinding(c crowd) Finding {
	who, subject := v.facing(c.conns)
	n := len(c.conns)
	var longest time.Duration
	for _, s := range c.conns {
		longest = max(longest, s.Conn.LastAck)
	}
	f := Finding{
		Severity: Info,
		Title: fmt.Sprintf("%s %s %s that %s closed at least %s ago",
			v.calledAll(c), choose(max(c.others, 1), "keeps", "keep"), count(n, "connection"), who, span(longest)),
		Subject:  append(v.aboutAll(c), subject...).add("count", n),
		Evidence: Values{{"state", "close-wait"}, {"longest_at_least_seconds", seconds(longest)}, {"bound", "never"}},
		Why:      "The peer said that it is done, and the program has not closed its side. Each holds a file descriptor, and no timer of the kernel ends it.",
		weight:   n,
	}
	if n >= closedMany {
		f.Severity = Warn
	}
	if c.pid == 0 && c.others == 0 {
		f.Why = "The peer said that it is done, and no process holds the connection: it was never accepted, or whoever holds it could not be seen."
	}
	if p := v.Process(c.pid); p != nil && c.others == 0 {
		if files, ok := p.Files.Get(); ok && files.Limit <= math.MaxInt32 {
			f.Evidence = f.Evidence.add("file_limit", int(files.Limit))
			if above(n, int(files.Limit), closedShare) {
				f.Why += fmt.Sprintf(" They take %d %% of its %s descriptors.", percent(n, max(int(files.Limit), 1)), Number(int(files.Limit)))
			}
		}
	}
	return f
}
