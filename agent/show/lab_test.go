package show

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

var (
	ofIdle    = bound.Bound{After: 150 * time.Second, Latest: 150 * time.Second, By: bound.KeepAlive}
	ofSending = bound.Bound{After: 929 * time.Second, Latest: 940 * time.Second, By: bound.Retransmission}
)

// labRuns are a run that was waited for, one whose wait was shortened, one that
// was computed, one that ended well and one in which somebody never learned.
var labRuns = []LabRun{
	{Story: "silence", Traffic: "idle", With: "Go alone", At: "server", Count: 20, Learned: 20, First: fact.Seen(136 * time.Second),
		Last: fact.Seen(149 * time.Second), Bound: ofIdle, By: []string{"connection timed out"}},
	{Story: "silence", Traffic: "sending", With: "Go alone", At: "server", Count: 20, Learned: 20, First: fact.Seen(26 * time.Second),
		Last: fact.Seen(55 * time.Second), Bound: bound.Bound{After: 26 * time.Second, By: bound.Retransmission}, Retries2: 6, By: []string{"connection timed out"}},
	{Story: "silence", Traffic: "sending", With: "Go alone", At: "server", Count: 4224, Computed: true, Bound: ofSending},
	{Story: "silence", Traffic: "sending", With: "lifeline cut", At: "server", Count: 4224, Learned: 4224, Verdict: fact.Seen(800 * time.Millisecond),
		First: fact.Seen(810 * time.Millisecond), Last: fact.Seen(1012 * time.Millisecond), Bound: ofSending, By: []string{"end of file", "software caused connection abort"}},
	{Story: "silence", Traffic: "idle", With: "lifeline cut", At: "clients", Count: 4224, Learned: 4000, First: fact.Seen(time.Second), Bound: ofIdle,
		By: []string{"software caused connection abort"}},
}

func TestLab(t *testing.T) {
	const want = `TRAFFIC  WITH          AT       CONNECTIONS  VERDICT  FIRST LEARNED  LAST LEARNED            KERNEL'S BOUND        TOLD
idle     Go alone      server   20           -        136 s          149 s                   150 s                 connection timed out
sending  Go alone      server   20           -        26 s           55 s                    26 s, tcp_retries2=6  connection timed out
sending  Go alone      server   4,224        -        -              not waited for          15 min 29 s           -
sending  lifeline cut  server   4,224        0.80 s   0.81 s         1.01 s                  15 min 29 s           end of file, software caused connection abort
idle     lifeline cut  clients  4,224        -        1.00 s         224 of 4,224 never did  150 s                 software caused connection abort

Times count from the death of the node, or from its being told to go.
KERNEL'S BOUND is how long programs could have waited; those that send, from their next heartbeat on.
`
	var out bytes.Buffer
	Lab(&out, labRuns)
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", out.String(), want)
	}
}

func TestLabJSON(t *testing.T) {
	var out bytes.Buffer
	if err := LabJSON(&out, &fact.Machine{Host: "here"}, labRuns); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Schema string
		Runs   []map[string]any
	}
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Schema != Schema || len(d.Runs) != len(labRuns) {
		t.Fatalf("%s with %d runs", d.Schema, len(d.Runs))
	}
	for i, want := range []map[string]any{
		{"story": "silence", "traffic": "idle", "with": "Go alone", "at": "server", "count": 20., "learned": 20., "seconds": 149., "first_seconds": 136.,
			"verdict_seconds": nil, "bound_seconds": 150., "measured": true, "tcp_retries2": nil},
		{"tcp_retries2": 6., "seconds": 55.},
		{"measured": false, "seconds": nil, "first_seconds": nil, "bound_seconds": 929.},
		{"seconds": 1.012, "verdict_seconds": 0.8},
		{"seconds": nil, "learned": 4000.},
	} {
		for key, value := range want {
			if got, there := d.Runs[i][key]; !there || got != value {
				t.Errorf("run %d: %s is %v, want %v", i, key, got, value)
			}
		}
		if _, ok := d.Runs[i]["told"].([]any); !ok {
			t.Errorf("run %d: told is %v, want a list", i, d.Runs[i]["told"])
		}
	}
}
