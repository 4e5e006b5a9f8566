package top

import (
	"fmt"
	"strings"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// viewText is what a view is called, and the columns of its list.
type viewText struct {
	name, short string
	hint        string // what a filter may be
	columns     []column
}

const anyWords = "words that a row must have; enter keeps them, escape does not"

func definition(v view) *viewText { return &viewTexts[v] }

func (s *Screen) viewed() *viewText { return definition(s.view) }

var viewTexts = [views]viewText{
	findingsView: {"findings", "findings", anyWords, []column{{title: "SEVERITY"}, {title: "CODE"}, {title: "FIRST SEEN", right: true, drop: 1},
		{title: "WHAT", flex: true, least: 20}}},
	peersView: {"peers", "peers", anyWords, []column{{title: "VERDICT"}, {title: "CONNECTIONS", right: true}, {title: "PEER", flex: true, least: 15},
		{title: "PROCESSES", flex: true, least: 12, drop: 2}, {title: "NOTICED: IDLE", right: true, drop: 1}, {title: "SENDING", right: true, drop: 3}}},
	connectionsView: {"connections", "conns", "peer or network, process, pid, state", []column{{title: "STATE", drop: 2, fixed: true},
		{title: "PROCESS", flex: true, least: 10, name: "process"}, {title: "LOCAL", flex: true, least: 14, drop: 4, fixed: true},
		{title: "REMOTE", flex: true, least: 21, name: "peer"}, {title: "HEARD", right: true, drop: 3, name: "idle"}, {title: "QUEUED", right: true, drop: 5, name: "queue"},
		{title: "NOTICED: IDLE", right: true, name: "bound"}}},
	leaksView: {"leaks", "leaks", anyWords, []column{{title: "VERDICT"}, {title: "OPEN", right: true}, {title: "OPENED", right: true, drop: 2},
		{title: "PROCESS", flex: true, least: 14}, {title: "PEER", flex: true, least: 12, drop: 1}, {title: "OPENED IN", flex: true, least: 20},
		{title: "LAST HOUR", drop: 3, fixed: true}}},
	namesView: {"names", "names", anyWords, []column{{title: "KIND"}, {title: "WHICH", flex: true, least: 12}, {title: "HOW IT WENT", flex: true, least: 20}}},
	callsView: {"calls", "calls", anyWords, []column{{title: "WAITS FOR", right: true}, {title: "CALLS", right: true}, {title: "PROCESS", flex: true, least: 12},
		{title: "PEER", flex: true, least: 12}, {title: "REQUEST ARRIVED", drop: 1}}},
	sourcesView: {"sources", "sources", anyWords, []column{{title: "SOURCE"}, {title: "EVERY", right: true, drop: 2}, {title: "LAST LOOK", right: true},
		{title: "TOOK", right: true, drop: 1}, {title: "HOW IT WENT", flex: true, least: 20}}},
	historyView: {"history", "history", anyWords, []column{{title: "FIRST SEEN"}, {title: "LASTED", right: true, drop: 1}, {title: "SEVERITY"}, {title: "CODE"},
		{title: "WHAT", flex: true, least: 20}}},
}

// rows are those of a view whose rows are all in the state.
func (s *Screen) rows() []row {
	return [views]func(*Screen) []row{findingsView: findingRows, peersView: peerRows, leaksView: leakRows, namesView: nameRows, callsView: callRows,
		sourcesView: sourceRows, historyView: pastRows}[s.view](s)
}

// opened is the page that opens from a row; nil when there is nothing to open.
func (s *Screen) opened(key string) *page {
	return [views]func(*Screen, string) *page{findingsView: openFinding, peersView: openPeer, connectionsView: openConnection, leaksView: openLeak, namesView: openName,
		callsView: openCall, sourcesView: openSource, historyView: openPast}[s.view](s, key)
}

// none says why a list is empty.
func (s *Screen) none() string {
	switch s.view {
	case findingsView:
		return noFindings(s)
	case peersView:
		return "No connection with another machine was seen."
	case connectionsView:
		return noConnections(s)
	case leaksView:
		return "No line of code that opens sockets was seen yet." + s.sourceProblem("leaks")
	case namesView:
		return "Not looked at yet." + s.sourceProblem("names")
	case callsView:
		return "No call is known to wait for its answer."
	case historyView:
		return noPast(s)
	}
	return "Nothing is looked at."
}

// list is the list of the view, as it is to be drawn.
func (s *Screen) list() list {
	if s.view == connectionsView {
		return s.conns.all()
	}
	return s.tables[s.view].arrange(s.viewed().columns, s.rows())
}

// sourceProblem says why a source tells nothing, when it does not.
func (s *Screen) sourceProblem(name string) string {
	for i := range s.shown.Sources {
		src := &s.shown.Sources[i]
		if src.Name != name {
			continue
		}
		if src.Off != "" {
			return " It is off: " + src.Off + "."
		}
		if src.Error != "" {
			return " It could not be looked at: " + src.Error
		}
	}
	return ""
}

// rootsOf are the findings that no other explains.
func rootsOf(all []state.Finding) []*state.Finding {
	var roots []*state.Finding
	for i := range all {
		if all[i].Cause == "" {
			roots = append(roots, &all[i])
		}
	}
	return roots
}

func severityCell(v verdict.Severity, over bool) cell {
	if over {
		return cell{text: "over", number: -1, is: true, style: dim}
	}
	st := [...]style{verdict.Info: noted, verdict.Warn: warned, verdict.Fail: bad}[min(v, verdict.Fail)]
	return cell{text: v.String(), number: float64(v), is: true, style: st}
}

func findingRows(s *Screen) []row {
	var rows []row
	for _, f := range rootsOf(s.shown.Findings) {
		title := f.Title
		if f.Resolved != nil {
			title = "over since " + s.clock(*f.Resolved) + ": " + title
		}
		if f.Flapping {
			title += " (comes and goes)"
		}
		if f.Hides > 0 {
			title += fmt.Sprintf(" (explains %d more)", f.Hides)
		}
		age := s.now.Sub(f.First).Seconds()
		rows = append(rows, row{key: f.ID, also: f.Promise.String() + " " + f.Why, cells: []cell{severityCell(f.Severity, f.Resolved != nil), word(f.Code),
			measure(&age, s.since(f.First)), word(title)}})
	}
	return rows
}

func noFindings(s *Screen) string {
	kept := 0
	for i := range s.shown.Promises {
		if s.shown.Promises[i].Status == state.Kept {
			kept++
		}
	}
	switch n := len(s.shown.Blind); {
	case kept == len(s.shown.Promises) && n > 0:
		return fmt.Sprintf("All four promises are kept, as far as could be seen: see the %s in 7 sources.", many(n, "blind spot"))
	case kept == len(s.shown.Promises):
		return "All four promises are kept."
	}
	return fmt.Sprintf("No findings: %d of the four promises are kept, the others are not known yet.", kept)
}

func liveness(v string) cell {
	switch v {
	case "silent":
		return cell{text: "SILENT", number: 2, is: true, style: bad}
	case "unsure":
		return cell{text: "unsure", number: 1, is: true, style: warned}
	}
	return cell{text: v, is: true}
}

// noticed is how long a death goes unnoticed: never is the longest.
func noticed(after *float64, never bool) cell {
	if never {
		return cell{text: "never", number: 1e300, is: true, style: warned}
	}
	return measure(after, seconds(after))
}

func peerRows(s *Screen) []row {
	rows := make([]row, 0, len(s.shown.Peers))
	for i := range s.shown.Peers {
		p := &s.shown.Peers[i]
		rows = append(rows, row{key: peerKey(p), cells: []cell{liveness(p.Verdict), count(p.Count), word(p.Peer), word(holders(p.Processes)),
			noticed(p.Idle, p.Never), noticed(p.Sending, false)}})
	}
	return rows
}

func peerKey(p *state.Peer) string { return fmt.Sprintf("%s %d", p.Peer, p.Netns) }

func holders(list []state.Holder) string {
	var names []string
	for i := range list {
		name := holder(&list[i])
		if len(list) > 1 {
			name += " " + verdict.Number(list[i].Count)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func leakVerdict(v string) cell {
	switch v {
	case "leak":
		return cell{text: "LEAK", number: 2, is: true, style: bad}
	case "suspect":
		return cell{text: v, number: 1, is: true, style: warned}
	}
	return cell{text: v, is: true}
}

// place is a line of source in short: without the path of its package.
func place(c *state.Call) string {
	name := c.Function[strings.LastIndex(c.Function, "/")+1:]
	if c.Line == 0 {
		return name
	}
	return fmt.Sprintf("%s (%s:%d)", name, c.File[strings.LastIndex(c.File, "/")+1:], c.Line)
}

// opener is the line that asked, or where that is not known the one that opened.
func opener(site *state.Site) string {
	if site.AskedBy.Function != "" {
		return place(&site.AskedBy)
	}
	if site.OpenedAt.Function != "" {
		return place(&site.OpenedAt)
	}
	return unknown
}

func leakRows(s *Screen) []row {
	rows := make([]row, 0, len(s.shown.Leaks))
	for i := range s.shown.Leaks {
		site := &s.shown.Leaks[i]
		who := state.Holder{PID: site.PID, Name: site.Process}
		rows = append(rows, row{key: site.ID, also: site.Diagnosis + " " + site.Container, cells: []cell{leakVerdict(site.Verdict), count(site.Open), count(site.Opened),
			word(holder(&who)), word(site.Peer), word(opener(site)), word(overTime(site.Over, 20))}})
	}
	return rows
}

func overTime(over []int, width int) string {
	counts := make([]*float64, len(over))
	for i := range over {
		n := float64(over[i])
		counts[i] = &n
	}
	return bars(counts, width)
}

func nameRows(s *Screen) []row {
	n := s.shown.Names
	if n == nil {
		return nil
	}
	var rows []row
	for i := range n.Servers {
		rows = append(rows, row{key: "server " + n.Servers[i].Address, cells: []cell{word("nameserver"), word(n.Servers[i].Address), serverCell(&n.Servers[i])}})
	}
	for i := range n.Names {
		rows = append(rows, row{key: "name " + n.Names[i].Name, cells: []cell{word("name"), word(n.Names[i].Name), waysCell(&n.Names[i])}})
	}
	for i := range n.Programs {
		p := &n.Programs[i]
		text := many(p.Count, "program")
		c := word(text)
		if p.Fails != nil && *p.Fails > 0 {
			c = painted(bad, fmt.Sprintf("%s, names FAIL for %s", text, verdict.Number(*p.Fails)))
		}
		c.text += ": " + strings.Join(p.Examples, ", ")
		rows = append(rows, row{key: "programs " + p.Resolver, cells: []cell{word("resolver"), word(p.Resolver), c}})
	}
	for i := range n.Config {
		rows = append(rows, row{key: fmt.Sprint("config ", i), cells: []cell{word("setting"), word(n.Config[i].Source), word(n.Config[i].Text)}})
	}
	return rows
}

func serverCell(n *state.Nameserver) cell {
	switch {
	case n.Error != "":
		return painted(bad, "FAILS: "+n.Error)
	case n.OK == nil:
		return word("not asked; " + n.Way)
	case !*n.OK:
		return painted(bad, "FAILS; "+n.Way)
	case n.MS != nil:
		return word(fmt.Sprintf("answered in %.1f ms; %s", *n.MS, n.Way))
	}
	return word("answered; " + n.Way)
}

func waysCell(n *state.Name) cell {
	well, wrong := []string{}, []string{}
	for i := range n.Ways {
		if n.Ways[i].OK {
			well = append(well, n.Ways[i].Way)
		} else {
			wrong = append(wrong, n.Ways[i].Way)
		}
	}
	if len(wrong) > 0 {
		return painted(bad, fmt.Sprintf("FAILS by %s; resolves by %s", strings.Join(wrong, ", "), strings.Join(well, ", ")))
	}
	return word("resolves by " + strings.Join(well, ", "))
}

func callRows(s *Screen) []row {
	rows := make([]row, 0, len(s.shown.Calls))
	for i := range s.shown.Calls {
		c := &s.shown.Calls[i]
		who := state.Holder{PID: c.PID, Name: c.Process}
		has := "no, or unknown"
		if c.Acknowledged {
			has = "yes"
		}
		rows = append(rows, row{key: callKey(c), also: strings.Join(c.Goroutines, " "),
			cells: []cell{measure(&c.Since, seconds(&c.Since)), count(c.Count), word(holder(&who)), word(c.Peer), word(has)}})
	}
	return rows
}

func callKey(c *state.Waiting) string { return fmt.Sprintf("%d %s", c.PID, c.Peer) }

func sourceRows(s *Screen) []row {
	var rows []row
	for i := range s.shown.Sources {
		src := &s.shown.Sources[i]
		last, age := "not yet", cell{is: true, lacks: true}
		if src.Last != nil {
			last = s.since(*src.Last) + " ago"
			seconds := s.now.Sub(*src.Last).Seconds()
			age = measure(&seconds, "")
		}
		age.text = last
		rows = append(rows, row{key: src.Name, cells: []cell{word(src.Name), measure(&src.Every, seconds(&src.Every)), age, measure(src.Took, seconds(src.Took)), sourceCell(src)}})
	}
	for i := range s.shown.Blind {
		b := &s.shown.Blind[i]
		rows = append(rows, row{key: fmt.Sprint("blind ", i), cells: []cell{word(b.Source), {is: true, lacks: true}, {is: true, lacks: true}, {is: true, lacks: true}, painted(warned, "BLIND: "+blindText(b))}})
	}
	return rows
}

func blindText(b *state.Blind) string {
	if b.Needs != nil && *b.Needs != "" {
		return b.Error + "; needs " + *b.Needs
	}
	return b.Error
}

func sourceCell(src *state.Source) cell {
	switch {
	case src.Off != "":
		return painted(noted, "off: "+src.Off)
	case src.Late:
		return painted(bad, "LATE: "+src.Error)
	case src.Error != "":
		return painted(bad, "FAILS: "+src.Error)
	case src.Last == nil:
		return word("under way")
	}
	return word("well")
}
