// Package otlp tells a receiver of the OpenTelemetry protocol, such as a Collector,
// what the agent knows: its metrics again and again, and each finding that begins
// or ends as a log record. It speaks OTLP over HTTP with protobuf.
//
// The messages are those that OpenTelemetry publishes; its SDK is left out, which
// would bring gRPC and six megabytes for two POST requests.
package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectlogs "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	collectmetrics "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	defaultEvery   = 30 * time.Second
	defaultTimeout = 10 * time.Second
	mostAnswer     = 64 << 10
	mostPending    = 1000 // records that wait: when there are more the oldest go
	mostBatch      = 200  // records in a request
)

// Sender tells one receiver. Nothing that the receiver does holds the agent up:
// [Sender.Tell] never waits, what waits to be sent is bounded, and what was not sent
// is counted. [Sender.Run] sends. The fields must not change once it is used.
type Sender struct {
	URL     string              // without a path of OTLP: http://127.0.0.1:4318
	Metrics prometheus.Gatherer // what is sent again and again
	Header  http.Header         // sent with each request, see [Headers]; nil = none
	TLS     *tls.Config         // whom to trust, and as whom to come, where the URL is https; nil = as the system does, as nobody
	Every   time.Duration       // how often; 0 = 30 s
	Timeout time.Duration       // of one request; 0 = 10 s

	// Said is called with what goes wrong, and with nil when it works again; only
	// when that changes. It may be nil.
	Said func(error)

	mu      sync.Mutex
	source  *resource.Resource
	open    map[string]*state.Finding
	pending []*logs.LogRecord
	dropped int
	wake    chan struct{}

	said string // last, of Run alone
}

// CheckURL says what is wrong with the URL of a receiver.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is no URL of an OTLP receiver: take one such as http://127.0.0.1:4318", text)
	}
	for _, path := range []string{"/v1/metrics", "/v1/logs"} {
		if strings.HasSuffix(strings.TrimRight(u.Path, "/"), path) {
			return fmt.Errorf("%q: leave out %s, it is added", text, path)
		}
	}
	return nil
}

// Dropped is how many records were not sent: the receiver refused them, or took
// nothing for so long that there were too many.
func (s *Sender) Dropped() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped
}

// Tell takes a State and returns at once: findings that are new or over are sent by
// Run. States must come in their order.
func (s *Sender) Tell(st *state.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source == nil {
		s.source = resourceOf(st)
	}
	open := make(map[string]*state.Finding, len(s.open))
	for i := range st.Findings {
		f := &st.Findings[i]
		_, was := s.open[f.ID]
		switch {
		case f.Resolved == nil && (was || f.Cause == ""):
			if open[f.ID] = f; !was {
				s.put(record(f, st.Time))
			}
		case f.Resolved != nil && was:
			s.put(record(f, st.Time))
		}
	}
	s.open = open
	select {
	case s.waker() <- struct{}{}:
	default: // it is about to look
	}
}

func (s *Sender) waker() chan struct{} {
	if s.wake == nil {
		s.wake = make(chan struct{}, 1)
	}
	return s.wake
}

// put has a record sent. Who calls it holds mu.
func (s *Sender) put(r *logs.LogRecord) {
	if len(s.pending) == mostPending {
		s.pending = s.pending[1:]
		s.dropped++
	}
	s.pending = append(s.pending, r)
}

// Run sends until ctx ends, and returns nil then.
func (s *Sender) Run(ctx context.Context) error {
	every, timeout := s.Every, s.Timeout
	if every == 0 {
		every = defaultEvery
	}
	if timeout == 0 {
		timeout = defaultTimeout
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.TLS, TLSHandshakeTimeout: timeout, MaxConnsPerHost: 1, IdleConnTimeout: time.Minute}, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	s.mu.Lock()
	wake := s.waker()
	s.mu.Unlock()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for failed := false; ; {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			due = true
		case <-wake:
			if failed { // what failed has time until the next tick
				continue
			}
		}
		err := s.sendRecords(ctx, client)
		if due {
			err = errors.Join(err, s.sendMetrics(ctx, client))
		}
		if ctx.Err() != nil {
			return nil
		}
		failed = err != nil
		s.tell(err)
	}
}

// tell says what goes wrong when that changes.
func (s *Sender) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if s.Said != nil && text != s.said {
		s.Said(err)
	}
	s.said = text
}

// sendRecords sends what waits. What the receiver cannot take now stays, what it
// refuses goes.
func (s *Sender) sendRecords(ctx context.Context, client *http.Client) error {
	for {
		s.mu.Lock()
		batch := s.pending[:min(len(s.pending), mostBatch)]
		source, last := s.source, s.dropped
		s.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		request := &collectlogs.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{Resource: source, ScopeLogs: []*logs.ScopeLogs{{Scope: scope, LogRecords: batch}}}}}
		var answer collectlogs.ExportLogsServiceResponse
		err := s.post(ctx, client, "/v1/logs", request, &answer)
		if errors.Is(err, errLater) {
			return err
		}
		s.mu.Lock()
		s.pending = s.pending[max(0, len(batch)-(s.dropped-last)):] // some of them may have been dropped meanwhile
		refused := int(answer.GetPartialSuccess().GetRejectedLogRecords())
		if err != nil {
			refused = len(batch)
		}
		s.dropped += refused
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if refused > 0 {
			return fmt.Errorf("%d records refused: %s", refused, answer.GetPartialSuccess().GetErrorMessage())
		}
	}
}

// sendMetrics sends all metrics as they are now. What fails is not sent again: the
// next come soon.
func (s *Sender) sendMetrics(ctx context.Context, client *http.Client) error {
	families, err := s.Metrics.Gather()
	if len(families) == 0 {
		return err
	}
	s.mu.Lock()
	source := s.source
	s.mu.Unlock()
	request := &collectmetrics.ExportMetricsServiceRequest{ResourceMetrics: []*metrics.ResourceMetrics{{Resource: source,
		ScopeMetrics: []*metrics.ScopeMetrics{{Scope: scope, Metrics: metricsOf(families, time.Now())}}}}}
	var answer collectmetrics.ExportMetricsServiceResponse
	if err := s.post(ctx, client, "/v1/metrics", request, &answer); err != nil {
		return err
	}
	if n := answer.GetPartialSuccess().GetRejectedDataPoints(); n > 0 {
		return fmt.Errorf("%d data points refused: %s", n, answer.GetPartialSuccess().GetErrorMessage())
	}
	return nil
}

// errLater is why what was not sent may be sent again.
var errLater = errors.New("not taken so far")

// post sends one message. The error is errLater where the protocol has it sent
// again: the receiver cannot be reached, or answers 429, 502, 503 or 504.
func (s *Sender) post(ctx context.Context, client *http.Client, path string, message, answer proto.Message) error {
	text, err := proto.Marshal(message)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	_, _ = z.Write(text) // into memory
	_ = z.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(s.URL, "/")+path, &body)
	if err != nil {
		return err
	}
	address := r.URL.Redacted() // a password in it is for nobody's log
	for name, values := range s.Header {
		r.Header[name] = values
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Content-Encoding", "gzip")
	r.Header.Set("User-Agent", "lifeline-agent")
	w, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", errLater, err)
	}
	defer w.Body.Close()
	said, err := io.ReadAll(io.LimitReader(w.Body, mostAnswer))
	switch w.StatusCode {
	case http.StatusOK:
		if err == nil && strings.HasPrefix(w.Header.Get("Content-Type"), "application/x-protobuf") {
			err = proto.Unmarshal(said, answer)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
		return nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("%w: %s answers %s", errLater, address, w.Status)
	}
	return fmt.Errorf("%s answers %s", address, w.Status)
}
