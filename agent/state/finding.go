package state

import (
	"encoding/json"
	"time"
)

// life is what a Finding has beside its verdict.
type life struct {
	ID       string     `json:"id"`
	First    time.Time  `json:"first_seen"`
	Last     time.Time  `json:"last_seen"`
	Resolved *time.Time `json:"resolved"`
	Times    int        `json:"times"`
	Flapping bool       `json:"flapping"`
	Count    int        `json:"count"`
	Cause    string     `json:"cause"`
	Hides    int        `json:"hides"`
}

// MarshalJSON writes the verdict and its life as one object.
func (f Finding) MarshalJSON() ([]byte, error) {
	verdict, err := json.Marshal(f.Finding)
	if err != nil {
		return nil, err
	}
	rest, err := json.Marshal(life{f.ID, f.First, f.Last, f.Resolved, f.Times, f.Flapping, f.Count, f.Cause, f.Hides})
	if err != nil {
		return nil, err
	}
	return append(append(verdict[:len(verdict)-1], ','), rest[1:]...), nil
}

// UnmarshalJSON reads what MarshalJSON makes.
func (f *Finding) UnmarshalJSON(text []byte) error {
	var l life
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	*f = Finding{ID: l.ID, First: l.First, Last: l.Last, Resolved: l.Resolved, Times: l.Times, Flapping: l.Flapping, Count: l.Count, Cause: l.Cause, Hides: l.Hides}
	return json.Unmarshal(text, &f.Finding)
}
