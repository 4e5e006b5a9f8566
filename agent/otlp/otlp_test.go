package otlp_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectlogs "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	collectmetrics "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/lifeline-go/lifeline/agent/export"
	"github.com/lifeline-go/lifeline/agent/otlp"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// receiver is the other end: it decodes what comes as a Collector would.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	status  int // what it answers instead of 200
	records []*logs.LogRecord
	metrics map[string]*metrics.Metric
	source  map[string]string
	asked   chan string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{metrics: make(map[string]*metrics.Metric), source: make(map[string]string), asked: make(chan string, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		defer func() { r.asked <- q.URL.Path }()
		if r.status != 0 {
			w.WriteHeader(r.status)
			return
		}
		z, err := gzip.NewReader(q.Body)
		if err != nil || q.Header.Get("Content-Type") != "application/x-protobuf" || q.Method != http.MethodPost {
			t.Errorf("%s %v: %v", q.Method, q.Header, err)
			return
		}
		text, err := io.ReadAll(z)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		switch q.URL.Path {
		case "/v1/logs":
			var m collectlogs.ExportLogsServiceRequest
			if err := proto.Unmarshal(text, &m); err != nil {
				t.Error(err)
			}
			for _, a := range m.ResourceLogs[0].Resource.Attributes {
				r.source[a.Key] = a.Value.GetStringValue()
			}
			r.records = append(r.records, m.ResourceLogs[0].ScopeLogs[0].LogRecords...)
		case "/v1/metrics":
			var m collectmetrics.ExportMetricsServiceRequest
			if err := proto.Unmarshal(text, &m); err != nil {
				t.Error(err)
			}
			for _, one := range m.ResourceMetrics[0].ScopeMetrics[0].Metrics {
				r.metrics[one.Name] = one
			}
		default:
			t.Errorf("it asks for %s", q.URL.Path)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// begin runs a Sender until the test ends.
func begin(t *testing.T, s *otlp.Sender) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

var began = time.Unix(1_700_000_000, 0)

// at is a State with a finding that is open, one that it hides, and a number.
func at(seq int) *state.State {
	s := &state.State{Host: "web-3", Run: "A", Seq: uint64(seq), Time: began.Add(time.Duration(seq) * time.Second), Agent: state.Agent{Version: "v1"}}
	s.Totals = state.Totals{Sockets: 3, Families: map[string]int{"ipv4": 3}, Looked: began}
	s.Findings = []state.Finding{
		{Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent", Why: "It is dead.", Fix: []string{"lifeline cut"},
			Subject: verdict.Values{{Key: "peer", V: "10.77.1.2"}}, Evidence: verdict.Values{{Key: "connections", V: 4224}, {Key: "netns", V: uint32(4026532593)}, {Key: "rtt_ms", V: nil}, {Key: "share", V: 0.5}}},
			ID: "one", First: began, Count: 4224, Times: 1},
		{Finding: verdict.Finding{Code: "S002", Title: "hidden"}, ID: "two", Cause: "one"},
	}
	return s
}

func TestSends(t *testing.T) {
	r := newReceiver(t)
	now := at(1)
	s := &otlp.Sender{URL: r.URL + "/", Metrics: export.Registry(func() *state.State { return now }, nil), Every: 20 * time.Millisecond}
	begin(t, s)
	s.Tell(at(1))
	s.Tell(at(2)) // the same is not told again
	over := at(3)
	over.Findings[0].Resolved = &over.Time
	s.Tell(over)
	s.Tell(over)
	wait(t, "no metrics, or not two records", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.records) >= 2 && r.metrics["lifeline_sockets"] != nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	first, last := r.records[0], r.records[1]
	if len(r.records) != 2 || first.EventName != "lifeline.finding.begins" || last.EventName != "lifeline.finding.ends" {
		t.Fatalf("records: %v", r.records)
	}
	if first.SeverityNumber != logs.SeverityNumber_SEVERITY_NUMBER_ERROR || last.SeverityNumber != logs.SeverityNumber_SEVERITY_NUMBER_INFO ||
		first.Body.GetStringValue() != "10.77.1.2 is silent" || first.TimeUnixNano != uint64(began.UnixNano()) || last.TimeUnixNano != uint64(over.Time.UnixNano()) {
		t.Errorf("%v\n%v", first, last)
	}
	said := fmt.Sprint(first.Attributes)
	for _, want := range []string{"S001", "4224", "rtt_ms", "lifeline cut", "double_value:0.5", "int_value:4026532593"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not among %s", want, said)
		}
	}
	if r.source["host.name"] != "web-3" || r.source["service.name"] != "lifeline" || r.source["service.instance.id"] != "A" {
		t.Errorf("it is about %v", r.source)
	}
	if p := r.metrics["lifeline_sockets"].GetGauge().GetDataPoints(); len(p) != 3 || p[0].TimeUnixNano == 0 {
		t.Errorf("sockets: %v", p)
	}
	if sum := r.metrics["process_cpu_seconds_total"].GetSum(); sum == nil || !sum.IsMonotonic || sum.DataPoints[0].GetAsDouble() <= 0 || sum.DataPoints[0].StartTimeUnixNano == 0 ||
		sum.DataPoints[0].StartTimeUnixNano > sum.DataPoints[0].TimeUnixNano {
		t.Errorf("a counter: %v", sum)
	}
	if r.metrics["go_gc_duration_seconds"].GetSummary() == nil {
		t.Error("no summary")
	}
}

// A receiver that cannot take it now gets it later, one that refuses does not; what
// goes wrong is said once, and that it works again.
func TestReceiverThatFails(t *testing.T) {
	r := newReceiver(t)
	r.answer(http.StatusServiceUnavailable)
	said := make(chan error, 100)
	s := &otlp.Sender{URL: strings.Replace(r.URL, "http://", "http://web-3:secret@", 1), Metrics: prometheus.NewRegistry(), Every: 10 * time.Millisecond, Said: func(err error) { said <- err }}
	begin(t, s)
	s.Tell(at(1))
	for range 3 {
		<-r.asked
	}
	if err := <-said; err == nil || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "secret") {
		t.Errorf("it says %v", err)
	}
	r.answer(0)
	if err := <-said; err != nil {
		t.Errorf("it says %v", err)
	}
	if len(said) > 0 || s.Dropped() > 0 || len(r.records) != 1 {
		t.Errorf("%d more said, %d dropped, %d came", len(said), s.Dropped(), len(r.records))
	}
	r.answer(http.StatusUnauthorized)
	other := at(2)
	other.Findings[0].ID = "three"
	s.Tell(other)
	wait(t, "what is refused is not counted", func() bool { return s.Dropped() == 1 })
	if err := <-said; err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "secret") {
		t.Errorf("it says %v", err)
	}
}

// A receiver that is dead or hangs holds nobody up, and what waits for it has a bound.
func TestReceiverThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := make(chan error, 100)
	s := &otlp.Sender{URL: "http://" + l.Addr().String(), Metrics: prometheus.NewRegistry(), Every: 10 * time.Millisecond, Timeout: 50 * time.Millisecond,
		Said: func(err error) { said <- err }}
	begin(t, s)
	for i := range 3000 {
		st := at(i)
		st.Findings[0].ID = fmt.Sprint(i)
		s.Tell(st)
	}
	if n := s.Dropped(); n != 2000 {
		t.Errorf("%d of 3000 dropped, want all but 1000", n)
	}
	if err := <-said; err == nil {
		t.Error("it says that all is well")
	}
}

func TestCheckURL(t *testing.T) {
	for text, good := range map[string]bool{
		"http://127.0.0.1:4318": true, "https://collector.example/otlp": true, "127.0.0.1:4318": false, "grpc://a": false, "http://a/v1/metrics": false, "http://": false, "http://a?b": false,
	} {
		if err := otlp.CheckURL(text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}
