package main

import (
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/lab/leaker"
	"github.com/lifeline-go/lifeline/internal/need"
)

// The story with a real Docker daemon, short: both clients keep their connections
// for as long as it takes, and the one of the story is named by its line.
func TestLabLeaks(t *testing.T) {
	t.Parallel()
	need.Root(t)
	for _, program := range leaker.Needs {
		need.Program(t, program)
	}
	var d struct {
		Runs []struct {
			Story, With   string
			Count, Builds int
			Seconds       *float64
			Leaks         bool
			FoundAt       *int `json:"found_after_builds"`
			Site          *struct {
				AskedBy     *struct{ Function, File string } `json:"asked_by"`
				PeerProcess *string                          `json:"peer_process"`
				PerOp       int                              `json:"per_operation"`
				Transports  *int
				Verdict     string
				Diagnosis   string
			}
		}
	}
	document(t, &d, "lab", "leaks", "--every", "1s", "--idle", "1500ms", "--most", "1m")
	if len(d.Runs) != 2 || d.Runs[0].Site == nil {
		t.Fatalf("got %+v", d)
	}
	r, s := d.Runs[0], d.Runs[0].Site
	if r.Story != "leaks" || !r.Leaks || r.Seconds == nil || r.FoundAt == nil || *r.FoundAt > 12 || s.AskedBy.Function != "main.build" || s.PeerProcess == nil ||
		*s.PeerProcess != "dockerd" || s.PerOp != 2 || s.Transports == nil || s.Verdict != "leak" || !strings.Contains(s.Diagnosis, "a Docker client is built") {
		t.Errorf("got %+v, %+v", r, s)
	}
}
