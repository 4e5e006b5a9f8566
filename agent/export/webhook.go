package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/agent/state"
)

// Webhook tells an Alertmanager, or whatever takes its alerts, of findings.
// Nothing that the receiver does holds up the agent: [Webhook.Tell] never
// waits, what waits to be sent is bounded, and what is dropped is counted.
// [Webhook.Run] sends. The fields must not change once it is used.
type Webhook struct {
	URL  string // of the API: http://127.0.0.1:9093/api/v2/alerts
	Page string // address of the agent's page, to which alerts lead; "" = none

	Timeout time.Duration // of one request; 0 = 10 s
	Resend  time.Duration // how often open findings are told again; 0 = 1 minute
	Backoff lifeline.Backoff

	mu      sync.Mutex
	told    map[string]alert // open alerts as last told, by identity
	pending map[string]alert // wait to be sent: of each identity the latest
	order   []string         // of pending, oldest first
	left    int              // findings beyond mostAlerts in the last State
	resent  time.Time
	stats   Stats
	wake    chan struct{}
}

// Bounds of a Webhook.
const (
	mostAlerts  = 1000 // open at once, the worst findings
	mostPending = 2 * mostAlerts
	mostBatch   = 64 // alerts in a request
	mostTries   = 10 // of one batch, before it is dropped
	mostAnswer  = 4 << 10

	defaultTimeout = 10 * time.Second
	defaultResend  = time.Minute
	// staleAfter is after how many resends without a word an alert ends by itself:
	// when the agent is gone.
	staleAfter = 4
)

// Stats are what a Webhook has done.
type Stats struct {
	Sent    uint64 // alerts that were taken
	Dropped uint64 // alerts that were not: too many, refused, or tried too often
	Failed  uint64 // requests
	Pending int    // alerts that wait
	Error   string // of the last request; "" when it worked
}

// Stats returns what it has done so far.
func (w *Webhook) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	stats := w.stats
	stats.Pending = len(w.pending)
	return stats
}

// Tell takes a State and returns at once: findings that are new, changed, over
// or due to be told again are sent by Run. States must come in their order.
func (w *Webhook) Tell(s *state.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told == nil {
		w.told = make(map[string]alert)
	}
	end := s.Time.Add(staleAfter * w.resend())
	open, left := alertsOf(s, w.Page, end)
	again := s.Time.Sub(w.resent) >= w.resend() || s.Time.Before(w.resent) // the clock was set back
	for id, a := range open {
		if old, ok := w.told[id]; !ok || again || !old.same(a) {
			w.put(id, a)
		}
	}
	for id, a := range w.told {
		if _, ok := open[id]; !ok {
			a.EndsAt = s.Time
			if a.EndsAt.Before(a.StartsAt) {
				a.EndsAt = a.StartsAt
			}
			w.put(id, a)
		}
	}
	w.stats.Dropped += uint64(max(0, left-w.left))
	w.told, w.left = open, left
	if again {
		w.resent = s.Time
	}
	select {
	case w.waker() <- struct{}{}:
	default:
	}
}

// put has an alert sent. When too many wait, the oldest goes: its receiver has
// taken nothing for long, and what is still open is told again.
func (w *Webhook) put(id string, a alert) {
	if w.pending == nil {
		w.pending = make(map[string]alert)
	}
	if _, ok := w.pending[id]; !ok {
		if len(w.order) == mostPending {
			delete(w.pending, w.order[0])
			w.order = w.order[1:]
			w.stats.Dropped++
		}
		w.order = append(w.order, id)
	}
	w.pending[id] = a
}

// waker is called with mu held.
func (w *Webhook) waker() chan struct{} {
	if w.wake == nil {
		w.wake = make(chan struct{}, 1)
	}
	return w.wake
}

func (w *Webhook) resend() time.Duration {
	if w.Resend > 0 {
		return w.Resend
	}
	return defaultResend
}

// Run sends until the context ends, and returns its cause. It is for one
// goroutine.
func (w *Webhook) Run(ctx context.Context) error {
	transport := &http.Transport{MaxConnsPerHost: 1, IdleConnTimeout: defaultResend, DialContext: new(lifeline.Dialer).DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // an alert goes where it was told to
	}
	w.mu.Lock()
	wake := w.waker()
	w.mu.Unlock()
	backoff, tries := w.Backoff, 0
	for {
		ids, batch := w.batch()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-wake:
				continue
			}
		}
		err := w.post(ctx, client, batch)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		tries++
		var refused *refusal
		final := err == nil || errors.As(err, &refused) && refused.forGood() || tries == mostTries
		w.done(ids, batch, err, final)
		if final {
			tries = 0
		}
		if err == nil {
			backoff.Reset()
		} else if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
}

// batch returns the alerts that have waited longest.
func (w *Webhook) batch() (ids []string, batch []alert) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids = slices.Clone(w.order[:min(len(w.order), mostBatch)])
	for _, id := range ids {
		batch = append(batch, w.pending[id])
	}
	return ids, batch
}

// done counts what became of a batch and takes it off, when this is final. What
// changed while it was sent is sent again.
func (w *Webhook) done(ids []string, batch []alert, err error, final bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Error = ""
	if err != nil {
		w.stats.Failed++
		w.stats.Error = err.Error()
	}
	if !final {
		return
	}
	if err == nil {
		w.stats.Sent += uint64(len(batch))
	} else {
		w.stats.Dropped += uint64(len(batch))
	}
	for i, id := range ids {
		if now, ok := w.pending[id]; ok && now.same(batch[i]) && now.EndsAt.Equal(batch[i].EndsAt) {
			delete(w.pending, id)
		}
	}
	w.order = slices.DeleteFunc(w.order, func(id string) bool { _, ok := w.pending[id]; return !ok })
}

// refusal is an answer other than 2xx.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the webhook's receiver answered %d %s: %.200q", r.status, http.StatusText(r.status), r.text)
}

// forGood says that the same alerts would be refused again. Not so 408, 425 and
// 429, nor answers that say that the receiver is somewhere else or unwell: these
// may change.
func (r *refusal) forGood() bool {
	return r.status/100 == 4 && !slices.Contains([]int{401, 403, 404, 408, 425, 429}, r.status)
}

func (w *Webhook) post(ctx context.Context, client *http.Client, batch []alert) error {
	timeout := w.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the webhook's receiver did not answer within %v", timeout))
	defer cancel()
	body, err := json.Marshal(batch)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, mostAnswer)) // only for the error
	if resp.StatusCode/100 != 2 {
		return &refusal{resp.StatusCode, string(text)}
	}
	return nil
}
