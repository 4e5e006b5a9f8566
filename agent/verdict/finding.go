package verdict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Promise is one of the four that Lifeline keeps about every connection.
type Promise uint8

// The promises, in the order in which they are shown.
const (
	Names   Promise = iota // its name resolves
	Calls                  // its calls return
	Silence                // its silence is noticed
	Leaks                  // its socket is closed
)

// String returns the promise's name as in JSON.
func (p Promise) String() string {
	switch p {
	case Names:
		return "names"
	case Calls:
		return "calls"
	case Silence:
		return "silence"
	case Leaks:
		return "leaks"
	}
	return fmt.Sprintf("promise %d", uint8(p))
}

// MarshalText makes the promise's name.
func (p Promise) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Severity is how much a finding matters. The zero value is Info.
type Severity uint8

// The severities, from the least.
const (
	Info Severity = iota // good to know; nothing is wrong
	Warn                 // will hurt when something else fails, or may be wrong already
	Fail                 // wrong now
)

// String returns the severity's name as in JSON.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warn:
		return "warn"
	case Fail:
		return "fail"
	}
	return fmt.Sprintf("severity %d", uint8(s))
}

// MarshalText makes the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText makes.
func (s *Severity) UnmarshalText(text []byte) error {
	parsed, err := ParseSeverity(string(text))
	if err == nil {
		*s = parsed
	}
	return err
}

// ParseSeverity returns the severity of that name: info, warn or fail, in any
// case.
func ParseSeverity(name string) (Severity, error) {
	for s := Info; s <= Fail; s++ {
		if strings.EqualFold(name, s.String()) {
			return s, nil
		}
	}
	return Info, fmt.Errorf("%q is no severity: use info, warn or fail", name)
}

// Finding is one verdict: what it is about, what it rests on and what to do.
type Finding struct {
	Code     string
	Promise  Promise
	Severity Severity
	Title    string // one line with the numbers that matter, for a terminal
	Subject  Values // what it is about: pid, process, peer, count …
	Evidence Values // the facts it rests on, with units in the key
	Why      string // what this means for the programs concerned
	Fix      []string

	// Bound is how long the failure can go unnoticed, or still can when it has
	// begun. It is unknown where there is none; where nothing ever notices it is
	// unknown too and Evidence says so: bound = never.
	Bound fact.Known[time.Duration]

	weight int      // orders findings of one rule: how many sockets, how large a share
	fill   []string // placeholders of the rule's Fix and what stands for them here, in pairs
}

// MarshalJSON writes the finding as lifeline/v1 documents have it: fix is never
// null, bound_seconds is null where there is no bound.
func (f Finding) MarshalJSON() ([]byte, error) {
	doc := struct {
		Code     string   `json:"code"`
		Promise  Promise  `json:"promise"`
		Severity Severity `json:"severity"`
		Title    string   `json:"title"`
		Subject  Values   `json:"subject"`
		Evidence Values   `json:"evidence"`
		Why      string   `json:"why"`
		Fix      []string `json:"fix"`
		Bound    *float64 `json:"bound_seconds"`
	}{f.Code, f.Promise, f.Severity, f.Title, f.Subject, f.Evidence, f.Why, f.Fix, nil}
	if doc.Fix == nil {
		doc.Fix = []string{}
	}
	if bound, ok := f.Bound.Get(); ok {
		s := seconds(bound)
		doc.Bound = &s
	}
	return json.Marshal(doc)
}

// Value is one named value. V is a string, a bool, a number, a list of these,
// or nil for what is not known.
type Value struct {
	Key string
	V   any
}

// Values are named values in the order in which they are to be read.
type Values []Value

// Get returns the value of a key and whether the key is there at all; a value
// that is there and unknown is nil, true.
func (v Values) Get(key string) (value any, ok bool) {
	for i := range v {
		if v[i].Key == key {
			return v[i].V, true
		}
	}
	return nil, false
}

// MarshalJSON writes an object whose keys keep their order.
func (v Values) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(v[i].Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(v[i].V)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v[i].Key, err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// add appends a value; it returns v so that calls chain.
func (v Values) add(key string, value any) Values { return append(v, Value{key, value}) }

// some appends a value unless it is zero: counts that would only say "none".
func (v Values) some(key string, n int) Values {
	if n == 0 {
		return v
	}
	return append(v, Value{key, n})
}
