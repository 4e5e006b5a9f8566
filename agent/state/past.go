package state

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Series names what is counted over time: the connections of a program, in a
// unit, with a peer, at a port.
type Series struct {
	Program string `json:"program"`
	Unit    string `json:"unit"`
	Peer    string `json:"peer"`
	Port    string `json:"port"` // as in [Link]
}

// Group is how many connections of a Series there are.
type Group struct {
	Series
	Count int `json:"count"`
}

// GroupsOf adds up links by their Series, which has neither network namespace
// nor container nor protocol; it leaves links as they are.
func GroupsOf(links []Link) []Group {
	index, groups := make(map[Series]int, len(links)), make([]Group, 0, len(links))
	for i := range links {
		l := &links[i]
		s := Series{Program: l.From.Name, Unit: l.From.Unit, Peer: l.To.Name, Port: l.Port}
		at, known := index[s]
		if !known {
			at = len(groups)
			index[s] = at
			groups = append(groups, Group{Series: s})
		}
		groups[at].Count += l.Count
	}
	return groups
}

// Moment is the record that stands for a moment of the past.
type Moment struct {
	Asked time.Time  `json:"asked"` // for
	Time  time.Time  `json:"time"`  // when it was taken: the last one at or before; the first of all when what is compared is from before it
	Next  *time.Time `json:"next"`  // when the one after it was taken; nil when it is the last
	Gap   bool       `json:"gap"`   // nothing was written then: the agent did not run, or could not write
	Note  string     `json:"note"`  // why, where that is known
}

// Past is the census of a moment.
type Past struct {
	Moment
	Count  int     `json:"count"`        // connections of all groups, however many are listed
	All    int     `json:"groups_total"` // groups, likewise
	Groups []Group `json:"groups"`       // largest first
	Totals Totals  `json:"totals"`
}

// Shorten keeps the first groups, at most so many.
func (p *Past) Shorten(most int) { p.Groups = p.Groups[:min(len(p.Groups), most)] }

// Change is how a peer's connections changed.
type Change struct {
	Peer     string   `json:"peer"`
	From     int      `json:"from"`
	To       int      `json:"to"`
	Programs []string `json:"programs"` // that had connections with it at either moment
}

// Difference is what changed between two moments, by peer; largest changes first.
type Difference struct {
	From     Moment        `json:"from"`
	To       Moment        `json:"to"`
	Came     []Change      `json:"came"`   // was not there before
	Went     []Change      `json:"went"`   // is not there any more
	Grew     []Change      `json:"grew"`   // has more connections
	Shrank   []Change      `json:"shrank"` // has fewer
	Same     int           `json:"same"`   // peers with as many as before
	Before   int           `json:"count_before"`
	After    int           `json:"count_after"`
	Left     int           `json:"left_out"` // changes that the lists are too short for
	Findings []PastFinding `json:"findings"` // that were open at any time between the two
}

// Shorten keeps the first changes of each kind, at most so many.
func (d *Difference) Shorten(most int) {
	for _, list := range []*[]Change{&d.Came, &d.Went, &d.Grew, &d.Shrank} {
		d.Left += max(0, len(*list)-most)
		*list = (*list)[:min(len(*list), most)]
	}
}

// Shift is a change of a peer's connections and when it was.
type Shift struct {
	Change           // Programs are those whose connections changed, at most 8
	Begin  time.Time `json:"begin"` // last census before it
	End    time.Time `json:"end"`   // first census after it
	Gap    bool      `json:"gap"`   // nothing was written between the two: it was at some time of that
}

// Size is by how many connections.
func (s *Shift) Size() int { return max(s.To-s.From, s.From-s.To) }

// Event is what changed at about the same time, and what was found around it. The
// records of Begin and End are those to compare, to see all that changed.
type Event struct {
	Begin    time.Time     `json:"begin"`
	End      time.Time     `json:"end"`
	Shifts   []Shift       `json:"shifts"` // largest first
	Findings []PastFinding `json:"findings"`
}

// Span is when it was.
func (e *Event) Span() (begin, end time.Time) {
	for i := range e.Shifts {
		s := &e.Shifts[i]
		if i == 0 || s.Begin.Before(begin) {
			begin = s.Begin
		}
		if i == 0 || s.End.After(end) {
			end = s.End
		}
	}
	return begin, end
}

// Story is when connections changed most.
type Story struct {
	From     Moment        `json:"from"`
	To       Moment        `json:"to"`
	Before   int           `json:"count_before"`
	After    int           `json:"count_after"`
	Events   []Event       `json:"events"`   // earliest first
	Findings []PastFinding `json:"findings"` // that began or ended at other times
}

// PastFinding is a [Finding] as it was written last.
type PastFinding struct {
	ID       string          `json:"id"`
	Code     string          `json:"code"`
	Severity string          `json:"severity"`
	Title    string          `json:"title"`
	First    time.Time       `json:"first_seen"`
	Last     time.Time       `json:"last_seen"`
	Resolved *time.Time      `json:"resolved"`
	Count    int             `json:"count"`
	Cause    string          `json:"cause"`
	Finding  json.RawMessage `json:"finding"` // the verdict, as lifeline check --json has it
}

// Filter chooses what a time line counts: the connections of the series that are
// equal in all that is not ""; Peer may be a network too. The zero Filter takes
// all connections.
type Filter struct {
	Series
	Total string // one of the totals instead, see [TimeLines]
}

// TimeLines are the totals that a [Filter] can name: those of [Totals] by their
// names in JSON, tcp/STATE and family/NAME.
func TimeLines() []string {
	names := []string{"sockets", "processes", "namespaces", "peers", "links", "sites", "opened_per_second", "resets_per_second",
		"resent_per_second", "conntrack_fraction", "file_limit_fraction", "census_seconds"}
	for f := fact.IPv4; f <= fact.Unix; f++ {
		names = append(names, "family/"+f.String())
	}
	for s := fact.Established; s <= fact.NewSynRecv; s++ {
		names = append(names, "tcp/"+s.String())
	}
	return names
}

// TimeLine is how a number changed over time.
type TimeLine struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Step   float64   `json:"step_seconds"`
	Points []Point   `json:"points"` // one for each step
}

// Point is what a step of a time line holds. Unknown is not zero: the numbers
// are nil where nothing was written.
type Point struct {
	Time  time.Time `json:"time"`  // begin of the step
	Count *float64  `json:"count"` // last of the step
	Least *float64  `json:"least"`
	Most  *float64  `json:"most"`
}

// Span is what the history holds.
type Span struct {
	First   *time.Time `json:"first"` // record; nil when there is none
	Last    *time.Time `json:"last"`
	Records int        `json:"records"`
	Bytes   int64      `json:"bytes"`
}

// BeforeError is a question about a time that the history does not reach back to.
type BeforeError struct {
	Asked time.Time
	Begin time.Time // zero: nothing was written yet
}

func (e *BeforeError) Error() string {
	if e.Begin.IsZero() {
		return "the history is empty: the agent writes the first record within seconds of its start"
	}
	return fmt.Sprintf("no history before %s; the agent's began then, and %s was asked for", e.Begin.Format(time.DateTime), e.Asked.Format(time.DateTime))
}

// PeerOf reads the peer of a [Filter] as somebody writes it: an address, with or
// without a zone, a network, or the name of a program of this machine. What looks
// like an address and is none is an error: the history could only say that it
// knows nothing of it.
func PeerOf(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Unmap().WithZone("").String(), nil
	}
	if _, err := netip.ParsePrefix(text); err == nil {
		return text, nil
	}
	if strings.ContainsAny(text, ".:/") && strings.Trim(text, "0123456789abcdefABCDEF.:/") == "" {
		return "", fmt.Errorf("%q is no address and no network: take one such as 10.77.1.2 or 10.48.0.0/14", text)
	}
	return text, nil
}
