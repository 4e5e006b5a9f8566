package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/web"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// knows is an agent's knowledge that the test sets.
type knows struct {
	now  atomic.Pointer[state.State]
	news chan struct{}
}

func (k *knows) State() *state.State { return k.now.Load() }

func (k *knows) Wait(ctx context.Context, seq uint64) (*state.State, error) {
	for {
		if s := k.State(); s.Seq > seq {
			return s, nil
		}
		select {
		case <-k.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (k *knows) Connections(_ context.Context, q state.Query) (state.Connections, error) {
	if q.Sort == "nonsense" {
		return state.Connections{}, errors.New("no such order")
	}
	return state.Connections{Total: q.After + q.Most + int(q.PID), List: []state.Connection{{Netns: q.Netns, Never: q.Reverse, Local: q.Peer, Remote: q.Process, State: q.State}}}, nil
}

func (k *knows) WhatIf(_ context.Context, dead netip.Prefix, netns uint32) (state.Loss, error) {
	return state.Loss{Peer: dead.String(), Netns: netns}, nil
}

func (k *knows) say(run string, seq uint64) {
	k.now.Store(&state.State{Schema: "lifeline/v1", Run: run, Seq: seq, Host: "here"})
	select {
	case k.news <- struct{}{}:
	default:
	}
}

func agent(t *testing.T, token string) (*knows, *httptest.Server, *Agent) {
	t.Helper()
	k := &knows{news: make(chan struct{})}
	k.say("A", 1)
	server := httptest.NewServer(web.Handler(web.Options{Agent: k, Token: token}))
	t.Cleanup(server.Close)
	a, err := New(server.URL+"/", token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return k, server, a
}

func TestAsk(t *testing.T) {
	_, server, a := agent(t, "0123456789abcdef")
	ctx := t.Context()
	if h, err := a.Health(ctx); err != nil || h.Host != "here" || h.Run != "A" {
		t.Errorf("%+v, %v", h, err)
	}
	if s, err := a.State(ctx); err != nil || s.Seq != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	c, err := a.Connections(ctx, state.Query{Peer: "10.0.0.0/8", Process: "a b", PID: 3, State: "established", Sort: "idle", After: 20, Most: 100, Netns: 4026531840, Reverse: true})
	if err != nil || c.Total != 123 || c.List[0].Local != "10.0.0.0/8" || c.List[0].Remote != "a b" || c.List[0].State != "established" || c.List[0].Netns != 4026531840 || !c.List[0].Never {
		t.Errorf("%+v, %v", c, err)
	}
	if l, err := a.WhatIf(ctx, netip.MustParsePrefix("10.0.0.7/32"), 4026531840); err != nil || l.Peer != "10.0.0.7/32" || l.Netns != 4026531840 {
		t.Errorf("%+v, %v", l, err)
	}
	var refused *Refused
	if _, err := a.Connections(ctx, state.Query{Sort: "nonsense"}); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || err.Error() != "no such order" {
		t.Errorf("%v", err)
	}
	if _, err := a.Difference(ctx, time.Now().Add(-time.Hour), time.Now()); !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		t.Errorf("an agent without a history: %v", err)
	}
	stranger, err := New(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Health(ctx); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		t.Errorf("without the token: %v", err)
	}
}

// History questions are those of the API.
func TestPast(t *testing.T) {
	at := time.Date(2026, 11, 20, 14, 5, 0, 0, time.UTC)
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, map[string]string{"/api/v1/history/span": `{"records":7}`, "/api/v1/history/range": `{"points":[{"time":"2026-11-20T14:05:00Z","count":3},{"time":"2026-11-20T14:05:10Z","count":null}]}`,
			"/api/v1/history/findings": `{"findings":[{"id":"x"}]}`, "/api/v1/history/diff": `{"same":4}`}[r.URL.Path])
	}))
	defer server.Close()
	a, _ := New(server.URL, "")
	defer a.Close()
	ctx := t.Context()
	span, err1 := a.Span(ctx)
	points, err2 := a.Range(ctx, at, at.Add(time.Hour), 10*time.Second)
	found, err3 := a.PastFindings(ctx, at, at.Add(time.Hour))
	d, err4 := a.Difference(ctx, at, at.Add(time.Hour))
	if err := errors.Join(err1, err2, err3, err4); err != nil || span.Records != 7 || len(points) != 2 || *points[0].Count != 3 || points[1].Count != nil || found[0].ID != "x" || d.Same != 4 {
		t.Errorf("%v: %+v %+v %+v %+v", err, span, points, found, d)
	}
	want := "/api/v1/history/span /api/v1/history/range?from=2026-11-20T14%3A05%3A00Z&step=10&to=2026-11-20T15%3A05%3A00Z " +
		"/api/v1/history/findings?from=2026-11-20T14%3A05%3A00Z&to=2026-11-20T15%3A05%3A00Z /api/v1/history/diff?from=2026-11-20T14%3A05%3A00Z&to=2026-11-20T15%3A05%3A00Z"
	if got := strings.Join(asked, " "); got != want {
		t.Errorf("asked %s", got)
	}
}

// What is no agent is told from one, and nobody is led elsewhere.
func TestNoAgent(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"other JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"ok":true}`)
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"without end": func(w http.ResponseWriter, r *http.Request) { endless(w, r) },
		"a cut answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{`)
		},
	} {
		server := httptest.NewServer(h)
		a, _ := New(server.URL, "")
		if _, err := a.Health(t.Context()); err == nil {
			t.Errorf("%s is taken for an agent", name)
		}
		lost := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		a.Follow(ctx, func(*state.State) { t.Errorf("%s: a state", name) }, func(err error) { lost <- err; stop() })
		if err := <-lost; err == nil {
			t.Errorf("%s: lost without a reason", name)
		}
		stop()
		a.Close()
		server.Close()
	}
	for _, address := range []string{"", "127.0.0.1:7117", "ftp://x", "http://", "http://a/?b", "http://u:p@a", "::"} {
		if _, err := New(address, ""); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// endless sends one line that has no end.
func endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	much := strings.Repeat(" ", 1<<20)
	for r.Context().Err() == nil {
		if _, err := fmt.Fprint(w, much); err != nil {
			return
		}
	}
}

// A stream that breaks goes on where it was; an agent that begins anew is followed;
// one that falls silent is given up.
func TestFollow(t *testing.T) {
	k, server, a := agent(t, "")
	a.again = time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	got, lost := make(chan *state.State, 10), make(chan error, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Follow(ctx, func(s *state.State) { got <- s }, func(err error) { lost <- err })
	}()
	next := func(run string, seq uint64) {
		t.Helper()
		if s := <-got; s.Run != run || s.Seq != seq {
			t.Errorf("%s/%d came, not %s/%d", s.Run, s.Seq, run, seq)
		}
	}
	next("A", 1)
	k.say("A", 2)
	next("A", 2)
	server.CloseClientConnections()
	<-lost
	k.say("A", 3)
	next("A", 3) // and not 2 again
	k.say("B", 1)
	server.CloseClientConnections()
	next("B", 1)
	stop()
	<-done
	if len(got) != 0 {
		t.Error("a state came twice")
	}
}

func TestSilentStream(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "id: A/1\nevent: state\ndata: {\"run\":\"A\",\"seq\":1}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	a, _ := New(server.URL, "")
	defer a.Close()
	a.silence = 50 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	states := 0
	a.Follow(ctx, func(*state.State) { states++ }, func(err error) {
		if stop(); !strings.Contains(err.Error(), "said nothing") {
			t.Error(err)
		}
	})
	if states != 1 {
		t.Errorf("%d states", states)
	}
}
