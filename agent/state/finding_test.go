package state

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// A finding keeps its life in JSON, beside what the verdict says.
func TestFindingJSON(t *testing.T) {
	at := time.Date(2026, 11, 20, 14, 5, 0, 0, time.UTC)
	f := Finding{Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent", Fix: []string{"poke it"},
		Subject: verdict.Values{{Key: "peer", V: "10.77.1.2"}}, Evidence: verdict.Values{{Key: "exchanges", V: 7}}},
		ID: "S001 peer=10.77.1.2", First: at, Last: at.Add(time.Second), Resolved: &at, Times: 2, Flapping: true, Count: 4224, Cause: "X", Hides: 3}
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back Finding
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f, back) {
		t.Errorf("%s became %+v", text, back)
	}
	var keys map[string]any
	if err := json.Unmarshal(text, &keys); err != nil || len(keys) != 18 || keys["title"] != f.Title || keys["first_seen"] != "2026-11-20T14:05:00Z" {
		t.Errorf("%d keys in %s, %v", len(keys), text, err)
	}
	if err := json.Unmarshal([]byte(`{"bound_seconds":-1}`), &back); err == nil {
		t.Error("nonsense was read")
	}
}
