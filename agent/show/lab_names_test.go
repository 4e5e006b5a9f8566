package show

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

var labNames = []LabName{
	{Story: "names", Client: "kubectl", With: "Go alone", Took: 20010 * time.Millisecond, Said: "i/o timeout"},
	{Story: "names", Client: "kubectl", With: "lifeline run", Took: 90 * time.Millisecond, OK: true, Said: "worker-1"},
}

func TestLabNames(t *testing.T) {
	const want = `CLIENT   WITH          TOOK    RESULT  SAID
kubectl  Go alone      20 s    failed  i/o timeout
kubectl  lifeline run  0.09 s  ok      worker-1
`
	var out bytes.Buffer
	LabNames(&out, labNames)
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", out.String(), want)
	}
}

func TestLabNamesJSON(t *testing.T) {
	var out bytes.Buffer
	if err := LabNamesJSON(&out, &fact.Machine{Host: "here"}, labNames); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Schema string
		Runs   []map[string]any
	}
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.Schema != Schema || len(d.Runs) != 2 {
		t.Fatalf("%s", out.Bytes())
	}
	for key, want := range map[string]any{"story": "names", "client": "kubectl", "with": "lifeline run", "count": 1.0, "seconds": 0.09, "ok": true, "said": "worker-1"} {
		if got, there := d.Runs[1][key]; !there || got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
}
