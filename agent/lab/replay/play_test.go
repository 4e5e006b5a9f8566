//go:build linux

package replay

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab/websocket"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

// The whole of a replay is tested where the command is, which it takes; here is
// what it makes of what processes say.

func TestMain(m *testing.M) { leakcheck.Main(m) }

// died returns a play of which the node has just died, and what it tells.
func died() (p *play, told *[]string) {
	told = new([]string)
	p = &play{Silence: &Silence{Event: func(e Event) { *told = append(*told, e.Text) }}, death: websocket.Now()}
	p.outcome.Server.Count = 2
	return p, told
}

func ended(t *testing.T, c *child, at time.Duration, why string) message {
	t.Helper()
	line, err := json.Marshal(websocket.Event{What: websocket.Ended, At: at, Error: why})
	if err != nil {
		t.Fatal(err)
	}
	return message{from: c, line: string(line)}
}

func TestEndsLearn(t *testing.T) {
	p, told := died()
	server := &child{name: "server", end: &p.outcome.Server}
	for _, m := range []message{
		ended(t, server, p.death+3*time.Second, "end of file"), // told later than the next one
		ended(t, server, p.death+2*time.Second, "connection timed out"),
		{from: server, gone: true},
	} {
		if err := p.take(m); err != nil {
			t.Fatal(err)
		}
	}
	s := p.outcome.Server
	if !p.allLearned() || s.Learned != 2 || s.First != 2*time.Second || s.Last != 3*time.Second || len(s.Errors) != 2 {
		t.Errorf("the server's end: %+v", s)
	}
	if want := "the first read returns at the server: end of file, all 2 reads have returned at the server"; strings.Join(*told, ", ") != want {
		t.Errorf("told %q, want %q", *told, want)
	}
}

// A connection that ends while the node lives was cut by mistake.
func TestFalseVerdict(t *testing.T) {
	p, _ := died()
	p.death = 0
	err := p.take(ended(t, &child{name: "server", end: &p.outcome.Server}, time.Second, "software caused connection abort"))
	if err == nil || err.Error() != "a connection of the server ended before the node died: software caused connection abort" {
		t.Errorf("got %v", err)
	}
}

func TestGuardsSpeak(t *testing.T) {
	p, told := died()
	guard := &child{name: "guard", guards: &p.outcome.Server}
	at := p.death + time.Second
	for _, m := range []message{
		{from: guard, at: p.death, line: "10:13:03 vm: watching", stderr: true},
		{from: guard, at: p.death, line: "10:13:03 cut 256", stderr: true},
		{from: guard, at: at, line: "10:13:03.250  10.77.2.1 is silent"},
		{from: guard, at: at + time.Second, line: "Cut 2 connections"},
	} {
		if err := p.take(m); err != nil {
			t.Fatal(err)
		}
	}
	if verdict, ok := p.outcome.Server.Verdict.Get(); !guard.ready || !ok || verdict != time.Second {
		t.Errorf("ready %v, verdict after %v, want true and 1s", guard.ready, p.outcome.Server.Verdict)
	}
	if want := "guard: 10.77.2.1 is silent, guard: Cut 2 connections"; strings.Join(*told, ", ") != want {
		t.Errorf("told %q, want %q", *told, want)
	}
}

// A process that should run ends the replay when it does not, with what it said
// last; an evac is done when it is done.
func TestProcessesEnd(t *testing.T) {
	p, told := died()
	broken := errors.New("exit status 3")
	for want, m := range map[string]message{
		"server ended (exit status 3): address in use": {from: &child{name: "server", end: &p.outcome.Server, last: "address in use"}, gone: true, err: broken},
		"guard ended (too early): bye":                 {from: &child{name: "guard", guards: &p.outcome.Server, last: "bye"}, gone: true},
		"":                                             {from: &child{name: "evac"}, gone: true},
	} {
		if err := p.take(m); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := p.take(message{from: &child{name: "evac", last: "2 unanswered"}, gone: true, err: broken}); err != nil {
		t.Error(err)
	}
	evac := &child{name: "evac"}
	for _, m := range []message{{from: evac, line: "COUNT  SERVER"}, {from: evac, line: "4,224 of 4,224 reset"}, {from: evac, gone: true}} {
		if err := p.take(m); err != nil {
			t.Error(err)
		}
	}
	if want := "evac ended (exit status 3): 2 unanswered, evac: 4,224 of 4,224 reset"; strings.Join(*told, ", ") != want {
		t.Errorf("told %q, want %q", *told, want)
	}
}
