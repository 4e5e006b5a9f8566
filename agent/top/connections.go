package top

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
)

// windowSize is how many connections are asked for at a time: the screen has a
// part of all, around the rows that are drawn.
const windowSize = 300

// askAgainAfter is how long after a question that failed it is asked again.
const askAgainAfter = 5 * time.Second

// window is the part of all connections that the screen has.
type window struct {
	query  state.Query // of which it is the answer; After is where it begins
	list   []state.Connection
	rows   []row
	total  int
	census time.Time
	err    string    // why there is none
	at     time.Time // it came
	known  bool      // there was an answer
	old    bool      // there has been another census since

	asked int         // ID of the Ask under way; 0 = none
	want  state.Query // its query
}

// all is the window as a list.
func (w *window) all() list {
	return list{columns: definition(connectionsView).columns, rows: w.rows, offset: w.query.After, total: w.total, whole: w.total}
}

// askConnections asks for the part of the list that is to be drawn, when it is not
// there. One question is under way at a time.
func (s *Screen) askConnections() {
	w, t := &s.conns, &s.tables[connectionsView]
	if s.view != connectionsView || s.page() != nil || s.shown == nil || w.asked != 0 {
		return
	}
	q := queryOf(t.filter)
	q.Sort, q.Reverse, q.Most, q.After = "bound", t.back, windowSize, w.query.After
	if columns := definition(connectionsView).columns; t.by >= 0 && columns[t.by].name != "" {
		q.Sort = columns[t.by].name
	}
	there := t.top >= q.After && min(t.top+s.height, w.total) <= q.After+len(w.rows)
	failed := w.err != "" && s.now.Sub(w.at) >= askAgainAfter
	if w.known && !w.old && !failed && w.query == q && there {
		return
	}
	if !there || w.query != q {
		q.After = max(t.at-windowSize/2, 0)
	}
	w.old, w.want = false, q
	w.asked = s.ask(Ask{Connections: &q})
}

// answer takes in a part of the connections.
func (w *window) answer(s *Screen, a *Answer) {
	if a.ID == 0 || a.ID != w.asked {
		return
	}
	*w = window{query: w.want, known: true, old: w.old, err: a.Err, at: s.now, total: a.Connections.Total, census: a.Connections.Time, list: a.Connections.List}
	for i := range w.list {
		w.rows = append(w.rows, row{key: connectionKey(&w.list[i]), cells: connectionCells(&w.list[i])})
	}
	if w.err == "" {
		l := w.all()
		s.tables[connectionsView].settle(&l, s.height)
		s.askConnections()
	}
}

// namespace is before the number of a network namespace in a filter.
const namespace = "netns="

// queryOf reads a filter of connections: a peer or network, a pid, a state, a
// network namespace, and what is left is the name of a process.
func queryOf(filter string) (q state.Query) {
	var process []string
	for word := range strings.FieldsSeq(filter) {
		_, address := netip.ParseAddr(word)
		_, network := netip.ParsePrefix(word)
		pid, number := strconv.ParseInt(word, 10, 32)
		netns, of := strings.CutPrefix(word, namespace)
		inode, is := strconv.ParseUint(netns, 10, 32)
		switch {
		case of && is == nil:
			q.Netns = uint32(inode)
		case address == nil || network == nil:
			q.Peer = word
		case number == nil && pid > 0:
			q.PID = int32(pid)
		case slices.ContainsFunc(states, func(st string) bool { return strings.EqualFold(st, word) }):
			q.State = word
		default:
			process = append(process, word)
		}
	}
	q.Process = strings.Join(process, " ")
	return q
}

// states are those that a connection may be in.
var states = func() (names []string) {
	for st := fact.Established; st <= fact.NewSynRecv; st++ {
		names = append(names, st.String())
	}
	return append(names, "CONNECTED", "UNCONNECTED")
}()

func connectionKey(c *state.Connection) string { return fmt.Sprintf("%d %d", c.Netns, c.Cookie) }

func connectionCells(c *state.Connection) []cell {
	bytes := int(c.Send) + int(c.Receive)
	return []cell{word(c.State), word(holder(&c.Process)), word(c.Local), word(c.Remote), word(heard(c)), count(bytes), noticed(c.Idle, c.Never)}
}

func heard(c *state.Connection) string {
	if c.HeardMS == nil {
		return unknown
	}
	ago := float64(*c.HeardMS) / 1000
	return seconds(&ago) + " ago"
}

func noConnections(s *Screen) string {
	switch {
	case s.conns.err != "":
		return "They cannot be told: " + s.conns.err
	case !s.conns.known:
		return "Asking for them."
	}
	return "There is no connection."
}

// connectionPage says all of one connection.
func (p *page) connection(s *Screen) []line {
	c := p.one
	for i := range s.conns.list { // as it is now
		if connectionKey(&s.conns.list[i]) == p.key {
			c = s.conns.list[i]
		}
	}
	return append(p.head(s, fmt.Sprintf("%s %s to %s", c.Protocol, c.Local, c.Remote)), s.pairs([][2]string{
		{"state", c.State},
		{"process", holder(&c.Process)},
		{"descriptors", fmt.Sprint(c.Process.Count)},
		{"network namespace", fmt.Sprint(c.Netns)},
		{"last heard from it", heard(&c)},
		{"round trip", milliseconds(c.RTTMS)},
		{"waits to be sent", many(int(c.Send), "byte")},
		{"waits to be read", many(int(c.Receive), "byte")},
		{"sent again", many(int(c.Resent), "segment")},
		{"death noticed, idle", boundText(c.Idle, c.Never) + by(c.ByIdle)},
		{"death noticed, sending", seconds(c.Sending)},
	})...)
}

func by(mechanism string) string {
	if mechanism == "" {
		return ""
	}
	return ", by " + mechanism
}

func milliseconds(ms *float64) string {
	if ms == nil {
		return unknown
	}
	return fmt.Sprintf("%.2f ms", *ms)
}
