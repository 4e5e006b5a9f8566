package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// past is a history of 20 minutes in which the 4,224 vanish after ten.
func past(t *testing.T) *history.Store {
	t.Helper()
	s, err := history.Open(filepath.Join(t.TempDir(), "history.db"), history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for i := range 120 {
		at, rate := noon.Add(time.Duration(i)*10*time.Second), 2.5
		r := history.Record{Time: at, Totals: state.Totals{Sockets: 5000 + i, TCP: map[string]int{"ESTABLISHED": 4227}, Looked: at}}
		r.Groups = []state.Group{{Series: state.Series{Program: "agent", Peer: "10.77.2.9", Port: ">443"}, Count: 3}}
		if i < 60 {
			r.Totals.Opened = &rate
			r.Groups = append(r.Groups, state.Group{Series: state.Series{Program: "ws-server", Peer: "10.77.1.2", Port: ":8080"}, Count: 4224})
		} else {
			r.Groups = append(r.Groups, state.Group{Series: state.Series{Program: "ws-server", Peer: "10.77.1.3", Port: ":8080"}, Count: i})
			r.Findings = []state.Finding{{ID: "S001 10.77.1.2", First: noon.Add(10 * time.Minute), Last: at, Count: 4224,
				Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent"}}}
		}
		if err := s.Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// remembering serves it.
func remembering(t *testing.T) (address string, asked *error) {
	t.Helper()
	s := past(t)
	asked = new(error)
	return serving(t, newServer(Options{Agent: newAgent(), History: func() (History, error) { return s, *asked }})), asked
}

func TestHistory(t *testing.T) {
	at, no := remembering(t)
	early, late := "from=2026-11-20T12:05:00Z", "&to=2026-11-20T12:15:00Z"
	for _, c := range []struct {
		path   string
		status int
		holds  string
	}{
		{"span", 200, `{"schema":"lifeline/v1","first":"2026-11-20T`},
		{"span", 200, `"records":120,"bytes":`},
		{"span?from=2026-11-20T12:05:00Z", 400, "unknown key"},
		{"range?" + early + late + "&step=300&peer=10.77.1.2", 200, `"count":4224,"least":4224,"most":4224},{`},
		{"range?" + early + late + "&step=300&peer=10.77.1.2", 200, `"step_seconds":300,"points":[`},
		{"range?" + early + late + "&step=300&peer=10.77.1.2", 200, `"count":0,"least":0,"most":0}]}`},
		{"range?" + early + late + "&step=300&peer=10.77.1.0/24", 200, `"count":89,"least":60,"most":89}]}`},
		{"range?" + early + late + "&step=300&process=agent", 200, `"count":3,"least":3,"most":3}]}`},
		{"range?" + early + late + "&step=300&state=established", 200, `"count":4227,`},
		{"range?" + early + late + "&step=300&total=opened_per_second", 200, `"count":2.5,"least":2.5,"most":2.5},{`},
		{"range?" + early + late + "&step=300&total=opened_per_second", 200, `"count":null,"least":null,"most":null}]}`},
		{"range?from=2026-11-20T11:00:00Z" + late + "&step=3000", 200, `"count":null`},
		{"range?" + early + late + "&step=300&peer=999.1.1.1", 400, "no address and no network"},
		{"range?" + early + late + "&step=0", 400, "no number from 1"},
		{"range?" + early + late + "&step=1h", 400, "no number from 1"},
		{"range?" + early + late + "&state=ASLEEP", 400, "is no total: take one of sockets, "},
		{"range?" + early + late + "&total=looked", 400, "is no total"},
		{"range?" + early + late + "&total=sockets&state=CLOSE", 400, "take one"},
		{"range?" + early + late + "&total=sockets&peer=10.77.1.2", 400, "leave peer and process out"},
		{"range", 400, "from is missing: take a time such as from=20"},
		{"range?from=noon", 400, "is no time: take RFC 3339"},
		{"range?from=2026-11-20T12:15:00Z&to=2026-11-20T12:05:00Z", 400, "take the earlier time first"},
		{"range?from=2999-01-01T00:00:00Z", 400, "take the earlier time first"},
		{"diff?" + early + late, 200, `"came":[{"peer":"10.77.1.3","from":0,"to":90,"programs":["ws-server"]}],"went":[{"peer":"10.77.1.2","from":4224,"to":0,`},
		{"diff?" + early + late, 200, `"left_out":0,"findings":[{"id":"S001 10.77.1.2","code":"S001","severity":"fail",`},
		{"diff?" + early, 200, `"to":119,"programs"`},
		{"diff?" + late[1:], 400, "from is missing"},
		{"diff?from=2026-11-20T11:00:00Z", 200, `"from":{"asked":"2026-11-20T11:00:00Z","time":"2026-11-20T`},
		{"diff?from=2026-11-20T11:00:00Z&to=2026-11-20T11:30:00Z", 400, "no history before 2026-11-20"},
		{"diff?" + early + "&most=0", 400, "no number from 1 to 20000"},
		{"story?" + early + late + "&most=1", 200, `"count_before":4227,"count_after":93,"events":[{"begin":"2026-11-20T`},
		{"story?" + early + late + "&most=1&peer=10.77.1.0/24", 200, `"shifts":[{"peer":"10.77.1.2","from":4224,"to":0,"programs":["ws-server"],"begin":"2026-11-20T`},
		{"story?" + early + late + "&most=1&process=agent", 200, `"events":[],"findings":[]}`},
		{"story?from=2026-11-20T11:00:00Z", 200, `"code":"S001"`},
		{"story?" + early + "&most=1001", 400, "no number from 1 to 1000"},
		{"story?" + early + "&state=CLOSE", 400, "unknown key"},
		{"findings?" + early + late, 200, `{"schema":"lifeline/v1","findings":[{"id":"S001 10.77.1.2"`},
		{"findings?" + early + "&to=2026-11-20T12:09:00Z", 200, `{"schema":"lifeline/v1","findings":[]}`},
		{"findings?to=2026-11-20T12:09:00Z", 400, "from is missing"},
		{"at?time=2026-11-20T12:05:00Z", 200, `"gap":false,"note":"","count":4227,"groups_total":2,"groups":[{"program":"ws-server","unit":"","peer":"10.77.1.2","port":":8080","count":4224},{`},
		{"at?most=1&time=" + url.QueryEscape("2026-11-20T13:05:00+01:00"), 200, `"port":":8080","count":4224}],"totals":{"sockets":5030,`},
		{"at?time=2026-11-20T13:05:00+01:00", 400, "a + is written %2B"},
		{"at?time=2026-11-20T19:05:00Z", 200, `"next":null,"gap":true,`},
		{"at", 400, "time is missing"},
		{"at?time=2026-11-20T11:59:00Z", 400, "no history before 2026-11-20"},
		{"at/", 404, "nothing here"},
	} {
		status, _, body := get(t, at, "/api/v1/history/"+c.path)
		if status != c.status || !strings.Contains(body, c.holds) || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d %.600s", c.path, status, body)
		}
	}
	*no = errors.New("the disk is full")
	if status, _, body := get(t, at, "/api/v1/history/span"); status != 404 || body != `{"error":"no history is kept: the disk is full"}`+"\n" {
		t.Errorf("without a history: %d %s", status, body)
	}
}

func TestHistoryNotKept(t *testing.T) {
	at := serving(t, newServer(Options{Agent: newAgent()}))
	for _, path := range []string{"span", "range?from=2026-11-20T12:05:00Z", "diff?from=2026-11-20T12:05:00Z", "findings?from=2026-11-20T12:05:00Z", "at?time=2026-11-20T12:05:00Z"} {
		if status, _, body := get(t, at, "/api/v1/history/"+path); status != 404 || !strings.HasPrefix(body, `{"error":"no history is kept: `) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// However much the history has, an answer is bounded, and says how much it leaves out.
func TestHistoryBounded(t *testing.T) {
	s, err := history.Open(filepath.Join(t.TempDir(), "history.db"), history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // what it wrote is looked at before
	var groups []state.Group
	for i := range usualPast + 500 {
		groups = append(groups, state.Group{Series: state.Series{Program: "app", Peer: fmt.Sprint("peer", i)}, Count: 1})
	}
	for i, groups := range [][]state.Group{nil, groups} {
		if err := s.Add(t.Context(), history.Record{Time: noon.Add(time.Duration(i) * 10 * time.Second), Groups: groups}); err != nil {
			t.Fatal(err)
		}
	}
	at := serving(t, newServer(Options{Agent: newAgent(), History: func() (History, error) { return s, nil }}))
	var past state.Past
	var diff state.Difference
	var line state.TimeLine
	for path, into := range map[string]any{"at?time=2026-11-20T12:01:00Z": &past, "diff?from=2026-11-20T12:00:00Z": &diff, "range?from=2020-11-20T12:00:00Z&step=1": &line} {
		status, _, body := get(t, at, "/api/v1/history/"+path)
		if err := json.Unmarshal([]byte(body), into); err != nil || status != 200 {
			t.Fatalf("%s: %d %.200s", path, status, body)
		}
	}
	if len(past.Groups) != usualPast || past.All != usualPast+500 || past.Count != usualPast+500 {
		t.Errorf("%d groups of %d with %d", len(past.Groups), past.All, past.Count)
	}
	if len(diff.Came) != usualPast || diff.Left != 500 || diff.After != usualPast+500 {
		t.Errorf("%d came, %d left out, %d after", len(diff.Came), diff.Left, diff.After)
	}
	if len(line.Points) > history.MostPoints {
		t.Errorf("six years in steps of a second are %d points", len(line.Points))
	}
}

// slow is a history that does not answer.
type slow struct{ History }

func (slow) Span(ctx context.Context) (state.Span, error) {
	<-ctx.Done()
	return state.Span{}, fmt.Errorf("history /x: %w", ctx.Err())
}

// A history that does not answer, or cannot be read, has another status than a
// question that makes no sense.
func TestHistoryThatFails(t *testing.T) {
	s, err := history.Open(filepath.Join(t.TempDir(), "history.db"), history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var h History = slow{}
	server := newServer(Options{Agent: newAgent(), History: func() (History, error) { return h, nil }})
	server.patient = 100 * time.Millisecond
	at := serving(t, server)
	if status, _, body := get(t, at, "/api/v1/history/span"); status != 503 || !strings.Contains(body, "ask for less") {
		t.Errorf("one that does not answer: %d %s", status, body)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h = s
	if status, _, body := get(t, at, "/api/v1/history/span"); status != 503 || !strings.Contains(body, "closed") {
		t.Errorf("one that is closed: %d %s", status, body)
	}
}
