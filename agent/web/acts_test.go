package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/state"
)

// actor does what it is asked for, and counts it.
type actor struct {
	planned, did int
	err          error
}

func (*actor) Acts() []state.Act { return []state.Act{{ID: "a", Act: "cut", Done: 3}} }

func (a *actor) Plan(_ context.Context, act, finding string) (state.Plan, error) {
	a.planned++
	return state.Plan{ID: "p", Act: act, Text: finding, Count: 3}, a.err
}

func (a *actor) Do(_ context.Context, plan string) (state.Act, error) {
	a.did++
	return state.Act{ID: plan, Act: "cut", Done: 3}, a.err
}

const token = "0123456789abcdef"

// request is an order as curl would send it, with the token.
func request(path, body string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:7117"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	for _, c := range change {
		c(r)
	}
	return r
}

func header(key, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(key, value) }
}

func order(h http.Handler, r *http.Request) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	text, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(text)
}

func TestActsByHand(t *testing.T) {
	a := &actor{}
	h := Handler(Options{Agent: newAgent(), Acts: a, Token: token})
	if status, body := order(h, request("/api/v1/acts/plan", `{"act":"cut","finding":"S001 10.77.1.2"}`)); status != http.StatusOK || !strings.Contains(body, `"plan":"p"`) || !strings.Contains(body, `"text":"S001 10.77.1.2"`) || a.did > 0 {
		t.Errorf("%d %s", status, body)
	}
	own := header("Origin", "http://127.0.0.1:7117")
	if status, body := order(h, request("/api/v1/acts/do", `{"plan":"p"}`, own, header("Sec-Fetch-Site", "same-origin"))); status != http.StatusOK || !strings.Contains(body, `"done":3`) || a.did != 1 {
		t.Errorf("%d %s", status, body)
	}
	var all struct {
		Schema string
		Acts   []state.Act
	}
	status, body := order(h, request("/api/v1/acts", "", func(r *http.Request) { r.Method = http.MethodGet }))
	if err := json.Unmarshal([]byte(body), &all); err != nil || status != http.StatusOK || all.Schema != "lifeline/v1" || len(all.Acts) != 1 {
		t.Errorf("%d %s", status, body)
	}
	for err, want := range map[error]int{
		&state.Refusal{Why: "the policy does not allow it"}: http.StatusForbidden,
		&state.Refusal{Why: "the plan is old", Stale: true}: http.StatusConflict,
		errors.New("no open finding has this ID"):           http.StatusBadRequest,
	} {
		a.err = err
		if status, body := order(h, request("/api/v1/acts/do", `{"plan":"p"}`)); status != want || !strings.Contains(body, err.Error()) {
			t.Errorf("%v: %d %s", err, status, body)
		}
	}
}

// Nothing is done for who must not ask, or does not ask as a program or the page
// does.
func TestNoActFor(t *testing.T) {
	const do = `{"plan":"p"}`
	for name, c := range map[string]struct {
		r      *http.Request
		status int
	}{
		"no token":                {request("/api/v1/acts/do", do, header("Authorization", "")), http.StatusUnauthorized},
		"another token":           {request("/api/v1/acts/do", do, header("Authorization", "Bearer 0123456789abcdeg")), http.StatusUnauthorized},
		"another origin":          {request("/api/v1/acts/do", do, header("Origin", "http://evil.example")), http.StatusForbidden},
		"another port":            {request("/api/v1/acts/do", do, header("Origin", "http://127.0.0.1:8080")), http.StatusForbidden},
		"no origin of a frame":    {request("/api/v1/acts/do", do, header("Origin", "null")), http.StatusForbidden},
		"a page of the same site": {request("/api/v1/acts/do", do, header("Sec-Fetch-Site", "same-site")), http.StatusForbidden},
		"a foreign name":          {request("/api/v1/acts/do", do, func(r *http.Request) { r.Host = "evil.example" }), http.StatusMisdirectedRequest},
		"a form":                  {request("/api/v1/acts/do", do, header("Content-Type", "application/x-www-form-urlencoded")), http.StatusUnsupportedMediaType},
		"plain text":              {request("/api/v1/acts/do", do, header("Content-Type", "text/plain")), http.StatusUnsupportedMediaType},
		"no type":                 {request("/api/v1/acts/do", do, func(r *http.Request) { r.Header.Del("Content-Type") }), http.StatusUnsupportedMediaType},
		"GET":                     {request("/api/v1/acts/do", do, func(r *http.Request) { r.Method = http.MethodGet }), http.StatusMethodNotAllowed},
		"PUT":                     {request("/api/v1/acts/do", do, func(r *http.Request) { r.Method = http.MethodPut }), http.StatusMethodNotAllowed},
		"a query":                 {request("/api/v1/acts/do?plan=p", do), http.StatusBadRequest},
		"no JSON":                 {request("/api/v1/acts/do", "plan=p"), http.StatusBadRequest},
		"nothing":                 {request("/api/v1/acts/do", ""), http.StatusBadRequest},
		"more than JSON":          {request("/api/v1/acts/do", do+do), http.StatusBadRequest},
		"a list":                  {request("/api/v1/acts/do", "["+do+"]"), http.StatusBadRequest},
		"an unknown key":          {request("/api/v1/acts/do", `{"plan":"p","force":"yes"}`), http.StatusBadRequest},
		"too much":                {request("/api/v1/acts/do", `{"plan":"`+strings.Repeat("p", mostOrder)+`"}`), http.StatusBadRequest},
		"POST elsewhere":          {request("/api/v1/acts", do), http.StatusMethodNotAllowed},
	} {
		a := &actor{}
		status, text := order(Handler(Options{Agent: newAgent(), Acts: a, Token: token}), c.r)
		if status != c.status || a.did+a.planned > 0 || !json.Valid(bytes.TrimSpace([]byte(text))) {
			t.Errorf("%s: %d, want %d: %s", name, status, c.status, text)
		}
	}
	for name, o := range map[string]Options{
		"an agent without a token": {Agent: newAgent(), Acts: &actor{}},
		"an agent that only looks": {Agent: newAgent(), Token: token},
	} {
		if status, text := order(Handler(o), request("/api/v1/acts/do", do)); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
}
