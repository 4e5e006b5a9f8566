package verdict

import (
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

const (
	// longBound is the silence that people accept without asking: a minute is
	// what most heartbeats and load balancer probes stay under.
	longBound = time.Minute

	// largeGroup is the number of connections to one peer from which its loss is
	// an event and not an annoyance: all of them time out in the same moment and
	// come back in the same moment. Go's defaults alone make every bound 150 s,
	// so a small group is worth a line and no warning.
	largeGroup = 100

	// longApart is how many large groups get a finding of their own.
	longApart = 10

	// quietUse is how long a connection without keepalive must have carried no
	// data before its program visibly has no heartbeat or idle timeout of its own:
	// those of servers are about a minute (nginx 75 s, Go services often 2 min).
	quietUse = 5 * time.Minute

	// seldomProbed is the bound from which keepalive is left to the system's two
	// hours: a connection that is used is then never probed.
	seldomProbed = 10 * time.Minute
)

var longSilence = Rule{
	Code:    "S002",
	Promise: Silence,
	Title:   "connections whose silence would last over a minute",
	Worst:   Warn,
	Sees:    []string{"sockets", "owners", "options"},
	Meaning: `When this peer, or a node that only forwards to it, goes away without a word, these connections stay open for as long as the bound says: idle ones until keepalive gives up, those with data under way until retransmission does (keepalive does not run then). The bound is computed from each socket's own options and its namespace's settings by the kernel's rules.

Raised for established connections that leave the machine and whose bound, idle or sending, is over a minute. Go's defaults (15 s idle, 9 probes 15 s apart) give 150 s, and Linux gives 15 min while sending, so almost every machine has some: fewer than 100 connections to one peer are information, from 100 on it is a warning, because they will all time out and reconnect in the same moment.`,
	Wrong: `A heartbeat with a deadline in the program itself notices sooner; the kernel does not know of it. Connections to another container of this machine count as leaving it.`,
	Fix: []string{
		"programs that run: lifeline tune --within 20s --process NAME --yes shortens keepalive of their connections now, lifeline tune --undo --yes takes it back",
		"Go: lifeline.Dialer and lifeline.Listen notice within 20 s, idle or sending; or net.Dialer and net.ListenConfig with KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3} bring the idle bound to 20 s",
		"programs that send: a heartbeat that expects an answer, and a read deadline; keepalive does not help while data is unacknowledged. lifeline cut --silent --watch --yes ends such connections when their peer falls silent",
		"programs that leave keepalive's timing to the system: sysctl -w net.ipv4.tcp_keepalive_time=15 net.ipv4.tcp_keepalive_intvl=5 net.ipv4.tcp_keepalive_probes=3",
		"lifeline census --by peer,process shows who holds them",
	},
	judge: judgeLongSilence,
}

// silence is a group of connections and the longest bounds among them.
type silence struct {
	conns         []*conn
	peers         int
	unknown       int // connections of the same peers whose bound is not known
	idle, sending time.Duration
	neverSending  bool
}

func judgeLongSilence(v *view) []Finding {
	var large, small []silence
	for i := range v.peers {
		s := silenceOf(&v.peers[i])
		switch {
		case len(s.conns) >= largeGroup:
			large = append(large, s)
		case len(s.conns) > 0:
			small = append(small, s)
		}
	}
	byWeight(large, func(s silence) int { return len(s.conns) })
	each, folded := apart(large, longApart)
	var findings []Finding
	for _, s := range each {
		findings = append(findings, v.longFinding(s, false))
	}
	severe := Info
	if len(folded) > 0 {
		severe = Warn
	}
	if rest := join(append(folded, small...)); len(rest.conns) > 0 {
		f := v.longFinding(rest, len(each) > 0)
		f.Severity, f.weight = severe, -1
		findings = append(findings, f)
	}
	return findings
}

// silenceOf takes those connections of a peer whose bound is over a minute.
// Those that nothing ever ends while idle are another finding.
func silenceOf(p *peer) silence {
	s := silence{peers: 1}
	for _, c := range p.conns {
		switch {
		case c.State != fact.Established:
		case !c.bounded:
			s.unknown++
		case c.idle.Never(), c.idle.After <= longBound && c.sending.After <= longBound && !c.sending.Never():
		default:
			s.conns = append(s.conns, c)
			s.idle = max(s.idle, c.idle.After)
			s.sending = max(s.sending, c.sending.After)
			s.neverSending = s.neverSending || c.sending.Never()
		}
	}
	return s
}

func join(groups []silence) silence {
	var all silence
	for _, s := range groups {
		all.conns = append(all.conns, s.conns...)
		all.peers += s.peers
		all.unknown += s.unknown
		all.idle, all.sending = max(all.idle, s.idle), max(all.sending, s.sending)
		all.neverSending = all.neverSending || s.neverSending
	}
	return all
}

func (v *view) longFinding(s silence, others bool) Finding {
	n := len(s.conns)
	who, subject := v.facing(s.conns)
	if others && s.peers > 1 {
		who = count(s.peers, "other peer")
	}
	while := span(s.sending) + " while sending"
	if s.neverSending {
		while = "for ever while sending"
	}
	f := Finding{
		Severity: Info,
		Title:    fmt.Sprintf("%s to %s would be silent for up to %s (%s)", count(n, "connection"), who, span(s.idle), while),
		Subject:  subject.add("processes", v.processes(s.conns)).add("count", n),
		Evidence: Values{{"bound_idle_seconds", seconds(s.idle)}, {"bound_sending_seconds", seconds(s.sending)}},
		Why:      "If the other end or the path to it dies without a word, the programs learn nothing for that long, and then all at once.",
		weight:   n,
	}
	if s.peers == 1 {
		f.Subject = f.Subject.add("netns", s.conns[0].Netns)
	}
	if n >= largeGroup && s.peers == 1 {
		f.Severity = Warn
	}
	if s.neverSending {
		f.Evidence[1].V = nil
		f.Evidence = f.Evidence.add("bound", "never")
	} else {
		f.Bound = fact.Seen(max(s.idle, s.sending))
	}
	f.Evidence = f.Evidence.some("sending", len(filter(s.conns, func(c *conn) bool { return c.SendQueue > 0 }))).
		some("bound_unknown", s.unknown)
	return f
}

var keepAliveOff = Rule{
	Code:    "S003",
	Promise: Silence,
	Title:   "keepalive is off on connections that leave the machine",
	Worst:   Warn,
	Sees:    []string{"sockets", "owners", "options"},
	Meaning: `SO_KEEPALIVE is not set, so while no data is under way nothing ever asks whether the peer still lives: a program that waits in a read waits for ever.

Raised per process and direction for established connections that leave the machine. Connections that the process opened are a warning: whoever dials waits for answers. Connections that it accepted are a warning when one has carried no data for 5 minutes, which shows that neither a heartbeat nor an idle timeout of the program (about a minute in most servers) looks after them; before that they are information.`,
	Wrong: `A program that sets a deadline on every read needs no keepalive; the kernel does not know of deadlines.`,
	Fix: []string{
		"programs that run: lifeline tune --within 20s --process NAME --yes turns it on for their connections now",
		"set SO_KEEPALIVE in the program: Go sets it unless net.Dialer.KeepAlive or net.ListenConfig.KeepAlive is negative; Java Socket.setKeepAlive(true); nginx: listen … so_keepalive=on; PostgreSQL: tcp_keepalives_idle; Python: sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)",
		"or give every read of the program a deadline",
		"ss -tnop shows timer:(keepalive,…) on the connections that have it",
	},
	judge: judgeKeepAliveOff,
}

func judgeKeepAliveOff(v *view) []Finding {
	var opened, accepted []*conn
	for i := range v.conns {
		c := &v.conns[i]
		options, ok := c.Options.Get()
		switch {
		case !c.remote || c.State != fact.Established || !ok || options.KeepAlive:
		case c.accepted:
			accepted = append(accepted, c)
		default:
			opened = append(opened, c)
		}
	}
	return append(eachCrowd(opened, v.openedWithout), eachCrowd(accepted, v.acceptedWithout)...)
}

func (v *view) openedWithout(c crowd) Finding {
	who, subject := v.facing(c.conns)
	n := len(c.conns)
	return Finding{
		Severity: Warn,
		Title:    fmt.Sprintf("%s opened %s to %s with keepalive off: when the peer vanishes, reads wait for ever", v.calledAll(c), count(n, "connection"), who),
		Subject:  append(v.aboutAll(c), subject...).add("direction", "opened").add("count", n),
		Evidence: Values{{"keepalive", false}, {"longest_idle_seconds", seconds(c.longestIdle())}, {"bound", "never"}},
		Why:      "Nothing asks an idle connection without keepalive whether its peer lives, so the program waits for an answer that cannot come.",
		weight:   n,
	}
}

func (v *view) acceptedWithout(c crowd) Finding {
	who, subject := v.facing(c.conns)
	n, idle := len(c.conns), c.longestIdle()
	f := Finding{
		Severity: Warn,
		Title:    fmt.Sprintf("%s accepted %s from %s with keepalive off: clients that vanish are never noticed", v.calledAll(c), count(n, "connection"), who),
		Subject:  append(v.aboutAll(c), subject...).add("direction", "accepted").add("count", n),
		Evidence: Values{{"keepalive", false}, {"longest_idle_seconds", seconds(idle)}, {"bound", "never"}},
		Why:      "Clients that lose their network say no goodbye. Their connections stay, with a descriptor and memory each, until the program writes to them or restarts.",
		weight:   n,
	}
	if idle < quietUse {
		f.Severity = Info
	}
	return f
}

var oneLostProbe = Rule{
	Code:    "S004",
	Promise: Silence,
	Title:   "one lost probe ends the connection",
	Worst:   Warn,
	Sees:    []string{"sockets", "owners", "options"},
	Meaning: `TCP_USER_TIMEOUT is set, and the kernel then ignores the number of keepalive probes: it ends an idle connection at the first probe that finds the last one unanswered for that long (net/ipv4/tcp_timer.c, tcp_keepalive_timer). With a timeout that is not above idle time plus one interval, a single lost packet on a healthy path ends the connection, with "connection timed out" and a living peer.

gRPC's keepalive sets 20 s on top of Go's 15 s and 15 s, which is such a case. TCP_KEEPCNT = 1 does the same. Raised per process for established connections that leave the machine: a warning, and information where the probe comes only after 10 minutes or more.`,
	Wrong: `On a path that never loses a packet it never happens. Connections that are never idle for the keepalive time are not probed.`,
	Fix: []string{
		"raise TCP_USER_TIMEOUT above idle + 2 × interval of keepalive (for 15 s and 15 s: 45 s), or leave it at 0",
		"or shorten keepalive so that several probes fit into the timeout: TCP_KEEPIDLE 5 s, TCP_KEEPINTVL 5 s for 20 s",
		"gRPC for Go: keepalive.ClientParameters.Timeout becomes the user timeout; newer releases leave TCP keepalive to the system's defaults",
	},
	judge: judgeOneLostProbe,
}

func judgeOneLostProbe(v *view) []Finding {
	var frail []*conn
	for i := range v.conns {
		if c := &v.conns[i]; c.remote && c.bounded && (c.idle.OneLoss || c.sending.OneLoss) {
			frail = append(frail, c)
		}
	}
	return eachCrowd(frail, v.oneLossFinding)
}

func (v *view) oneLossFinding(c crowd) Finding {
	who, subject := v.facing(c.conns)
	n := len(c.conns)
	first := c.conns[0]
	var after time.Duration
	for _, s := range c.conns {
		after = max(after, s.idle.After)
	}
	options := first.Options.Value
	f := Finding{
		Severity: Warn,
		Title: fmt.Sprintf("%s: one lost probe ends %s with %s (%s)",
			v.calledAll(c), choose(n, "the connection", "any of the "+Number(n)+" connections"), who, oneLossBy(options)),
		Subject: append(v.aboutAll(c), subject...).add("count", n),
		Evidence: Values{{"user_timeout_seconds", orNull(options.UserTimeout)},
			{"keepalive_idle_seconds", orNull(options.Idle)}, {"keepalive_interval_seconds", orNull(options.Interval)},
			{"bound_idle_seconds", orNull(after)}},
		Why:    "The path may lose a packet at any time. The first probe that finds its predecessor unanswered ends the connection, whether the peer lives or not.",
		weight: n,
	}
	if after > 0 {
		f.Bound = fact.Seen(after)
	}
	if after > seldomProbed {
		f.Severity = Info
	}
	return f
}

// oneLossBy is the setting to blame.
func oneLossBy(o bound.Options) string {
	if o.UserTimeout > 0 {
		return "user timeout " + span(o.UserTimeout)
	}
	return "a single keepalive probe"
}

// orNull is a duration in seconds, null when it is zero: an option that the
// program left to the namespace, a bound that there is not.
func orNull(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return seconds(d)
}
