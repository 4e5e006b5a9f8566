package export

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// finding is an open one.
func finding(id, code string, promise verdict.Promise, severity verdict.Severity, count int) state.Finding {
	return state.Finding{
		Finding: verdict.Finding{Code: code, Promise: promise, Severity: severity, Title: id + " is silent", Why: "Because.", Fix: []string{"do", "this"}},
		ID:      id, First: noon.Add(-time.Minute), Last: noon, Times: 1, Count: count,
	}
}

// full is a State in which everything was seen.
func full() *state.State {
	hidden := finding("S002 b", "S002", verdict.Silence, verdict.Warn, 7)
	hidden.Cause = "S001 a"
	over := finding("S001 c", "S001", verdict.Silence, verdict.Fail, 9)
	over.Resolved = ptr(noon)
	back := finding("L001 d", "L001", verdict.Leaks, verdict.Warn, 0)
	back.Flapping = true
	s := &state.State{
		Host: "node-7", Time: noon, Agent: state.Agent{
			History: "/var/lib/lifeline/history.db",
			Version: "v1.2.3", Started: noon.Add(-time.Hour),
			Policy: state.Policy{Path: "/etc/lifeline/policy.yaml", Loaded: noon.Add(-time.Hour), Acts: []string{"cut on S001"}, Error: "line 1: no"},
		},
		Tally:    []state.Tally{{Act: "cut", Outcome: state.Whole, Count: 2, Connections: 4225}, {Act: "cut", Outcome: state.Failed, Count: 1}, {Act: "knit", Outcome: "woolly", Count: 7, Connections: 7}},
		Findings: []state.Finding{finding("S001 a", "S001", verdict.Silence, verdict.Fail, 4224), back, hidden, over, finding("X9", "X999", verdict.Calls, verdict.Info, 1), finding("L004 e", "L004", verdict.Leaks, verdict.Fail, 40)},
		Totals: state.Totals{
			Sockets: 20, Families: map[string]int{"ipv4": 11, "unix": 8, "ax25": 1}, TCP: map[string]int{"ESTABLISHED": 9, "close-wait": 2, "NEW": 1},
			Processes: 5, Namespaces: 2, Peers: 3, Links: 4, Sites: 6, Opened: ptr(1.5), Resets: ptr(0.5), Resent: ptr(2.0), Conntrack: ptr(0.25), Files: ptr(0.75),
			Looked: noon, Took: 0.125,
		},
		Peers:   []state.Peer{{Peer: "10.0.0.7", Count: 4224, Verdict: "silent"}, {Peer: "10.0.0.8", Count: 1, Verdict: "alive"}},
		Leaks:   []state.Site{{Verdict: "leak", Open: 40}, {Verdict: "healthy", Open: 2}},
		Calls:   []state.Waiting{{Count: 3, Since: 90}, {Count: 1, Since: 5}},
		Names:   &state.Names{Servers: []state.Nameserver{{OK: ptr(false)}, {OK: ptr(true)}, {}}, Names: []state.Name{{Ways: []state.Way{{OK: true}, {}}}}},
		Sources: []state.Source{{Name: "census", Last: ptr(noon), Took: ptr(0.125)}, {Name: "names", Last: ptr(noon), Late: true}, {Name: "leaks", Off: "policy"}},
		Blind:   []state.Blind{{Source: "owners"}, {Source: "owners"}},
	}
	for p := verdict.Names; p <= verdict.Leaks; p++ {
		s.Promises = append(s.Promises, state.Promise{Promise: p, Status: state.Kept, Looked: ptr(noon)})
	}
	s.Promises[verdict.Silence].Status = state.Broken
	return s
}

func fixed(s *state.State) func() *state.State { return func() *state.State { return s } }

func TestEveryMetricHasASampleAndAGoodName(t *testing.T) {
	r := Registry(fixed(full()), &Webhook{})
	for _, m := range Metrics() {
		n, err := testutil.GatherAndCount(r, m.Name)
		if err != nil || n == 0 {
			t.Errorf("%s: %d samples, %v", m.Name, n, err)
		}
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "lifeline_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestLabelsAreOfAFewWords holds to the promise that no peer, process or name is
// a label.
func TestLabelsAreOfAFewWords(t *testing.T) {
	allowed := []string{"version", "promise", "status", "code", "severity", "family", "state", "source", "act", "outcome"}
	for _, m := range Metrics() {
		for _, l := range m.Labels {
			if !slices.Contains(allowed, l) {
				t.Errorf("%s has the label %s", m.Name, l)
			}
		}
	}
}

func TestSamples(t *testing.T) {
	text := scrape(t, full())
	for _, want := range []string{
		`lifeline_findings{code="S001",promise="silence",severity="fail"} 1`,
		`lifeline_findings{code="S001",promise="silence",severity="warn"} 0`,
		`lifeline_findings{code="S002",promise="silence",severity="warn"} 0`,
		`lifeline_findings{code="other",promise="calls",severity="info"} 1`,
		`lifeline_findings{code="L004",promise="leaks",severity="fail"} 1`,
		`lifeline_finding_connections{code="S001",promise="silence"} 4224`,
		`lifeline_findings_hidden{promise="silence"} 1`,
		`lifeline_findings_flapping{promise="leaks"} 1`,
		`lifeline_promise_status{promise="silence",status="broken"} 1`,
		`lifeline_promise_status{promise="silence",status="kept"} 0`,
		`lifeline_sockets{family="ipv6"} 0`, `lifeline_sockets{family="unix"} 8`, `lifeline_sockets{family="other"} 1`,
		`lifeline_tcp_sockets{state="established"} 9`, `lifeline_tcp_sockets{state="close_wait"} 2`, `lifeline_tcp_sockets{state="other"} 1`,
		`lifeline_silent_peers 1`, `lifeline_silent_connections 4224`, `lifeline_leaked_sockets 40`,
		`lifeline_acts_total{act="cut",outcome="done"} 2`, `lifeline_acts_total{act="cut",outcome="failed"} 1`, `lifeline_acts_total{act="evac",outcome="left_alone"} 0`,
		`lifeline_acts_total{act="other",outcome="other"} 7`, `lifeline_act_connections_total{act="cut"} 4225`, `lifeline_act_connections_total{act="tune"} 0`,
		`lifeline_unanswered_requests 4`, `lifeline_unanswered_oldest_seconds 90`,
		`lifeline_nameservers 3`, `lifeline_nameservers_silent 1`, `lifeline_names_failing 1`,
		`lifeline_source_up{source="census"} 1`, `lifeline_source_up{source="names"} 0`, `lifeline_blind_spots{source="owners"} 2`,
		`lifeline_policy_valid 0`, `lifeline_history_written 1`, `lifeline_acts_allowed 1`,
		`lifeline_start_time_seconds 1.79`, `lifeline_state_timestamp_seconds 1.79`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, `source="leaks"`) {
		t.Error("a source that is off has samples")
	}
}

// TestUnknownIsNotZero: what nobody saw has no sample.
func TestUnknownIsNotZero(t *testing.T) {
	s := &state.State{Time: noon, Promises: []state.Promise{{Promise: verdict.Names, Status: state.Unknown}}, Sources: []state.Source{{Name: "census"}}}
	text := scrape(t, s)
	for _, m := range Metrics() {
		switch m.Name {
		case "lifeline_build_info", "lifeline_state_timestamp_seconds", "lifeline_acts_allowed", "lifeline_acts_total", "lifeline_act_connections_total", "lifeline_policy_valid", "lifeline_promise_status":
			continue
		}
		if strings.Contains(text, "\n"+m.Name) {
			t.Errorf("%s has a sample", m.Name)
		}
	}
	if text := scrape(t, nil); strings.Contains(text, "lifeline_") || !strings.Contains(text, "go_goroutines") {
		t.Errorf("before the first State:\n%.300s", text)
	}
}

func scrape(t *testing.T, s *state.State) string {
	t.Helper()
	server := httptest.NewServer(Handler(fixed(s), nil))
	defer server.Close()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, text)
	}
	return string(text)
}

// TestSeriesAreBounded: 20,000 sockets, peers and findings, names and sources
// that anybody made up, make a bounded number of series: not many more than one of
// each; and a scrape works with bytes that are no text, and with doubles.
func TestSeriesAreBounded(t *testing.T) {
	s := full()
	s.Totals.Families, s.Totals.TCP = map[string]int{}, map[string]int{}
	for i := range 20_000 {
		at := fmt.Sprintf("10.%d.%d.1", i/256, i%256)
		f := finding(at, fmt.Sprintf("Z%05d", i), verdict.Promise(i%4), verdict.Severity(i%3), 1)
		s.Findings = append(s.Findings, f)
		s.Peers = append(s.Peers, state.Peer{Peer: at, Count: 1, Verdict: "silent"})
		s.Links = append(s.Links, state.Link{From: state.End{Name: at}, Count: 1})
		s.Leaks = append(s.Leaks, state.Site{ID: at, Process: at, Verdict: "leak", Open: 1})
		s.Calls = append(s.Calls, state.Waiting{Peer: at, Count: 1})
		s.Sources = append(s.Sources, state.Source{Name: at + "\xff", Last: ptr(noon)}, state.Source{Name: "census"})
		s.Blind = append(s.Blind, state.Blind{Source: at + "\xff"})
		s.Tally = append(s.Tally, state.Tally{Act: at + "\xff", Outcome: state.Outcome(at), Count: 1})
		s.Totals.Families[at]++
		s.Totals.TCP[at+"\xff"]++
	}
	s.Promises = append(s.Promises, s.Promises...)
	families, err := Registry(fixed(s), &Webhook{}).Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "lifeline_") {
			series += len(f.GetMetric())
		}
	}
	t.Logf("%d series", series)
	if series > 350 {
		t.Errorf("%d series", series)
	}
}

// TestDocs: each metric is told of, and none that is not there.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range Metrics() {
		labels := ""
		if len(m.Labels) > 0 {
			labels = " by " + strings.Join(m.Labels, ", ")
		}
		if line := fmt.Sprintf("| `%s`%s | %s |", m.Name, labels, m.Help); !strings.Contains(string(text), line) {
			t.Errorf("docs/metrics.md lacks the line\n%s", line)
		}
	}
	if rows := strings.Count(string(text), "\n| `lifeline_"); rows != len(Metrics()) {
		t.Errorf("docs/metrics.md has %d metrics, there are %d", rows, len(Metrics()))
	}
}
