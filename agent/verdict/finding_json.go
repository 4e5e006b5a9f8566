package verdict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// UnmarshalText reads what MarshalText makes.
func (p *Promise) UnmarshalText(text []byte) error {
	for q := Names; q <= Leaks; q++ {
		if string(text) == q.String() {
			*p = q
			return nil
		}
	}
	return fmt.Errorf("%q is no promise: use names, calls, silence or leaks", text)
}

// UnmarshalJSON reads what MarshalJSON makes.
func (f *Finding) UnmarshalJSON(text []byte) error {
	var doc struct {
		Code     string   `json:"code"`
		Promise  Promise  `json:"promise"`
		Severity Severity `json:"severity"`
		Title    string   `json:"title"`
		Subject  Values   `json:"subject"`
		Evidence Values   `json:"evidence"`
		Why      string   `json:"why"`
		Fix      []string `json:"fix"`
		Bound    *float64 `json:"bound_seconds"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	*f = Finding{Code: doc.Code, Promise: doc.Promise, Severity: doc.Severity, Title: doc.Title, Subject: doc.Subject,
		Evidence: doc.Evidence, Why: doc.Why, Fix: doc.Fix}
	if doc.Bound == nil {
		return nil
	}
	const longest = math.MaxInt64 / int64(time.Second) // a bound of centuries is said to be that
	if *doc.Bound < 0 {
		return fmt.Errorf("bound_seconds: %v is negative", *doc.Bound)
	}
	f.Bound = fact.Seen(time.Duration(math.Round(min(*doc.Bound, float64(longest)) * 1e9)))
	return nil
}

// UnmarshalJSON reads an object and keeps the order of its keys. Whole numbers
// become int, others float64; lists of strings become []string, others []any.
// Objects within are an error: there are none.
func (v *Values) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	open, err := d.Token()
	if err != nil {
		return err
	}
	if open == nil {
		*v = nil
		return nil
	}
	if open != json.Delim('{') {
		return fmt.Errorf("values are an object, not %v", open)
	}
	*v = Values{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		value, err := readValue(d, 0)
		if err != nil {
			return fmt.Errorf("%v: %w", key, err)
		}
		*v = v.add(key.(string), value)
	}
	_, err = d.Token()
	return err
}

// deepest is how far lists may be nested: one in another is more than there is.
const deepest = 4

func readValue(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Number:
		return number(t.String())
	case json.Delim:
		if t == '[' && depth < deepest {
			return readList(d, depth)
		}
		return nil, fmt.Errorf("a value is a string, a number, true, false, null or a list of these")
	}
	return token, nil
}

func number(text string) (any, error) {
	if !strings.ContainsAny(text, ".eE") {
		if n, err := strconv.Atoi(text); err == nil {
			return n, nil
		}
	}
	return strconv.ParseFloat(text, 64)
}

func readList(d *json.Decoder, depth int) (any, error) {
	list, texts := []any{}, []string{}
	for d.More() {
		value, err := readValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		if text, ok := value.(string); ok {
			texts = append(texts, text)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if len(texts) == len(list) {
		return texts, nil
	}
	return list, nil
}
