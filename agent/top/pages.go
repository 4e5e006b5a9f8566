package top

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// page is what was opened from a row. It is drawn anew from each state, for as
// long as there is what it is about; then from what it was last.
type page struct {
	key  string
	draw func(*page, *Screen) []line
	at   int // lines scrolled

	finding state.Finding
	peer    state.Peer
	site    state.Site
	call    state.Waiting
	one     state.Connection
	past    state.PastFinding
	gone    bool // it is not there any more

	query  *state.Query // connections that belong to it; nil = none do
	conns  *Answer      // nil before it came
	loss   *Answer
	change *Answer
	asked  map[int]**Answer // by ID: where the answer goes
}

// mostListed is how many connections a page lists; all of them are in their view.
const mostListed = 100

func (p *page) lines(s *Screen) []line { return p.draw(p, s) }

func (p *page) keys() string {
	if p.query != nil {
		return "escape back  c all its connections"
	}
	return "escape back"
}

// open puts a page on top of what is shown.
func (s *Screen) open(p *page) {
	s.pages = append(s.pages, p)
	p.askAgain(s)
}

// askAgain asks for what the page shows beside the state.
func (p *page) askAgain(s *Screen) {
	if p.asked == nil {
		p.asked = make(map[int]**Answer)
	}
	if len(p.asked) > 0 {
		return
	}
	if p.query != nil {
		q := *p.query
		q.Most = mostListed
		p.asked[s.ask(Ask{Connections: &q})] = &p.conns
	}
	if p.peer.Peer != "" {
		p.asked[s.ask(Ask{WhatIf: p.peer.Peer})] = &p.loss
	}
}

func (p *page) answer(a *Answer) {
	if to := p.asked[a.ID]; to != nil {
		*to = a
		delete(p.asked, a.ID)
	}
}

// renew takes what a page is about from a list; what is not there any more stays as
// it was.
func renew[T any](p *page, is *T, list []T, key func(*T) string) {
	p.gone = true
	for i := range list {
		if key(&list[i]) == p.key {
			*is, p.gone = list[i], false
			return
		}
	}
}

// head is the title of a page.
func (p *page) head(s *Screen, title string) []line {
	lines := []line{nil}
	for _, l := range hang(bold, "  ", title, s.width) {
		lines = append(lines, line{{bold, l[0].text + l[1].text}})
	}
	if p.gone {
		lines = append(lines, lineOf(warned, "  It is not there any more; this is how it was."))
	}
	return append(lines, nil)
}

// pairs are names and values, one below the other.
func (s *Screen) pairs(list [][2]string) []line {
	width := 0
	for _, kv := range list {
		width = max(width, ansi.StringWidth(s.clean(kv[0])))
	}
	var lines []line
	for _, kv := range list {
		if kv[1] == "" {
			continue // it says nothing
		}
		lines = append(lines, hang(plain, "  "+pad(s.clean(kv[0]), width, false)+"  ", s.clean(kv[1]), s.width)...)
	}
	return lines
}

// section is a heading within a page.
func section(title string) []line { return []line{nil, lineOf(bold, "  "+title)} }

func openFinding(s *Screen, id string) *page {
	p := &page{key: id, draw: (*page).findingPage}
	p.findingPage(s)
	p.query = about(p.finding.Subject)
	return p
}

// about is which connections a finding is about, as far as its subject says; nil
// when it does not.
func about(subject verdict.Values) *state.Query {
	var q state.Query
	if peer, ok := subject.Get("peer"); ok {
		if text, is := peer.(string); is {
			if _, err := netip.ParseAddr(text); err == nil {
				q.Peer = text
			}
		}
	}
	if pid, ok := subject.Get("pid"); ok && pid != nil {
		if _, err := fmt.Sscan(fmt.Sprint(pid), &q.PID); err != nil {
			q.PID = 0
		}
	}
	if q.Peer == "" && q.PID <= 0 {
		return nil
	}
	return &q
}

func (p *page) findingPage(s *Screen) []line {
	renew(p, &p.finding, s.shown.Findings, func(f *state.Finding) string { return f.ID })
	f := &p.finding
	lines := p.head(s, fmt.Sprintf("%s %s  %s", f.Severity, f.Code, f.Title))
	life := fmt.Sprintf("first seen %s, last %s", s.moment(f.First), s.clock(f.Last))
	if f.Resolved != nil {
		life += ", over since " + s.clock(*f.Resolved)
	}
	if f.Times > 1 {
		life += fmt.Sprintf(", came %s times", verdict.Number(f.Times))
	}
	if f.Flapping {
		life += ", comes and goes"
	}
	lines = append(lines, hang(plain, "  since  ", life, s.width)...)
	lines = append(lines, hang(plain, "  why    ", f.Why, s.width)...)
	for _, fix := range f.Fix {
		lines = append(lines, hang(plain, "  do     ", fix, s.width)...)
	}
	var facts [][2]string
	for i := range f.Evidence {
		key, text := value(&f.Evidence[i])
		facts = append(facts, [2]string{key, text})
	}
	if d, ok := f.Bound.Get(); ok {
		facts = append(facts, [2]string{"unnoticed for up to", bound.Format(d)})
	}
	if len(facts) > 0 {
		lines = append(append(lines, section("Evidence")...), s.pairs(facts)...)
	}
	if hidden := explained(s, f.ID); len(hidden) > 0 {
		lines = append(append(lines, section(fmt.Sprintf("It explains %d more", len(hidden)))...), hidden...)
	}
	return append(lines, p.connections(s)...)
}

// explained are the findings that follow from another.
func explained(s *Screen, cause string) (lines []line) {
	for i := range s.shown.Findings {
		if f := &s.shown.Findings[i]; f.Cause == cause {
			lines = append(lines, hang(plain, fmt.Sprintf("  %s %s  ", f.Severity, f.Code), f.Title, s.width)...)
		}
	}
	return lines
}

// connections are those that belong to a page.
func (p *page) connections(s *Screen) []line {
	if p.query == nil {
		return nil
	}
	switch {
	case p.conns == nil:
		return append(section("Connections"), lineOf(dim, "  asking for them"))
	case p.conns.Err != "":
		return append(section("Connections"), lineOf(warned, "  They cannot be told: "+p.conns.Err))
	}
	c := &p.conns.Connections
	of := ""
	if p.query.Netns > 0 {
		of = " of its network namespace"
	}
	title := fmt.Sprintf("%s%s, in the census of %s", many(c.Total, "connection"), of, s.clock(c.Time))
	if c.Total > len(c.List) {
		title += fmt.Sprintf("; the %d that would go unnoticed longest (c shows all)", len(c.List))
	}
	l := list{columns: definition(connectionsView).columns, by: unsorted}
	for i := range c.List {
		l.rows = append(l.rows, row{cells: connectionCells(&c.List[i])})
	}
	if l.total = len(l.rows); l.total == 0 {
		return section(title)
	}
	return append(section(title), s.text(&l, l.total)...)
}

func openPeer(s *Screen, key string) *page {
	p := &page{key: key, draw: (*page).peerPage}
	p.peerPage(s)
	p.query = &state.Query{Peer: p.peer.Peer}
	if p.everywhere(s) != "" { // else it would say nothing
		p.query.Netns = p.peer.Netns
	}
	return p
}

func (p *page) peerPage(s *Screen) []line {
	renew(p, &p.peer, s.shown.Peers, peerKey)
	peer := &p.peer
	is := liveness(peer.Verdict).text
	if peer.Since != nil {
		is += " since " + s.moment(*peer.Since)
	}
	quiet := unknown
	if peer.QuietMS != nil {
		ago := float64(*peer.QuietMS) / 1000
		quiet = seconds(&ago) + " ago"
	}
	lines := append(p.head(s, fmt.Sprintf("Peer %s: %s", peer.Peer, many(peer.Count, "connection"))), s.pairs([][2]string{
		{"verdict", is},
		{"acknowledged last", quiet},
		{"network namespace", fmt.Sprint(peer.Netns)},
		{"processes", holders(peer.Processes)},
		{"death noticed, idle", boundText(peer.Idle, peer.Never)},
		{"death noticed, sending", seconds(peer.Sending)},
	})...)
	lines = append(lines, p.whatIf(s)...)
	return append(lines, p.connections(s)...)
}

// everywhere says that what is asked about a peer is about all that have its
// address, where there is more than one.
func (p *page) everywhere(s *Screen) string {
	for i := range s.shown.Peers {
		if o := &s.shown.Peers[i]; p.peer.Peer != "" && o.Peer == p.peer.Peer && o.Netns != p.peer.Netns {
			return ", in all network namespaces"
		}
	}
	return ""
}

// whatIf says what the death of the peer would do.
func (p *page) whatIf(s *Screen) []line {
	title := section("If it dies now without a word" + p.everywhere(s))
	switch {
	case p.loss == nil:
		return append(title, lineOf(dim, "  asking"))
	case p.loss.Err != "":
		return append(title, lineOf(warned, "  It cannot be told: "+p.loss.Err))
	}
	loss := &p.loss.Loss
	if loss.Count == 0 {
		return append(title, lineOf(plain, "  No connection falls silent."))
	}
	l := list{columns: []column{{title: "FALL SILENT", right: true}, {title: "PROCESS", flex: true, least: 10}, {title: "IDLE: FIRST", right: true, drop: 1},
		{title: "IDLE: LAST", right: true}, {title: "SENDING: FIRST", right: true, drop: 3}, {title: "SENDING: LAST", right: true, drop: 2}}, by: unsorted}
	add := func(who string, n int, idle, sending *state.Notice) {
		l.rows = append(l.rows, row{cells: []cell{count(n), word(who), word(seconds(idle.First)), word(lastNotice(idle)), word(seconds(sending.First)), word(lastNotice(sending))}})
	}
	for i := range loss.Processes {
		add(holder(&loss.Processes[i].Holder), loss.Processes[i].Count, &loss.Processes[i].Idle, &loss.Processes[i].Sending)
	}
	if len(loss.Processes) != 1 {
		add("all", loss.Count, &loss.Idle, &loss.Sending)
	}
	l.total = len(l.rows)
	lines := s.text(&l, l.total)
	if loss.Idle.Never > 0 {
		lines = append(lines, lineOf(warned, fmt.Sprintf("  %s of them would never be told while idle: keepalive is off.", verdict.Number(loss.Idle.Never))))
	}
	if loss.Unknown > 0 {
		lines = append(lines, lineOf(noted, fmt.Sprintf("  Of %s the bound is not known: the options were not seen.", many(loss.Unknown, "connection"))))
	}
	if loss.Transit != nil && *loss.Transit > 0 {
		lines = append(lines, lineOf(warned, fmt.Sprintf("  %s that this machine forwards would fall silent too.", many(*loss.Transit, "flow"))))
	}
	return append(title, lines...)
}

func lastNotice(n *state.Notice) string {
	if n.Never > 0 {
		return "never"
	}
	return seconds(n.Last)
}

func openConnection(s *Screen, key string) *page {
	for i := range s.conns.list {
		if connectionKey(&s.conns.list[i]) == key {
			return &page{key: key, draw: (*page).connection, one: s.conns.list[i]}
		}
	}
	return nil
}

func openLeak(s *Screen, id string) *page {
	p := &page{key: id, draw: (*page).leakPage}
	p.leakPage(s)
	p.query = &state.Query{PID: p.site.PID}
	return p
}

func (p *page) leakPage(s *Screen) []line {
	renew(p, &p.site, s.shown.Leaks, func(o *state.Site) string { return o.ID })
	site := &p.site
	who := state.Holder{PID: site.PID, Name: site.Process}
	how := "opened"
	if site.Accepted {
		how = "accepted"
	}
	lines := append(p.head(s, fmt.Sprintf("%s: %s of %s open, %s", holder(&who), verdict.Number(site.Open), verdict.Number(site.Opened), opener(site))), s.pairs([][2]string{
		{"verdict", leakVerdict(site.Verdict).text},
		{"why", site.Diagnosis},
		{"peer", site.Peer + ", " + how},
		{"first seen", s.moment(site.First)},
		{"idle for up to", seconds(site.Idle)},
		{"no file left in", seconds(site.Left)},
		{"container", site.Container},
		{"last hour", overTime(site.Over, max(s.width-24, 10))},
		{"", overWords(site.Over)},
	})...)
	lines = append(lines, section("Opened by")...)
	for i := range site.Stack {
		c := &site.Stack[i]
		lines = append(lines, hang(plain, fmt.Sprintf("  %2d  ", i+1), fmt.Sprintf("%s %s:%d", c.Function, c.File, c.Line), s.width)...)
	}
	if site.Unknown != "" {
		lines = append(lines, hang(noted, "      ", site.Unknown, s.width)...)
	}
	return append(lines, p.connections(s)...)
}

func overWords(over []int) string {
	if len(over) == 0 {
		return ""
	}
	return fmt.Sprintf("%d open at first, %d at most, %d now", over[0], slices.Max(over), over[len(over)-1])
}

// Of names, calls and sources a page says what their rows cut.

func openName(_ *Screen, key string) *page { return &page{key: key, draw: (*page).namePage} }

func (p *page) namePage(s *Screen) []line {
	kind, of, _ := strings.Cut(p.key, " ")
	if n := s.shown.Names; kind == "name" && n != nil {
		for i := range n.Names {
			if n.Names[i].Name == of {
				return append(p.head(s, of), s.ways(&n.Names[i])...)
			}
		}
	}
	return p.whole(s)
}

// ways are all ways in which a name was asked for.
func (s *Screen) ways(n *state.Name) []line {
	var list [][2]string
	for i := range n.Ways {
		w := &n.Ways[i]
		text := fmt.Sprintf("%s (%.1f ms)", strings.Join(w.Addresses, ", "), w.MS)
		if !w.OK {
			text = fmt.Sprintf("FAILS: %s (%.1f ms)", w.Error, w.MS)
		}
		list = append(list, [2]string{w.Way, text})
	}
	return s.pairs(list)
}

func openSource(_ *Screen, key string) *page { return &page{key: key, draw: (*page).whole} }

// whole is a row, with nothing cut.
func (p *page) whole(s *Screen) []line {
	for _, r := range s.rows() {
		if r.key != p.key {
			continue
		}
		var list [][2]string
		for i, c := range s.viewed().columns {
			if text := r.cells[i].text; text != "" {
				list = append(list, [2]string{strings.ToLower(c.title), text})
			}
		}
		return append(p.head(s, r.cells[0].text), s.pairs(list)...)
	}
	p.gone = true
	return p.head(s, p.key)
}

func openCall(s *Screen, key string) *page {
	p := &page{key: key, draw: (*page).callPage}
	p.callPage(s)
	p.query = about(verdict.Values{{Key: "peer", V: p.call.Peer}, {Key: "pid", V: p.call.PID}})
	return p
}

func (p *page) callPage(s *Screen) []line {
	renew(p, &p.call, s.shown.Calls, callKey)
	c := &p.call
	who := state.Holder{PID: c.PID, Name: c.Process}
	has := "no, or unknown"
	if c.Acknowledged {
		has = "yes, and was not answered"
	}
	lines := append(p.head(s, fmt.Sprintf("%s waits for %s", holder(&who), c.Peer)), s.pairs([][2]string{
		{"calls", verdict.Number(c.Count)},
		{"the longest waits for", seconds(&c.Since)},
		{"since about", s.clock(s.shown.Totals.Looked.Add(-time.Duration(c.Since * float64(time.Second))))},
		{"the request arrived", has},
	})...)
	if len(c.Goroutines) > 0 {
		lines = append(lines, section("Goroutines that wait")...)
	}
	for _, g := range c.Goroutines {
		lines = append(lines, hang(plain, "  ", g, s.width)...)
	}
	return append(lines, p.connections(s)...)
}
