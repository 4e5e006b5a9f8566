package state

import (
	"encoding/json"
	"time"
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
	Time  time.Time  `json:"time"`  // when it was taken: the last one at or before
	Next  *time.Time `json:"next"`  // when the one after it was taken; nil when it is the last
	Gap   bool       `json:"gap"`   // nothing was written then: the agent did not run, or could not write
	Note  string     `json:"note"`  // why, where that is known
}

// Past is the census of a moment.
type Past struct {
	Moment
	Groups []Group `json:"groups"` // largest first
	Totals Totals  `json:"totals"`
}

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
	Findings []PastFinding `json:"findings"` // that were open at any time between the two
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

// Point is what a step of a time line holds. Unknown is not zero: the counts
// are nil where nothing was written.
type Point struct {
	Time  time.Time `json:"time"`  // begin of the step
	Count *int      `json:"count"` // last of the step
	Least *int      `json:"least"`
	Most  *int      `json:"most"`
}

// Span is what the history holds.
type Span struct {
	First   time.Time `json:"first"` // record; zero when there is none
	Last    time.Time `json:"last"`
	Records int       `json:"records"`
	Bytes   int64     `json:"bytes"`
}
