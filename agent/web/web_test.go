package web

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// agent is one that a test tells what to know.
type agent struct {
	mu   sync.Mutex
	now  *state.State
	next chan struct{}
}

func newAgent() *agent {
	at := time.Date(2026, 11, 20, 14, 5, 0, 0, time.UTC)
	finding := state.Finding{Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "10.77.1.2 is silent: <4,224> connections",
		Evidence: verdict.Values{{Key: "unanswered_exchanges", V: 40}}, Why: "Nobody there answers.", Fix: []string{"lifeline poke 10.77.1.2"}}, ID: "S001 10.77.1.2", First: at, Last: at, Times: 1, Count: 4224}
	s := &state.State{Schema: "lifeline/v1", Host: "example", Time: at, Run: "RUN", Seq: 7, Findings: []state.Finding{finding},
		Peers: []state.Peer{{Peer: "10.77.1.2", Count: 4224, Verdict: "silent", Never: true}},
		Leaks: []state.Site{{Process: "web", PID: 7, Open: 3, Opened: 9, Verdict: "leak", Stack: []state.Call{{Function: "main.dial", File: "main.go", Line: 12}}}},
		Names: &state.Names{Servers: []state.Nameserver{{Address: "10.0.0.53", Error: "timed out"}}}}
	for p := range verdict.Leaks + 1 {
		s.Promises = append(s.Promises, state.Promise{Promise: p, Status: state.Kept, Summary: "looked at"})
	}
	return &agent{now: s, next: make(chan struct{})}
}

func (a *agent) State() *state.State { a.mu.Lock(); defer a.mu.Unlock(); return a.now }

// tell publishes the next State, with what change does to it.
func (a *agent) tell(change func(*state.State)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := *a.now
	next.Seq++
	change(&next)
	a.now = &next
	close(a.next)
	a.next = make(chan struct{})
}

func (a *agent) Wait(ctx context.Context, seq uint64) (*state.State, error) {
	for {
		a.mu.Lock()
		now, next := a.now, a.next
		a.mu.Unlock()
		if now.Seq > seq {
			return now, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (a *agent) Connections(_ context.Context, q state.Query) (state.Connections, error) {
	if q.Sort == "colour" {
		return state.Connections{}, errors.New("no such sort")
	}
	list := []state.Connection{}
	if q.Reverse {
		list = append(list, state.Connection{Netns: q.Netns})
	}
	return state.Connections{Total: q.Most, List: list}, nil
}

func (a *agent) WhatIf(_ context.Context, dead netip.Prefix, netns uint32) (state.Loss, error) {
	if dead.Addr().Is6() {
		return state.Loss{}, state.ErrNotYet
	}
	return state.Loss{Peer: dead.String(), Netns: netns, Count: 4224}, nil
}

// crowded is an agent with so many sockets that a question takes its time.
type crowded struct {
	*agent
	asked chan struct{}
	goOn  chan struct{}
}

func (c crowded) Connections(context.Context, state.Query) (state.Connections, error) {
	c.asked <- struct{}{}
	<-c.goOn
	return state.Connections{}, nil
}

// However many ask about all sockets, few are answered at a time.
func TestAskedInTurn(t *testing.T) {
	c := crowded{newAgent(), make(chan struct{}, 100), make(chan struct{})}
	h := Handler(Options{Agent: c})
	var open sync.WaitGroup
	for range 3 * mostAsking {
		open.Go(func() {
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/api/v1/connections", nil)); w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // that more never come cannot be waited for
	if n := len(c.asked); n != mostAsking {
		t.Errorf("%d are answered at a time", n)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequestWithContext(gone, http.MethodGet, "http://localhost/api/v1/connections", nil)); w.Code == http.StatusOK {
		t.Error("who is gone has a place")
	}
	close(c.goOn)
	open.Wait()
}

// serving serves s on loopback until the test ends, and returns its address.
func serving(t *testing.T, s *server) string {
	t.Helper()
	at, _ := servingAt(t, "127.0.0.1:0", s)
	return at
}

// servingAt serves at an address until the test ends, or stop is called.
func servingAt(t *testing.T, address string, h http.Handler) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, h) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// ask sends a request as it is written, and returns what comes.
func ask(t *testing.T, address, request string) (status int, header http.Header, body string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, request)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.200q: %v", request, err)
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	return r.StatusCode, r.Header, string(text)
}

// get asks for a path with more lines of header.
func get(t *testing.T, address, path string, lines ...string) (status int, header http.Header, body string) {
	t.Helper()
	return ask(t, address, "GET "+path+" HTTP/1.1\r\nHost: "+address+"\r\nConnection: close\r\n"+strings.Join(append(lines, "", ""), "\r\n"))
}

func TestAPI(t *testing.T) {
	a := newAgent()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "lifeline_up 1\n") })
	at := serving(t, newServer(Options{Agent: a, Metrics: metrics}))
	for _, c := range []struct {
		path   string
		status int
		holds  string
	}{
		{"/healthz", 200, `"ok":true`},
		{"/api/v1/state", 200, `"schema":"lifeline/v1"`},
		{"/api/v1/findings", 200, `"seq":7,"findings":[{`},
		{"/api/v1/connections", 200, `"total":0`},
		{"/api/v1/connections?most=12&peer=10.0.0.0/8&pid=7&after=3&state=ESTABLISHED&sort=idle&process=web", 200, `"total":12`},
		{"/api/v1/connections?reverse=true&netns=4026531840", 200, `"netns":4026531840`},
		{"/api/v1/connections?reverse=false", 200, `"connections":[]`},
		{"/api/v1/connections?reverse=1", 400, "neither true nor false"},
		{"/api/v1/connections?netns=4294967296", 400, "no number"},
		{"/api/v1/connections?sort=colour", 400, "no such sort"},
		{"/api/v1/connections?pid=x", 400, "no number"},
		{"/api/v1/connections?pid=-1", 400, "no number"},
		{"/api/v1/connections?peers=1", 400, "unknown key"},
		{"/api/v1/connections?pid=1&pid=2", 400, "give it once"},
		{"/api/v1/connections?peer=%zz", 400, "cannot be read"},
		{"/api/v1/connections?peer=" + strings.Repeat("1", mostQuery), 414, "too long"},
		{"/api/v1/whatif?peer=10.77.1.2", 200, `"peer":"10.77.1.2/32"`},
		{"/api/v1/whatif?peer=10.77.1.2&netns=4026531840", 200, `"netns":4026531840`},
		{"/api/v1/whatif?peer=10.77.1.2&netns=here", 400, "no number"},
		{"/api/v1/whatif?peer=10.77.1.2/16", 200, `"peer":"10.77.0.0/16"`},
		{"/api/v1/whatif", 400, "say who dies"},
		{"/api/v1/whatif?peer=example.com", 400, "no address"},
		{"/api/v1/whatif?peer=fd00::7", 503, "ask again in a moment"},
		{"/metrics", 200, "lifeline_up 1"},
		{"/style.css", 200, "prefers-color-scheme"},
		{"/api/v1/", 404, "nothing here"},
	} {
		status, header, body := get(t, at, c.path)
		if status != c.status || !strings.Contains(body, c.holds) {
			t.Errorf("%.80s: %d %.200s", c.path, status, body)
		}
		if header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%.80s: header %v", c.path, header)
		}
		if strings.HasPrefix(c.path, "/api") && !json.Valid([]byte(body)) {
			t.Errorf("%.80s is no JSON: %s", c.path, body)
		}
	}
}

func TestPage(t *testing.T) {
	at := serving(t, newServer(Options{Agent: newAgent()}))
	status, header, body := get(t, at, "/")
	if status != 200 || header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", status, header)
	}
	for _, has := range []string{"Lifeline on example", "10.77.1.2 is silent: &lt;4,224&gt; connections", "unanswered_exchanges", "Nobody there answers.", "lifeline poke 10.77.1.2",
		"main.dial", "10.0.0.53", "timed out", "<td>never</td>", "<noscript><meta http-equiv=\"refresh\"", "width=device-width", "<script src=\"/app.js\" defer></script>"} {
		if !strings.Contains(body, has) {
			t.Errorf("the page has no %q", has)
		}
	}
	for _, hasNot := range []string{"<script>", "style=", "onclick", "http://", "https://", "ZgotmplZ", "<4,224>"} {
		if strings.Contains(body, hasNot) {
			t.Errorf("the page has %q", hasNot)
		}
	}
	empty := &agent{now: &state.State{}, next: make(chan struct{})}
	if status, _, body := get(t, serving(t, newServer(Options{Agent: empty})), "/"); status != 200 || !strings.HasSuffix(body, "</html>\n") {
		t.Errorf("of a State without anything: %d %s", status, body)
	}
}

// Whoever must not ask gets nothing of what is known.
func TestTurnedAway(t *testing.T) {
	a := newAgent()
	at := serving(t, newServer(Options{Agent: a}))
	request := func(line, host string, more ...string) string {
		return line + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" + strings.Join(append(more, "", ""), "\r\n")
	}
	for _, c := range []struct {
		request string
		status  int
	}{
		{request("GET /api/v1/state", "localhost:7117"), 200},
		{request("GET /api/v1/state", "[::1]:7117"), 200},
		{request("GET /api/v1/state", "evil.example"), 421},
		{request("GET /api/v1/state", "127.0.0.1.evil.example:7117"), 421},
		{request("GET /api/v1/state", "localhost.evil.example"), 421},
		{request("GET /api/v1/state", "192.0.2.1:7117"), 421},
		{request("GET /api/v1/state", ""), 421},
		{request("GET http://evil.example/api/v1/state", at), 421},
		{request("GET /api/v1/state", at, "Origin: http://"+at), 200},
		{request("GET /api/v1/state", at, "Origin: http://evil.example"), 403},
		{request("GET /api/v1/state", at, "Origin: null"), 403},
		{request("GET /api/v1/state", at, "Origin: http://localhost:1"), 403},
		{request("GET /api/v1/stream", at, "Origin: http://evil.example"), 403},
		{request("GET /api/v1/state", at, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), 403},
		{request("GET /", at, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"), 200},
		{request("POST /api/v1/state", at, "Content-Length: 0"), 405},
		{request("DELETE /", at), 405},
		{request("OPTIONS /", at, "Origin: http://evil.example"), 403},
		{request("GET /../../etc/passwd", at), 404},
		{request("GET /%2e%2e/%2e%2e/etc/passwd", at), 404},
		{request("GET /api/v1/../../page.html", at), 404},
		{request("GET //etc/passwd", at), 404},
		{request("GET /style.css/", at), 404},
		{request("GET /page.html", at), 404},
		{request("GET /metrics", at), 404}, // there are none
		{request("GET /", at, "X-Large: "+strings.Repeat("a", mostHeader+8<<10)), 431},
	} {
		status, _, body := ask(t, at, c.request)
		if status != c.status || status != 200 && strings.Contains(body, "10.77.1.2") {
			t.Errorf("%.120q: %d, not %d: %.100s", c.request, status, c.status, body)
		}
	}
}

// All that a browser must fetch before it shows the live page, as it travels.
func TestSize(t *testing.T) {
	at, whole := serving(t, newServer(Options{Agent: newAgent()})), 0
	for _, path := range []string{"/", "/app.js", "/style.css", "/icon.svg"} {
		status, header, body := get(t, at, path, "Accept-Encoding: gzip, deflate")
		if status != 200 || header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: %d %v", path, status, header)
		}
		whole += len(body)
		if _, header, plain := get(t, at, path, "Accept-Encoding: gzip;q=0"); header.Get("Content-Encoding") != "" || len(plain) <= len(body) {
			t.Errorf("%s without gzip: %v", path, header)
		}
	}
	t.Logf("%d bytes", whole)
	if whole >= 80_000 {
		t.Errorf("the page takes %d bytes", whole)
	}
}

func TestToken(t *testing.T) {
	at := serving(t, newServer(Options{Agent: newAgent(), Token: "secret", Listen: "0.0.0.0:7117"}))
	if _, header, _ := get(t, at, "/"); !strings.Contains(fmt.Sprint(header.Values("Www-Authenticate")), "Bearer Basic realm=") {
		t.Errorf("it asks for %q", header.Values("Www-Authenticate"))
	}
	for line, want := range map[string]int{"Accept: */*": 401, "Authorization: Bearer": 401, "Authorization: Bearer secre": 401, "Authorization: secret": 401, "Authorization: Bearer secret": 200,
		"Authorization: Basic " + basic("anybody", "secret"): 200, "Authorization: Basic " + basic("secret", ""): 401, "Authorization: Basic secret": 401} {
		for _, path := range []string{"/", "/healthz", "/api/v1/state"} {
			if status, _, _ := get(t, at, path, line); status != want {
				t.Errorf("%s with %q: %d", path, line, status)
			}
		}
	}
	if status, _, _ := ask(t, at, "GET / HTTP/1.1\r\nHost: 192.0.2.7:7117\r\nAuthorization: Bearer secret\r\nConnection: close\r\n\r\n"); status != 200 {
		t.Errorf("by an address of the machine: %d", status)
	}
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// events opens a stream and returns its lines. Its deadline is far away.
func events(t *testing.T, at, last string) *bufio.Scanner {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "GET /api/v1/stream HTTP/1.1\r\nHost: %s\r\nLast-Event-ID: %s\r\n\r\n", at, last)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream does not begin: %v, %v", r, err)
	}
	lines := bufio.NewScanner(r.Body)
	lines.Buffer(nil, 1<<20)
	return lines
}

// line returns the next line that begins so, without that.
func line(t *testing.T, from *bufio.Scanner, begins string) string {
	t.Helper()
	for from.Scan() {
		if rest, is := strings.CutPrefix(from.Text(), begins); is {
			return rest
		}
	}
	t.Fatalf("no line begins with %q: %v", begins, from.Err())
	return ""
}

func TestStream(t *testing.T) {
	a := newAgent()
	s := newServer(Options{Agent: a})
	s.beat = 20 * time.Millisecond
	at := serving(t, s)
	first := events(t, at, "")
	if id := line(t, first, "id: "); id != "RUN/7" {
		t.Errorf("the first event is %s", id)
	}
	if data := line(t, first, "data: "); !json.Valid([]byte(data)) || !strings.Contains(data, `"seq":7`) {
		t.Errorf("the first event has %s", data)
	}
	line(t, first, ": ") // the heartbeat
	a.tell(func(*state.State) {})
	if id := line(t, first, "id: "); id != "RUN/8" {
		t.Errorf("the second event is %s", id)
	}
	// Whoever has the latest gets nothing before there is news.
	again := events(t, at, "RUN/8")
	line(t, again, ": ")
	a.tell(func(*state.State) {})
	if id := line(t, again, "id: "); id != "RUN/9" {
		t.Errorf("who came back was sent %s", id)
	}
	for _, last := range []string{"OTHER/9", "RUN/99999", "RUN/", "nonsense"} {
		if id := line(t, events(t, at, last), "id: "); id != "RUN/9" {
			t.Errorf("after %s came %s", last, id)
		}
	}
}

// A thousand readers that do not read: each is dropped, one more is told so, and
// who reads is served.
func TestStreamsNobodyReads(t *testing.T) {
	a := newAgent()
	a.tell(func(s *state.State) { s.Host = strings.Repeat("h", 512<<10) }) // more than buffers hold
	s := newServer(Options{Agent: a})
	s.patient = 2 * time.Second
	at := serving(t, s)
	for i := range mostStreams {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		fmt.Fprintf(c, "GET /api/v1/stream HTTP/1.1\r\nHost: %s\r\n\r\n", at)
	}
	if status, _, _ := get(t, at, "/healthz"); status != 200 {
		t.Errorf("beside them: %d", status)
	}
	for end := time.Now().Add(time.Minute); len(s.streams) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d streams are left", len(s.streams))
		}
		a.tell(func(*state.State) {})
	}
}

func TestMostStreams(t *testing.T) {
	s := newServer(Options{Agent: newAgent()})
	s.streams = make(chan struct{}, 1)
	at := serving(t, s)
	line(t, events(t, at, ""), "id: ")
	if status, header, body := get(t, at, "/api/v1/stream"); status != 503 || header.Get("Retry-After") == "" || !strings.Contains(body, "streams are open") {
		t.Errorf("one too many: %d %s", status, body)
	}
}
