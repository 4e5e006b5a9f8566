//go:build linux

package manager

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

// The whole of a replay is tested where the command is, which it takes; here is
// what it makes of what managers say.

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestBounds(t *testing.T) {
	const none = time.Duration(0)
	for _, row := range []struct {
		with With
		s    Situation
		want time.Duration
	}{
		{Plain, Situation{Reboots, Running}, 150 * time.Second},
		{Plain, Situation{Frozen, Running}, none},
		{Plain, Situation{Frozen, NewCommand}, none},
		{Workaround, Situation{Reboots, NewCommand}, 5 * time.Second},
		{Workaround, Situation{Frozen, Running}, 10 * time.Minute},
		{Mux, Situation{Frozen, Running}, none},
		{Mux, Situation{Reboots, Running}, 2*time.Hour + 675*time.Second},
		{MuxAlive, Situation{Frozen, Running}, time.Minute},
		{MuxAlive, Situation{Frozen, NewCommand}, 70 * time.Second},
		{Lifeline, Situation{Frozen, NewCommand}, 10 * time.Second},
		{Lifeline, Situation{Reboots, Running}, 20 * time.Second},
	} {
		if got := row.with.bound(row.s, 20*time.Second); got.OK != (row.want > 0) || got.Value != row.want {
			t.Errorf("%s, %s, %s: %+v, want %v", row.with, row.s.Host, row.s.Call, got, row.want)
		}
	}
	if got := Plain.bound(Situation{Reboots, NewCommand}, 0); got.Value < 15*time.Minute {
		t.Errorf("with a request in flight: %v", got.Value)
	}
	if got := Lifeline.bound(Situation{Reboots, NewCommand}, 3*time.Second); got.Value != 3*time.Second {
		t.Errorf("with less silence: %v", got.Value)
	}
}

// told is a play with one manager, and what it tells.
func told() (*play, *manager, *[]string) {
	texts := new([]string)
	m := &manager{with: Lifeline, stderr: new(strings.Builder), returned: make(map[Situation]message)}
	p := &play{Replay: &Replay{Wait: time.Minute, Silence: 20 * time.Second, Event: func(e Event) { *texts = append(*texts, e.Text) }}, managers: []*manager{m}}
	return p, m, texts
}

func TestManagersSpeak(t *testing.T) {
	p, m, texts := told()
	for _, e := range []message{
		{What: ready},
		{What: returned, Situation: Situations[0], Took: time.Second},
		{What: returned, Situation: Situations[1], Took: 10 * time.Second, Said: "too late"},
		{What: left, Counted: true, Goroutines: 3},
	} {
		if err := p.take(said{from: m, message: e}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"connected", "well, new command: returned after 1.00 s: done", "reboots, new command: returned after 10.00 s: too late"}; !m.ready ||
		len(*texts) != len(want) || !strings.HasPrefix((*texts)[0], want[0]) || (*texts)[1] != want[1] || (*texts)[2] != want[2] {
		t.Errorf("told %q", *texts)
	}
	o := p.outcome()
	if len(o.Runs) != len(Situations) || o.Runs[1].Said != "too late" || o.Runs[2].Took.OK || o.Runs[2].Waited != time.Minute {
		t.Errorf("%+v", o.Runs)
	}
	if l := o.Left[0]; l.Blocked != len(Situations)-2 || l.Goroutines != fact.Seen(3) || l.Descriptors != fact.Seen(0) {
		t.Errorf("%+v", l)
	}
	m.stderr.WriteString("no such host\n")
	if err := p.take(said{from: m, gone: true}); !errors.Is(err, errEarly) || !strings.HasSuffix(err.Error(), ": no such host") {
		t.Errorf("a manager that ended: %v", err)
	}
}

func TestLate(t *testing.T) {
	run := Run{Situation: Situation{Frozen, Running}, With: Lifeline, Bound: fact.Seen(20 * time.Second), Waited: time.Minute}
	onTime, early, plain := run, run, run
	onTime.Took, early.Waited, plain.With = fact.Seen(20*time.Second), 10*time.Second, Plain
	for name, row := range map[string]struct {
		o    Outcome
		want bool
	}{
		"blocked":              {Outcome{Runs: []Run{run}}, true},
		"on time":              {Outcome{Runs: []Run{onTime}}, false},
		"not waited for":       {Outcome{Runs: []Run{early}}, false},
		"another":              {Outcome{Runs: []Run{plain}}, false},
		"left":                 {Outcome{Left: []Left{{With: Lifeline, Goroutines: fact.Seen(1)}}}, true},
		"left by another":      {Outcome{Left: []Left{{With: Mux, Processes: 1}}}, false},
		"left by blocked ones": {Outcome{Left: []Left{{With: Lifeline, Blocked: 1, Goroutines: fact.Seen(9)}}}, false},
	} {
		if got := row.o.Late(); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestProcessFaults(t *testing.T) {
	dir := t.TempDir()
	if err := RunProcess(t.Context(), Plain, dir, 0, strings.NewReader(""), io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without keys: %v", err)
	}
	for _, name := range []string{"user", "host.pub", "login"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("none"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RunProcess(t.Context(), "telnet", dir, 0, strings.NewReader(""), io.Discard); err == nil || err.Error() != `there is no client "telnet"` {
		t.Errorf("with another client: %v", err)
	}
	in, _ := io.Pipe()
	defer in.Close()
	if err := RunProcess(t.Context(), Plain, dir, 0, in, io.Discard); err == nil || !strings.Contains(err.Error(), "no key found") {
		t.Errorf("with a broken key: %v", err)
	}
}

// A message passes as a line of JSON.
func TestMessage(t *testing.T) {
	want := message{What: returned, Situation: Situations[2], Took: time.Second, Said: "it is over"}
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(want); err != nil {
		t.Fatal(err)
	}
	var got message
	if err := json.Unmarshal(line.Bytes(), &got); err != nil || got != want || strings.Count(line.String(), "\n") != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
