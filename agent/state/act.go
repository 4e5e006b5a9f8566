package state

import "time"

// Doings are the acts of the agent: what was done, and what may be.
type Doings struct {
	Acts   []Act    // the latest, newest first
	Tally  []Tally  // of this run
	ByHand []ByHand // one for each act that can be asked for at a finding
	Blind  []Blind  // what is allowed and cannot be done
}

// ByHand is an act that a person may ask for at an open finding.
type ByHand struct {
	Act string   `json:"act"`     // cut
	On  []string `json:"on"`      // codes of the findings, of severity fail, at which it may; never nil
	Why string   `json:"why_not"` // why it may at none, in words; "" where it may
}

// Outcome is what an act came to, in a word.
type Outcome string

// The outcomes, from the best.
const (
	Whole     Outcome = "done"       // all that it was about
	Partly    Outcome = "partly"     // some of it
	Failed    Outcome = "failed"     // nothing of it
	LeftAlone Outcome = "left_alone" // it was not begun, though the policy allows it: the reason is in the Act
)

// Tally is how many acts of a kind came to an outcome, and how many connections
// they touched.
type Tally struct {
	Act         string  `json:"act"` // cut, tune, evac
	Outcome     Outcome `json:"outcome"`
	Count       int     `json:"count"`
	Connections int     `json:"connections"`
}

// OutcomeOf is what an act that was begun, and has ended, came to.
func OutcomeOf(a *Act) Outcome {
	switch {
	case a.Error == "" && a.Left == 0:
		return Whole
	case a.Done > 0:
		return Partly
	}
	return Failed
}

// Act is one thing that was done, or would have been: a line of the audit log.
type Act struct {
	ID      string     `json:"id"` // of this act alone
	Time    time.Time  `json:"time"`
	Ended   *time.Time `json:"ended"`   // nil: it is under way; or, as Outcome says then, nobody knows what came of it
	Act     string     `json:"act"`     // cut, tune, evac
	By      string     `json:"by"`      // policy, page, shutdown
	Why     string     `json:"why"`     // ID of the finding, or what asked
	Target  string     `json:"target"`  // in words
	Done    int        `json:"done"`    // connections
	Left    int        `json:"left"`    // selected and not touched
	Dry     bool       `json:"dry_run"` // it was only said what would be done
	Outcome string     `json:"outcome"` // in one line
	Error   string     `json:"error"`
	Undo    string     `json:"undo"` // a command; "" where there is none
}

// Plan is an act that was asked for and waits for the word to do it: a dry run.
type Plan struct {
	ID      string    `json:"plan"`
	Act     string    `json:"act"`
	Target  string    `json:"target"`  // in words
	Count   int       `json:"count"`   // connections that it would touch
	Text    string    `json:"text"`    // what it would do
	Expires time.Time `json:"expires"` // it is done by then or not at all
}

// Refusal is why something that was asked for is not done.
type Refusal struct {
	Why   string
	Stale bool // it was allowed once: what it rests on is over, or it was done already
}

func (r *Refusal) Error() string { return r.Why }
