package verdict

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	// longWait is the time after which a call is worth a line: nearly every
	// client that has a timeout at all has one of 30 s or less.
	longWait = 30 * time.Second

	// replyGap tells a request from an echo. Window updates of HTTP/2 and SSH,
	// acknowledged settings and PONGs of NATS leave within milliseconds of what
	// they answer, and would make every idle connection look like one that waits.
	replyGap = time.Second

	// oneWay: who sends ten segments for each that comes back ships logs, metrics
	// or a replica and expects no answers.
	oneWay = 10

	// firstRequest is how many segments a connection that never heard anything
	// may have sent to count as one whose first request is unanswered: a request
	// fits, a log shipper is soon beyond.
	firstRequest = 5

	// To be likely and not just possible, a connection must have heard several
	// segments (a TLS handshake alone brings about four), and not much fewer than
	// it sent, as requests and answers do.
	severalAnswers = 5
	fairShare      = 2

	// callsApart is how many groups of waiting calls get a finding of their own.
	callsApart = 10
)

var unansweredCall = Rule{
	Code:    "C001",
	Promise: Calls,
	Title:   "a request was sent and acknowledged, and no answer came",
	Worst:   Warn,
	Sees:    []string{"sockets", "owners"},
	Meaning: `The peer's kernel has acknowledged everything, so the path works, and its program has said nothing since: it hangs, it is stopped, it is stuck behind something else, or it takes long. Keepalive never ends such a wait, because the peer's kernel goes on answering; only a deadline in the program does.

Raised per process and remote address for connections that this side opened (their local port is not listened on), on which something was sent over 30 s ago and nothing came after it. Likely (a warning) when the connection has heard at least 5 segments and at least half as many as it sent, as requests and answers do; possible (information) otherwise. What was sent within a second of the last thing received counts as an echo of it (window updates, PING answers) and not as a request. Connections that send over 10 segments for each that comes back are one-way and left out; so are those that never heard anything and sent more than 5.`,
	Wrong: `Long polls and watches wait by design: a Consul or etcd watch, a blocking queue. A protocol without answers that also receives now and then (a NATS publisher between two PINGs) looks possible. A call behind a busy multiplexed connection (HTTP/2, SSH with several channels) is not seen, because other data keeps coming.`,
	Fix: []string{
		"give the call a deadline: context.WithTimeout in Go, a read timeout elsewhere; keepalive does not help",
		"look at the other end: its program took the request and does not answer",
		"ss -tnpoi dst PEER shows lastsnd and lastrcv of each connection, in milliseconds",
	},
	judge: judgeUnanswered,
}

// waiting is the calls of one process to one address.
type waiting struct {
	pid    int32
	netns  uint32
	remote netip.AddrPort
	likely int
	count  int
	never  int // heard nothing at all
	oldest time.Duration
}

func judgeUnanswered(v *view) []Finding {
	type key struct {
		pid    int32
		netns  uint32
		remote netip.AddrPort
	}
	index := make(map[key]int)
	var groups []waiting
	for i := range v.conns {
		c := &v.conns[i]
		if !waitsForAnswer(c, longWait) {
			continue
		}
		k := key{owner(c.Socket), c.Netns, c.Remote}
		at, found := index[k]
		if !found {
			at = len(groups)
			index[k] = at
			groups = append(groups, waiting{pid: k.pid, netns: k.netns, remote: k.remote})
		}
		groups[at].take(c)
	}
	byWeight(groups, waiting.weight)
	each, folded := apart(groups, callsApart)
	var findings []Finding
	for i := range each {
		findings = append(findings, v.waitingFinding(&each[i]))
	}
	if len(folded) > 0 {
		findings = append(findings, waitingRest(folded))
	}
	return findings
}

// weight puts likely calls before possible ones.
func (w waiting) weight() int { return min(w.likely, 1)<<30 + min(w.count, 1<<30-1) }

// waitsForAnswer reports a connection that was opened here, whose last word was
// ours, at least so long ago, and to which every byte of it was acknowledged.
func waitsForAnswer(c *conn, least time.Duration) bool {
	if c.accepted || c.State != fact.Established || c.RecvQueue > 0 ||
		c.Conn.Unacked > 0 || c.Conn.NotSent > 0 || c.Conn.Probes > 0 {
		return false
	}
	out, spoke := c.Conn.SegmentsOut.Get()
	in, heard := c.Conn.SegmentsIn.Get()
	if !spoke || !heard || out == 0 {
		return false
	}
	if c.Conn.LastSent <= least || c.Conn.LastReceived < c.Conn.LastSent {
		return false
	}
	if in == 0 {
		return out <= firstRequest
	}
	return c.Conn.LastReceived-c.Conn.LastSent >= replyGap && uint64(out) <= oneWay*uint64(in)
}

func (w *waiting) take(c *conn) {
	w.count++
	w.oldest = max(w.oldest, c.Conn.LastSent)
	in, out := uint64(c.Conn.SegmentsIn.Value), uint64(c.Conn.SegmentsOut.Value)
	switch {
	case in == 0:
		w.never++
	case in >= severalAnswers && in*fairShare >= out:
		w.likely++
	}
}

func (v *view) waitingFinding(w *waiting) Finding {
	f := Finding{
		Severity: Info,
		Subject:  v.about(w.pid).add("peer", w.remote.String()).add("netns", w.netns).add("count", w.count),
		weight:   w.weight(),
	}
	verb := choose(w.count, "has", "have")
	if w.likely > 0 {
		f.Severity = Warn
		f.Title = fmt.Sprintf("%s of %s to %s %s had no answer for %s", count(w.count, "call"), v.called(w.pid), w.remote, verb, upTo(w.count, w.oldest))
		f.Why = "These connections were answered before, and the last thing on them is a request that the peer's kernel acknowledged. Its program does not answer, and keepalive will not end the wait."
	} else {
		f.Title = fmt.Sprintf("%s of %s to %s may have had no answer for %s (possible)", count(w.count, "call"), v.called(w.pid), w.remote, upTo(w.count, w.oldest))
		f.Why = "The last thing on these connections was sent from here and acknowledged. It may be a call that hangs, a long poll, or a protocol that expects no answer."
	}
	f.Evidence = Values{{"longest_wait_seconds", seconds(w.oldest)}, {"acknowledged", true}, {"sure", w.sure()}}.
		some("likely", w.likely).some("never_heard_anything", w.never).add("bound", "never")
	f.fill = []string{"PEER", w.remote.String()}
	return f
}

func (w *waiting) sure() string {
	if w.likely > 0 {
		return "likely"
	}
	return "possible"
}

// waitingRest is one finding for the groups beyond the largest.
func waitingRest(rest []waiting) Finding {
	all := waiting{}
	for i := range rest {
		all.count += rest[i].count
		all.likely += rest[i].likely
		all.never += rest[i].never
		all.oldest = max(all.oldest, rest[i].oldest)
	}
	f := Finding{
		Severity: Info,
		Title: fmt.Sprintf("%s more calls to %s other addresses have had no answer for up to %s (%s)",
			Number(all.count), Number(len(rest)), span(all.oldest), all.sure()),
		Subject: Values{{"peers", len(rest)}, {"count", all.count}},
		Evidence: Values{{"longest_wait_seconds", seconds(all.oldest)}, {"acknowledged", true}, {"sure", all.sure()}}.
			some("likely", all.likely).some("never_heard_anything", all.never).add("bound", "never"),
		Why:    "Many calls to many places that wait at once share something: a proxy, a database behind them, this machine's own link.",
		weight: -1,
	}
	if all.likely > 0 {
		f.Severity = Warn
	}
	return f
}
