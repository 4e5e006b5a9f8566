package show

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// peerColours are the colours of verdicts on peers, as SGR codes.
var peerColours = map[verdict.Liveness]string{verdict.Silent: "31;1", verdict.Unsure: "33"}

// Silence writes the peers as a table, and below it what this machine forwards
// for others. top limits the lines of each; 0 means all.
func Silence(w io.Writer, peers []verdict.Peer, transit []verdict.Transit, top int, s Style) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "VERDICT\tCOUNT\tPEER\tPROCESSES\tLAST ACK\tSILENT FOR: IDLE\tSENDING\n")
	total := 0
	for i := range peers {
		p := &peers[i]
		total += p.Count
		if top > 0 && i >= top {
			continue
		}
		// A tabwriter counts bytes: colours would move the columns that follow.
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Verdict, verdict.Number(p.Count), p.Addr, owners(p.Processes), spanOr(p.Quiet, "never"),
			boundOr(p.Idle), boundOr(p.Sending))
	}
	if more := len(peers) - top; top > 0 && more > 0 {
		fmt.Fprintf(t, "\t\t(%s more)\n", verdict.Number(more))
	}
	fmt.Fprintf(t, "\t%s\ttotal, of %s\n", verdict.Number(total), plural(len(peers), "peer"))
	_ = t.Flush()
	for i := range peers {
		if p := &peers[i]; p.Verdict != verdict.Alive && (top == 0 || i < top) {
			whySilent(w, p, s)
		}
	}
	forwarded(w, transit, top)
}

// whySilent says what a verdict rests on and when the programs will learn.
func whySilent(w io.Writer, p *verdict.Peer, s Style) {
	pg := &page{w: w, style: s}
	pg.line("")
	pg.hang(s.paint(peerColours[p.Verdict], p.Addr.String()+" is "+stateOf(p)), "  ", "")
	pg.hang("  seen: ", "        ", valuesText(p.Evidence))
	pg.hang("  next: ", "        ", noticed(p))
}

// stateOf is the verdict in a sentence.
func stateOf(p *verdict.Peer) string {
	if p.Verdict == verdict.Unsure {
		return "perhaps silent: " + plural(p.Count, "connection")
	}
	return p.Verdict.String() + ": " + plural(p.Count, "connection")
}

// noticed says when the kernel tells the programs.
func noticed(p *verdict.Peer) string {
	first, ok := p.First.Get()
	switch {
	case !ok && p.Never:
		return "the kernel tells no program, ever"
	case !ok:
		return "when the kernel tells the programs is not known: the options of the sockets were not seen"
	}
	text := fmt.Sprintf("the kernel tells the first program in %s, the last in %s", bound.Format(first), bound.Format(p.Last.Value))
	if p.Last.Value-first < time.Second {
		text = "the kernel tells the programs in " + bound.Format(p.Last.Value)
	}
	if p.Never {
		text += ", and some never"
	}
	return text
}

func owners(list []verdict.Holder) string {
	var names []string
	for _, h := range list[:min(holdersShown, len(list))] {
		name := nameOf(h)
		if len(list) > 1 {
			name += " " + verdict.Number(h.Count)
		}
		names = append(names, name)
	}
	if more := len(list) - holdersShown; more > 0 {
		names = append(names, verdict.Number(more)+" more")
	}
	return strings.Join(names, ", ")
}

func nameOf(h verdict.Holder) string {
	if h.PID == 0 {
		return "(no process)"
	}
	return fmt.Sprintf("%s[%d]", h.Name, h.PID)
}

func spanOr(d fact.Known[time.Duration], otherwise string) string {
	if d.OK {
		return bound.Format(max(d.Value, 0))
	}
	return otherwise
}

func boundOr(b fact.Known[bound.Bound]) string {
	if b.OK {
		return b.Value.String()
	}
	return "?"
}

// route is the flows between two addresses.
type route struct {
	from, via, to netip.Addr
	count         int
}

// forwarded writes what passes through, by both ends.
func forwarded(w io.Writer, flows []verdict.Transit, top int) {
	if len(flows) == 0 {
		return
	}
	index := make(map[route]int)
	var routes []route
	for i := range flows {
		key := route{from: flows[i].Source.Addr(), via: flows[i].Destination.Addr(), to: flows[i].ReplySource.Addr()}
		at, found := index[key]
		if !found {
			at = len(routes)
			index[key] = at
			routes = append(routes, key)
		}
		routes[at].count++
	}
	slices.SortStableFunc(routes, func(a, b route) int { return cmp.Compare(b.count, a.count) })
	if top == 0 {
		top = 10
	}
	fmt.Fprintf(w, "\nForwards %s: they are silent when this machine dies.\n", plural(len(flows), "flow"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "COUNT\tFROM\tTO\tANSWERED BY\n")
	for i, r := range routes {
		if i == top {
			fmt.Fprintf(t, "\t(%s more)\n", verdict.Number(len(routes)-top))
			break
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", verdict.Number(r.count), r.from, r.via, r.to)
	}
	_ = t.Flush()
}

// WhatIf writes what the death of a peer would do.
func WhatIf(w io.Writer, peer string, l *verdict.Loss) {
	if l.Count == 0 {
		fmt.Fprintf(w, "If %s dies, no connection of this machine falls silent.\n", peer)
	} else {
		fmt.Fprintf(w, "If %s dies now without a word, %s silent.\n", peer, choose(l.Count, "1 connection falls", verdict.Number(l.Count)+" connections fall"))
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "COUNT\tPROCESS\tLEARNS, IF IDLE: FIRST\tLAST\tIF SENDING: FIRST\tLAST\n")
		for i := range l.Processes {
			p := &l.Processes[i]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", verdict.Number(p.Count), nameOf(p.Holder), notice(p.Idle), notice(p.Sending))
		}
		fmt.Fprintf(t, "%s\tall\t%s\t%s\n", verdict.Number(l.Count), notice(l.Idle), notice(l.Sending))
		_ = t.Flush()
		for _, n := range []struct {
			count     int
			one, many string
		}{{l.Idle.Never, "is never told while idle: its keepalive is off", "are never told while idle: their keepalive is off"},
			{l.Unknown, "is of unknown bound: its options were not seen", "are of unknown bound: their options were not seen"}} {
			if n.count > 0 {
				fmt.Fprintf(w, "%s %s.\n", plural(n.count, "connection"), choose(n.count, n.one, n.many))
			}
		}
	}
	switch {
	case l.Transit == nil:
		fmt.Fprintf(w, "Flows that this machine forwards are not known.\n")
	case len(l.Transit) > 0:
		fmt.Fprintf(w, "%s that this machine forwards %s too, and neither end is told.\n", plural(len(l.Transit), "flow"), choose(len(l.Transit), "falls silent", "fall silent"))
	}
}

func notice(n verdict.Notice) string {
	return spanOr(n.First, "never") + "\t" + lastNotice(n)
}

func lastNotice(n verdict.Notice) string {
	if n.Never > 0 {
		return "never"
	}
	return spanOr(n.Last, "?")
}

func choose(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// Change writes a verdict that fell or was lifted as one line. It leaves out
// owners and times that are not known: a watch may not have looked for them.
func Change(w io.Writer, c *verdict.Change, s Style) {
	at := c.Time.Format("15:04:05.000")
	switch c.Verdict {
	case verdict.Silent:
		parts := []string{fmt.Sprintf("%s, nothing acknowledged for %s", s.paint(peerColours[c.Verdict], c.Addr.String()+" is "+stateOf(&c.Peer)), spanOr(c.Quiet, "?"))}
		if slices.ContainsFunc(c.Processes, func(h verdict.Holder) bool { return h.PID != 0 }) {
			parts = append(parts, owners(c.Processes))
		}
		if c.First.OK || c.Never {
			parts = append(parts, noticed(&c.Peer))
		}
		fmt.Fprintf(w, "%s  %s\n", at, strings.Join(parts, "; "))
	case verdict.Alive:
		fmt.Fprintf(w, "%s  %s answers again after %s: %s\n", at, c.Addr, bound.Format(c.Silent), plural(c.Count, "connection"))
	default:
		fmt.Fprintf(w, "%s  %s was silent for %s and has no connection left\n", at, c.Addr, bound.Format(c.Silent))
	}
}
