package show

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/census"
	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what was written with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func machine() *fact.Machine {
	at := time.Date(2026, 11, 20, 14, 5, 0, 0, time.UTC)
	return &fact.Machine{
		Host: "pod-7", Time: at, Namespaces: make([]fact.Namespace, 2), Sockets: make([]fact.Socket, 4231), Processes: make([]fact.Process, 9),
		Earlier: &fact.Machine{Time: at.Add(-1004 * time.Millisecond)},
		Blind: []fact.Blind{
			{Source: "owners", Error: "may not see the files of 12 processes of other users", Needs: "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"},
			{Source: "sockets", Error: "udp: the list changed while it was read"},
		},
	}
}

func findings() []verdict.Finding {
	return []verdict.Finding{
		{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent: nothing acknowledged for 12 s on 4,224 connections",
			Subject:  verdict.Values{{Key: "peer", V: "10.77.1.2"}, {Key: "count", V: 4224}},
			Evidence: verdict.Values{{Key: "last_ack_seconds", V: 12.3}, {Key: "probing", V: 4100}, {Key: "sure", V: true}, {Key: "port", V: nil}, {Key: "processes", V: []string{"ws-server[812]", "ws-server[813]"}}},
			Why:      "Programs that use these connections do not know it: writes succeed, reads wait.", Fix: []string{"ss -tnoi dst 10.77.1.2 shows the timers and counters of each connection"},
			Bound: fact.Seen(150 * time.Second)},
		{Code: "S002", Promise: verdict.Silence, Severity: verdict.Warn, Title: "the first of two that are alike", Why: "Said once.", Fix: []string{"done once"}},
		{Code: "S002", Promise: verdict.Silence, Severity: verdict.Warn, Title: "the second", Why: "Said once.", Fix: []string{"done once"}},
	}
}

// observes are the rights of somebody who may not cut.
var observes = profile.Standing{Name: profile.Observe, Missing: []profile.Lack{
	{Feature: "cut", Profile: profile.Act, Needs: "CAP_NET_ADMIN", Lost: "connections cannot be cut"},
}}

func TestCheckText(t *testing.T) {
	var b bytes.Buffer
	Check(&b, machine(), findings(), all, observes, Style{Width: 80})
	golden(t, "check.txt", b.Bytes())
}

func TestCheckJSON(t *testing.T) {
	var b bytes.Buffer
	if err := CheckJSON(&b, machine(), findings(), observes, false); err != nil {
		t.Fatal(err)
	}
	golden(t, "check.json", b.Bytes())
}

// Lists are never null, and neither a well machine nor a blind one is
// mistaken for the other.
func TestCheckOfAWellMachine(t *testing.T) {
	m := machine()
	m.Blind, m.Earlier = nil, nil
	var b bytes.Buffer
	Check(&b, m, nil, all, observes, Style{})
	if !strings.HasSuffix(b.String(), "\nAll four promises are kept.\n") {
		t.Errorf("a well machine is summed up as\n%s", b.String())
	}
	b.Reset()
	if err := CheckJSON(&b, m, nil, observes, true); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); strings.Contains(s, "null") || strings.Count(s, "\n") != 1 {
		t.Errorf("got %s", s)
	}
}

func all(verdict.Promise) bool { return true }

// What was not judged is not called kept.
func TestCheckOfOnePromise(t *testing.T) {
	m := machine()
	m.Blind = nil
	var b bytes.Buffer
	Check(&b, m, nil, func(p verdict.Promise) bool { return p == verdict.Leaks }, observes, Style{})
	if s := b.String(); !strings.Contains(s, "Nothing found in 1 promise.") || strings.Contains(s, "names  its") || strings.Contains(s, "four") {
		t.Errorf("got\n%s", s)
	}
}

func counts() *census.Census {
	return &census.Census{By: []census.Key{census.Peer, census.State}, Total: 4231, Counts: [3]int{4229, 0, 2}, Groups: []census.Group{
		{Labels: []string{"10.77.1.2", "ESTABLISHED"}, Count: 4224, LastAck: fact.Seen(300 * time.Millisecond), Unacked: 42, QueueBytes: 4200,
			Holders: []census.Holder{{PID: 812, Name: "ws-server", Count: 2112}, {PID: 813, Name: "ws-server", Count: 2000}, {PID: 1, Name: "a", Count: 100}, {PID: 2, Name: "b", Count: 12}},
			Idle:    longestOf(bound.Bound{After: 150 * time.Second, By: bound.KeepAlive}, 4224, 0),
			Sending: longestOf(bound.Bound{After: 940 * time.Second, By: bound.Retransmission}, 4224, 0)},
		{Labels: []string{"10.77.1.9", "ESTABLISHED"}, Count: 4, Holders: []census.Holder{{Name: "(no process)", Count: 4}}, Idle: longestOf(bound.Bound{}, 0, 4), Sending: longestOf(bound.Bound{}, 0, 4)},
		{Labels: []string{"10.77.1.8", "ESTABLISHED"}, Count: 1, Holders: []census.Holder{{PID: 3, Name: "c", Count: 1}}, Idle: longestOf(bound.Bound{}, 1, 0),
			Sending: longestOf(bound.Bound{After: time.Second, By: bound.UserTimeout}, 1, 0)},
		{Labels: []string{"(listening)", "LISTEN"}, Count: 2, Holders: []census.Holder{{PID: 812, Name: "ws-server", Count: 2}}},
	}}
}

func longestOf(b bound.Bound, known, unknown int) census.Longest {
	return census.Longest{Bound: b, Known: known, Unknown: unknown}
}

func TestCensusText(t *testing.T) {
	var b bytes.Buffer
	Census(&b, counts(), 0)
	b.WriteString("\n")
	Census(&b, counts(), 1)
	golden(t, "census.txt", b.Bytes())
}

func TestCensusJSON(t *testing.T) {
	var b bytes.Buffer
	if err := CensusJSON(&b, machine(), counts(), 0, false); err != nil {
		t.Fatal(err)
	}
	golden(t, "census.json", b.Bytes())
	var d struct {
		Groups []map[string]any
		Total  int
	}
	if err := json.Unmarshal(b.Bytes(), &d); err != nil || len(d.Groups) != 4 || d.Total != 4231 {
		t.Errorf("read back as %+v, %v", d, err)
	}
}
