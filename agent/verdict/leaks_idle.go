package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const (
	// idleLong is beyond the idle timeouts of pools (Go's http.Transport 90 s,
	// most others a minute or two): what idles longer is kept on purpose or
	// forgotten.
	idleLong = 5 * time.Minute

	// idleMany: pools have tens of connections, and PostgreSQL allows 100 to all
	// its clients together unless told otherwise. Whoever leaves more idle to one
	// address does not reuse what it has.
	idleMany = 100

	// idleWasted: with so many idle a pool has no reason to open one more. Fewer may
	// belong to several clients of one program.
	idleWasted = 20

	// unixMany: for unix sockets the kernel keeps no times, so only the number
	// speaks; a program that talks to a local daemon needs a handful.
	unixMany = 100

	// idleApart is how many groups get a finding of their own.
	idleApart = 10
)

var idleCrowd = Rule{
	Code:    "L002",
	Promise: Leaks,
	Title:   "many connections to one peer lie idle",
	Worst:   Warn,
	Sees:    []string{"sockets", "owners"},
	Meaning: `One process keeps many connections to the same peer and uses none of them: the picture of a client that is built for every operation and never closed. Left alone it ends at the file limit, of this process or of the peer.

TCP: raised for at least 100 established connections that a process opened to one address and port and on which no data went either way for 5 minutes, which is beyond the idle timeout of every usual pool. Connections that it accepted are left out: idle clients are a server's trade. Opened since the earlier look although so many lie idle is the strongest sign and said in the evidence; where it was seen, 20 that lie idle are enough: whoever has a pool takes one of those before opening another.

Unix sockets: the kernel keeps no times of use for them, so only the number can speak. Raised for at least 100 connections of one process to one listener that were all there in the earlier look too; without one, nothing is said. The process at the other end is named.`,
	Wrong: `A pool sized over 100 and idle at night looks the same, and so does a load generator or a proxy with one connection for each of its own clients.`,
	Fix: []string{
		"lifeline leaks --pid PID --for 10m names the line of code that opens them",
		"make one client and reuse it for every operation, or close it after each",
		"give pools an idle timeout and a size: http.Transport.IdleConnTimeout and MaxIdleConnsPerHost, sql.DB.SetConnMaxIdleTime in Go",
		"lifeline census --by process,peer shows how many there are; run it twice to see them grow",
	},
	judge: judgeIdle,
}

// idle is a group of sockets of one process with one peer that nobody uses.
type idle struct {
	pid      int32
	netns    uint32
	remote   netip.AddrPort // TCP
	listener string         // unix
	server   int32          // unix: the process at the other end

	count             int
	shortest, longest time.Duration
	opened            int // in use or new, and not there in the earlier look
}

func judgeIdle(v *view) []Finding {
	groups := append(v.idleTCP(), v.idleUnix()...)
	byWeight(groups, func(g idle) int { return g.count })
	each, folded := apart(groups, idleApart)
	var findings []Finding
	for i := range each {
		if each[i].listener != "" {
			findings = append(findings, v.unixFinding(&each[i]))
		} else {
			findings = append(findings, v.idleFinding(&each[i]))
		}
	}
	if len(folded) > 0 {
		n := 0
		for i := range folded {
			n += folded[i].count
		}
		findings = append(findings, Finding{
			Severity: Warn,
			Title:    fmt.Sprintf("%s more groups of idle connections, %s in all", Number(len(folded)), count(n, "connection")),
			Subject:  Values{{"groups", len(folded)}, {"count", n}},
			Why:      "Programs of which many leave connections idle are often built from the same client library.",
			weight:   -1,
		})
	}
	return findings
}

func (v *view) idleTCP() []idle {
	type key struct {
		pid    int32
		netns  uint32
		remote netip.AddrPort
	}
	index := make(map[key]*idle)
	var keys []key
	for i := range v.conns {
		c := &v.conns[i]
		if c.accepted || c.State != fact.Established || owner(c.Socket) == 0 {
			continue
		}
		since := idleFor(c.Socket)
		if since < idleLong {
			continue
		}
		k := key{owner(c.Socket), c.Netns, c.Remote}
		g := index[k]
		if g == nil {
			g = &idle{pid: k.pid, netns: k.netns, remote: k.remote, shortest: since}
			index[k] = g
			keys = append(keys, k)
		}
		g.count++
		g.shortest, g.longest = min(g.shortest, since), max(g.longest, since)
	}
	keys = slices.DeleteFunc(keys, func(k key) bool { return index[k].count < idleWasted })
	if len(keys) > 0 && v.Earlier != nil {
		for i := range v.conns {
			c := &v.conns[i]
			if g := index[key{owner(c.Socket), c.Netns, c.Remote}]; g != nil && !c.accepted && v.before(c.Socket) == nil {
				g.opened++
			}
		}
	}
	groups := make([]idle, 0, len(keys))
	for _, k := range keys {
		if g := index[k]; g.count >= idleMany || g.opened > 0 {
			groups = append(groups, *g)
		}
	}
	return groups
}

// idleUnix looks only at processes that have enough unix connections of their
// own making: finding the other end takes a map of all unix sockets.
func (v *view) idleUnix() []idle {
	perProcess := make(map[int32]int)
	for _, s := range v.dials {
		perProcess[owner(s)]++
	}
	enough := func(s *fact.Socket) bool { return owner(s) != 0 && perProcess[owner(s)] >= unixMany }
	if v.Earlier == nil || !slices.ContainsFunc(v.dials, enough) {
		return nil
	}
	ends := make(map[uint32]*fact.Socket)
	for i := range v.Sockets {
		if s := &v.Sockets[i]; s.Family == fact.Unix && s.Inode != 0 {
			ends[s.Inode] = s
		}
	}
	type key struct {
		pid, server int32
		listener    string
	}
	index := make(map[key]*idle)
	var groups []*idle
	for _, s := range v.dials {
		end := ends[s.PeerInode]
		if !enough(s) || end == nil || end.Path == "" {
			continue
		}
		k := key{owner(s), owner(end), end.Path}
		g := index[k]
		if g == nil {
			g = &idle{pid: k.pid, netns: s.Netns, listener: k.listener, server: k.server}
			index[k] = g
			groups = append(groups, g)
		}
		if was := v.before(s); was != nil && was.PeerInode == s.PeerInode {
			g.count++
		} else {
			g.opened++
		}
	}
	var many []idle
	for _, g := range groups {
		if g.count >= unixMany {
			many = append(many, *g)
		}
	}
	slices.SortStableFunc(many, func(a, b idle) int { return cmp.Compare(a.pid, b.pid) })
	return many
}

func (v *view) idleFinding(g *idle) Finding {
	f := Finding{
		Severity: Warn,
		Title: fmt.Sprintf("%s keeps %s to %s, all idle for over %s",
			v.called(g.pid), count(g.count, "connection"), g.remote, span(g.shortest)),
		Subject:  v.about(g.pid).add("peer", g.remote.String()).add("netns", g.netns).add("count", g.count),
		Evidence: Values{{"idle_seconds", seconds(g.shortest)}, {"longest_idle_seconds", seconds(g.longest)}}.some("opened_meanwhile", g.opened),
		Why:      "It opened them and uses none, which is what a client that is built for every operation and never closed leaves behind." + v.openedMeanwhile(g),
		fill:     []string{"PID", strconv.Itoa(int(g.pid))},
		weight:   g.count,
	}
	return f
}

func (v *view) unixFinding(g *idle) Finding {
	with := g.listener
	if g.server != 0 {
		with += " of " + v.called(g.server)
	}
	subject := v.about(g.pid).add("peer", g.listener)
	server := v.about(g.server)
	subject = subject.add("peer_pid", server[0].V).add("peer_process", server[1].V).add("count", g.count)
	return Finding{
		Severity: Warn,
		Title:    fmt.Sprintf("%s keeps %s to %s", v.called(g.pid), count(g.count, "unix connection"), with),
		Subject:  subject,
		Evidence: Values{{"idle_seconds", nil}, {"unchanged_seconds", seconds(v.elapsed)}}.some("opened_meanwhile", g.opened),
		Why: "One process needs a handful of connections to a local daemon. The kernel keeps no times for unix sockets, so how long they are idle is not known; none of them was closed between the two looks." +
			v.openedMeanwhile(g),
		fill:   []string{"PID", strconv.Itoa(int(g.pid))},
		weight: g.count,
	}
}

func (v *view) openedMeanwhile(g *idle) string {
	if g.opened == 0 {
		return ""
	}
	return fmt.Sprintf(" It opened %s more within %s although so many were there.", Number(g.opened), span(v.elapsed))
}
