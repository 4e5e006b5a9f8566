package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/need"
)

// receiver is an Alertmanager that keeps what it is told, and answers as it is
// told to.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	alerts map[string]alert // latest, by finding and severity
	posts  int
	answer func(post int) int // status; nil = 200
}

func newReceiver(t *testing.T, answer func(post int) int) *receiver {
	r := &receiver{alerts: make(map[string]alert), answer: answer}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var got []alert
	decoder := json.NewDecoder(req.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil || req.Method != http.MethodPost || req.URL.Path != "/api/v2/alerts" || req.Header.Get("Content-Type") != "application/json" {
		http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.posts++
	post := r.posts
	r.mu.Unlock()
	if r.answer != nil {
		if status := r.answer(post); status/100 != 2 {
			http.Error(w, "no", status)
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range got {
		r.alerts[a.Labels["finding"]+" "+a.Labels["severity"]] = a
	}
}

func (r *receiver) get(id string) (alert, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.alerts[id]
	return a, ok
}

// start runs a Webhook that tries again soon.
func start(t *testing.T, w *Webhook) *Webhook {
	w.Backoff = lifeline.Backoff{First: time.Millisecond, Longest: 5 * time.Millisecond}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("Run did not end")
		}
	})
	return w
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func at(after time.Duration, findings ...state.Finding) *state.State {
	return &state.State{Host: "node-7", Time: noon.Add(after), Findings: findings}
}

func TestFindingsBecomeAlertsAndEnd(t *testing.T) {
	r := newReceiver(t, nil)
	w := start(t, &Webhook{URL: r.URL + "/api/v2/alerts", Page: "http://127.0.0.1:7117/"})
	dead := finding("S001 10.0.0.7", "S001", verdict.Silence, verdict.Fail, 4224)
	hidden := finding("S002 b", "S002", verdict.Silence, verdict.Warn, 7)
	hidden.Cause = dead.ID
	w.Tell(at(0, dead, hidden, finding("S003 c", "S003", verdict.Silence, verdict.Info, 1)))
	until(t, "the alert is told", func() bool { _, ok := r.get("S001 10.0.0.7 critical"); return ok })
	a, _ := r.get("S001 10.0.0.7 critical")
	want := alert{
		Labels: map[string]string{"alertname": "LifelineS001", "code": "S001", "finding": "S001 10.0.0.7",
			"instance": "node-7", "promise": "silence", "severity": "critical"},
		Annotations: map[string]string{"summary": "S001 10.0.0.7 is silent", "description": "Because.", "fix": "do\nthis"},
		StartsAt:    noon.Add(-time.Minute), EndsAt: noon.Add(4 * time.Minute), Generator: "http://127.0.0.1:7117/",
	}
	if got, wanted := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", want); got != wanted {
		t.Errorf("got  %s\nwant %s", got, wanted)
	}

	// Nothing new: nothing is sent, until it is time to say so again.
	until(t, "it is counted", func() bool { return w.Stats() == Stats{Sent: 1} })
	w.Tell(at(10*time.Second, dead, hidden))
	if n := w.Stats().Pending; n != 0 {
		t.Errorf("%d alerts wait with nothing new", n)
	}
	w.Tell(at(time.Minute, dead, hidden))
	until(t, "it is told again", func() bool { a, _ := r.get("S001 10.0.0.7 critical"); return a.EndsAt.Equal(noon.Add(5 * time.Minute)) })

	// Less severe: the old alert ends, another begins; then that ends too.
	dead.Severity = verdict.Warn
	w.Tell(at(70*time.Second, dead))
	until(t, "the critical alert ends", func() bool {
		a, _ := r.get("S001 10.0.0.7 critical")
		return a.EndsAt.Equal(noon.Add(70 * time.Second))
	})
	until(t, "a warning begins", func() bool { _, ok := r.get("S001 10.0.0.7 warning"); return ok })
	dead.Resolved = ptr(noon.Add(80 * time.Second))
	w.Tell(at(80*time.Second, dead))
	until(t, "the warning ends", func() bool { a, _ := r.get("S001 10.0.0.7 warning"); return a.EndsAt.Equal(noon.Add(80 * time.Second)) })
	until(t, "all is counted", func() bool { return w.Stats() == Stats{Sent: 5} })
	if len(r.alerts) != 2 {
		t.Errorf("alerts for what is hidden or wrong with nobody: %v", r.alerts)
	}
}

// TestReceiverThatFails: after errors that may pass it is tried again, and
// nothing is lost; what it refuses for good is dropped and counted.
func TestReceiverThatFails(t *testing.T) {
	answers := []int{500, 429, 404, 302, 503, 200}
	r := newReceiver(t, func(post int) int { return answers[min(post, len(answers))-1] })
	w := start(t, &Webhook{URL: r.URL + "/api/v2/alerts"})
	w.Tell(at(0, finding("a", "S001", verdict.Silence, verdict.Fail, 1)))
	until(t, "it is told after five failures", func() bool { return w.Stats() == Stats{Sent: 1, Failed: 5} })

	refusing := newReceiver(t, func(int) int { return 422 })
	w = start(t, &Webhook{URL: refusing.URL + "/api/v2/alerts"})
	w.Tell(at(0, finding("a", "S001", verdict.Silence, verdict.Fail, 1)))
	until(t, "it is dropped", func() bool { return w.Stats().Dropped == 1 })
	if s := w.Stats(); s.Failed != 1 || s.Pending != 0 || !strings.Contains(s.Error, "422") {
		t.Errorf("%+v", s)
	}

	failing := newReceiver(t, func(int) int { return 500 })
	w = start(t, &Webhook{URL: failing.URL + "/api/v2/alerts"})
	w.Tell(at(0, finding("a", "S001", verdict.Silence, verdict.Fail, 1)))
	until(t, "it is dropped after ten tries", func() bool { return w.Stats().Dropped == 1 })
	if s := w.Stats(); s.Failed != mostTries || s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

// TestReceiverThatIsSlow: it takes connections and never answers. Telling does
// not wait for it, what waits is bounded, and what is dropped is counted.
func TestReceiverThatIsSlow(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts; nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := start(t, &Webhook{URL: "http://" + silent.Addr().String() + "/api/v2/alerts", Timeout: 50 * time.Millisecond})
	begin := time.Now()
	for round := range 5 { // each with 1,500 other findings
		s := at(time.Duration(round) * time.Second)
		for i := range 1500 {
			s.Findings = append(s.Findings, finding(fmt.Sprintf("%d %d", round, i), "S001", verdict.Silence, verdict.Fail, 1))
		}
		w.Tell(s)
		if n := w.Stats().Pending; n > mostPending {
			t.Fatalf("%d alerts wait", n)
		}
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("telling took %v", took)
	}
	if s := w.Stats(); s.Dropped < 500 {
		t.Errorf("%+v: 500 were too many at once", s)
	}
	until(t, "a request fails", func() bool { return w.Stats().Failed > 0 })
	if s := w.Stats(); !strings.Contains(s.Error, "did not answer within 50ms") {
		t.Errorf("error: %s", s.Error)
	}
}

// TestReceiverThatIsDeadAndComesBack: the last that was to be said is what it
// hears.
func TestReceiverThatIsDeadAndComesBack(t *testing.T) {
	address := need.Address(t)
	w := start(t, &Webhook{URL: "http://" + address + "/api/v2/alerts"})
	f := finding("a", "S001", verdict.Silence, verdict.Fail, 1)
	w.Tell(at(0, f))
	until(t, "a request fails", func() bool { return w.Stats().Failed > 0 })

	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{alerts: make(map[string]alert)}
	r.Server = &httptest.Server{Listener: ln, Config: &http.Server{Handler: r}}
	r.Start()
	defer r.Close()
	w.Tell(at(time.Minute, f))
	until(t, "it is told of what is open", func() bool { a, _ := r.get("a critical"); return a.EndsAt.Equal(noon.Add(5 * time.Minute)) })
	w.Tell(at(2 * time.Minute))
	until(t, "and of the end", func() bool { a, _ := r.get("a critical"); return a.EndsAt.Equal(noon.Add(2 * time.Minute)) })
}
