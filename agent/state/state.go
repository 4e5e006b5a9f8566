// Package state is what the agent knows at one moment, as plain values: the
// page, lifeline top, the metrics, the history and the API are made from it. It
// is pure, like the verdicts it carries, and its JSON is the API.
//
// Unknown is not zero: a pointer is nil, and null in JSON, where something was
// not seen.
package state

import (
	"time"

	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// State is one moment. Once published it is never changed, so that anybody may
// keep it and read it without a lock.
type State struct {
	Schema string    `json:"schema"` // lifeline/v1
	Host   string    `json:"host"`
	Time   time.Time `json:"time"`

	// Run names this run of the agent and Seq grows with each State of it: a
	// number of another run says nothing.
	Run string `json:"run"`
	Seq uint64 `json:"seq"`

	Agent    Agent     `json:"agent"`
	Promises []Promise `json:"promises"` // always the four, in their order
	Findings []Finding `json:"findings"` // open ones, worst first; then those that ended within the last hour, latest first
	Totals   Totals    `json:"totals"`
	Links    []Link    `json:"links"` // who talks to whom, most connections first; beyond MostLinks folded, see [Fold]
	Peers    []Peer    `json:"peers"` // silent ones first, then by connections; at most MostPeers
	Leaks    []Site    `json:"leaks"` // worst first, at most MostSites
	Names    *Names    `json:"names"` // nil before the doctor looked
	Calls    []Waiting `json:"calls"` // requests without an answer, oldest first, at most MostWaiting
	Sources  []Source  `json:"sources"`
	Blind    []Blind   `json:"blind"`
	Acts     []Act     `json:"acts"`       // the latest, newest first
	Tally    []Tally   `json:"acts_total"` // what the acts of this run came to

	// Groups are all links by what the history counts, not folded. They are for
	// the history alone, belong to the census of Totals.Looked, and are the same
	// slice in each State until the next.
	Groups []Group `json:"-"`
}

// How many entries a State has at most. What is left out is counted in
// Totals.
const (
	MostLinks   = 200
	MostPeers   = 500
	MostSites   = 200
	MostWaiting = 200
	MostActs    = 100
)

// Agent is the agent itself.
type Agent struct {
	Version   string         `json:"version"`
	PID       int            `json:"pid"`
	Started   time.Time      `json:"started"`
	Profile   string         `json:"profile"`         // what its rights allow: act, observe, or partial where something stays unseen
	Missing   []profile.Lack `json:"missing"`         // what they do not, and which capability would
	Policy    Policy         `json:"policy"`          // what it was told
	ByHand    []ByHand       `json:"by_hand"`         // acts that a person may ask for, or why not
	CPU       *float64       `json:"cpu_fraction"`    // of one processor, over the last minute
	Resident  *uint64        `json:"resident_bytes"`  // of memory
	History   string         `json:"history"`         // the file; "" = none is kept
	NotStored string         `json:"history_problem"` // why the history is not written; "" when it is
}

// Policy is the policy file in force.
type Policy struct {
	Path   string    `json:"path"` // "" = none: watches all, acts on nothing
	Loaded time.Time `json:"loaded"`
	Error  string    `json:"error"` // why the file as it is now is not the one in force; "" when it is
	Acts   []string  `json:"acts"`  // what may run by itself, such as "cut on S001"
}

// Status is how it stands with a promise.
type Status string

// The statuses, from the best.
const (
	Kept    Status = "kept"    // looked at, nothing found
	Warned  Status = "warned"  // findings of severity warn
	Broken  Status = "broken"  // findings of severity fail
	Unknown Status = "unknown" // could not be looked at, or not yet
)

// Promise is how it stands with one of the four.
type Promise struct {
	Promise  verdict.Promise `json:"promise"`
	Status   Status          `json:"status"`
	Findings int             `json:"findings"` // open, those hidden by a cause left out
	Summary  string          `json:"summary"`  // one line: the worst finding's title, or what was looked at
	Looked   *time.Time      `json:"looked"`   // last
}

// Finding is a verdict with a life.
type Finding struct {
	verdict.Finding
	ID       string     `json:"id"` // the same for as long as it is the same thing: code and subject
	First    time.Time  `json:"first_seen"`
	Last     time.Time  `json:"last_seen"`
	Resolved *time.Time `json:"resolved"` // nil while it is open
	Times    int        `json:"times"`    // how often it came; more than 1 when it came back
	Flapping bool       `json:"flapping"` // it comes and goes, and is held open until it rests
	Count    int        `json:"count"`    // connections, or what else its title counts; 0 where there is nothing to count
	Cause    string     `json:"cause"`    // ID of the finding that explains this one; "" for a root
	Hides    int        `json:"hides"`    // how many findings name this one as their cause
}

// Totals are what the State rests on. Sockets, families, TCP and peers are counted
// again within a second or two when many connections came or went; the rest, and
// whose they are, is as the census has it.
type Totals struct {
	Sockets    int            `json:"sockets"`   // that a program holds or will: all but those in TIME_WAIT
	Families   map[string]int `json:"families"`  // ipv4, ipv6, unix
	TCP        map[string]int `json:"tcp"`       // by state
	Processes  int            `json:"processes"` // that hold sockets
	Namespaces int            `json:"namespaces"`
	Peers      int            `json:"peers"`
	Links      int            `json:"links"`               // before folding
	Sites      int            `json:"sites"`               // lines of code that opened what is open
	Opened     *float64       `json:"opened_per_second"`   // TCP connections, dialled or accepted, over the last minute; one with both ends here is two
	Resets     *float64       `json:"resets_per_second"`   // of established connections, by either end
	Resent     *float64       `json:"resent_per_second"`   // segments
	Conntrack  *float64       `json:"conntrack_fraction"`  // of the fullest table
	Files      *float64       `json:"file_limit_fraction"` // of the process that is nearest to its limit
	Looked     time.Time      `json:"looked"`              // when the census was taken
	Took       float64        `json:"census_seconds"`      // how long that took
}

// Source is one thing that the agent looks at again and again.
type Source struct {
	Name  string     `json:"name"`          // census, peers, names, leaks, calls, conntrack …
	Every float64    `json:"every_seconds"` // its pace now
	Last  *time.Time `json:"last"`          // end of the last look that worked
	Took  *float64   `json:"took_seconds"`
	Late  bool       `json:"late"`  // it is under way for much longer than it should
	Error string     `json:"error"` // of the last look; "" when it worked
	Off   string     `json:"off"`   // why it is not looked at: policy or missing right; "" when it is
}

// Blind is what could not be looked at.
type Blind struct {
	Source string  `json:"source"`
	Error  string  `json:"error"`
	Needs  *string `json:"needs"` // nil when nothing would help
}
