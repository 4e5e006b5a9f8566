package show

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

var (
	labCalls = []LabCall{
		{Story: "calls", Host: "well", Call: "new command", With: "lifeline/ssh", Took: fact.Seen(10 * time.Millisecond), Waited: 75 * time.Second},
		{Story: "calls", Host: "frozen", Call: "new command", With: "plain", Lost: true, Waited: 75 * time.Second},
		{Story: "calls", Host: "frozen", Call: "new command", With: "lifeline/ssh", Lost: true, Bound: fact.Seen(10 * time.Second),
			Took: fact.Seen(9500 * time.Millisecond), Waited: 75 * time.Second, Said: "it is silent"},
	}
	labLeft = []LabLeft{
		{With: "plain", Blocked: 1, Goroutines: fact.Seen(7), Descriptors: fact.Seen(1)},
		{With: "ssh", Blocked: 2, Processes: 4},
	}
)

func TestLabCalls(t *testing.T) {
	const want = `HOST    CALL         WITH          BLOCKED  BOUND  SAID
well    new command  lifeline/ssh  0.01 s   -      -
frozen  new command  plain         > 75 s   none   nothing: it is still blocked
frozen  new command  lifeline/ssh  9.50 s   10 s   it is silent

LEFT BEHIND BY  BLOCKED CALLS  GOROUTINES  DESCRIPTORS  PROCESSES
plain           1              7           1            0
ssh             2              -           -            4
`
	var out bytes.Buffer
	LabCalls(&out, labCalls, labLeft)
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", out.String(), want)
	}
}

func TestLabCallsJSON(t *testing.T) {
	var out bytes.Buffer
	if err := LabCallsJSON(&out, &fact.Machine{Host: "here"}, labCalls, labLeft); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Schema     string
		Runs, Left []map[string]any
	}
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Schema != Schema || len(d.Runs) != len(labCalls) || len(d.Left) != len(labLeft) {
		t.Fatalf("%s", out.Bytes())
	}
	check := func(got map[string]any, want map[string]any) {
		for key, value := range want {
			if v, there := got[key]; !there || v != value {
				t.Errorf("%s is %v, want %v", key, v, value)
			}
		}
	}
	check(d.Runs[0], map[string]any{"story": "calls", "host": "well", "seconds": 0.01, "bound_seconds": nil, "said": nil, "count": 1.})
	check(d.Runs[1], map[string]any{"seconds": nil, "waited_seconds": 75., "bound_seconds": nil})
	check(d.Runs[2], map[string]any{"seconds": 9.5, "bound_seconds": 10., "said": "it is silent", "with": "lifeline/ssh", "call": "new command"})
	check(d.Left[0], map[string]any{"with": "plain", "blocked": 1., "goroutines": 7., "descriptors": 1., "processes": 0.})
	check(d.Left[1], map[string]any{"goroutines": nil, "descriptors": nil, "processes": 4.})
}
