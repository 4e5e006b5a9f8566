// Package web serves what the agent knows: an API, a stream of States, and a page
// that is live, and that can be read without JavaScript. It takes orders for acts
// alone, and only from who has the token.
package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// mostHeader is how many bytes the header of a request may have, beside some
	// that net/http adds.
	mostHeader = 16 << 10

	// mostQuery is how many bytes a query may have.
	mostQuery = 2 << 10

	// readTime is how long a request may take to come, writeTime how long a reader
	// may take for an answer, or for an event.
	readTime  = 10 * time.Second
	writeTime = 10 * time.Second

	// mostUnread is how many bytes the kernel holds for a reader.
	mostUnread = 128 << 10

	// mostAsking is how many questions about all sockets are answered at a time.
	mostAsking = 4

	// goodbye is how long requests under way may take when all ends.
	goodbye = 2 * time.Second
)

// Agent is who knows.
type Agent interface {
	State() *state.State
	Wait(ctx context.Context, seq uint64) (*state.State, error)
	Connections(context.Context, state.Query) (state.Connections, error)
	WhatIf(ctx context.Context, dead netip.Prefix, netns uint32) (state.Loss, error)
}

// Options say what is served, and to whom. Agent is needed.
type Options struct {
	Agent   Agent
	Metrics http.Handler // of /metrics; nil: there is none

	// History returns who knows the past, or why nobody does now; nil: no history
	// is kept.
	History func() (History, error)

	// Acts is who acts; nil: nothing is done. Without a Token nobody may ask for an
	// act.
	Acts Acts

	Listen string // the address that is listened at, as a Host header may name it; "" = loopback
	Token  string // who asks must send it, as Authorization: Bearer, or as the password of Basic; "" = nobody must
}

// server is the handler of all.
type server struct {
	Options
	paths   map[string]http.HandlerFunc
	posts   map[string]http.HandlerFunc
	streams chan struct{} // one place for each
	asking  chan struct{} // the same, see inTurn
	patient time.Duration // see writeTime
	beat    time.Duration // see heartbeat

	encoded struct { // the latest State as JSON, for all who want it
		sync.Mutex
		of   *state.State
		text []byte
	}
}

// Handler serves the API and the page. It answers only GET and HEAD, and POST for
// acts, only to a
// Host header that is a loopback address, localhost or Options.Listen, so that no
// name of somebody else's leads a browser here, and to no page of another origin.
func Handler(o Options) http.Handler { return newServer(o) }

func newServer(o Options) *server {
	s := &server{Options: o, streams: make(chan struct{}, mostStreams), asking: make(chan struct{}, mostAsking), patient: writeTime, beat: heartbeat}
	s.paths = map[string]http.HandlerFunc{
		"/":                   s.page,
		"/healthz":            s.health,
		"/api/v1/state":       s.state,
		"/api/v1/findings":    s.findings,
		"/api/v1/connections": s.connections,
		"/api/v1/whatif":      s.whatIf,
		"/api/v1/stream":      s.stream,
		"/api/v1/acts":        s.acts,
	}
	s.posts = s.orders()
	maps.Copy(s.paths, files())
	maps.Copy(s.paths, s.pasts())
	if o.Metrics != nil {
		s.paths["/metrics"] = o.Metrics.ServeHTTP
	}
	return s
}

// Serve serves on l until ctx ends, streams included, and closes l. It returns nil
// then.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	return serve(ctx, l, Handler(o))
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	requests, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	server := &http.Server{Handler: h, ReadTimeout: readTime, ReadHeaderTimeout: readTime, WriteTimeout: 2 * writeTime, IdleTimeout: time.Minute,
		MaxHeaderBytes: mostHeader, BaseContext: func(net.Listener) context.Context { return requests }, ConnContext: small}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stop() // streams end by it
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if server.Shutdown(late) != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// small keeps what the kernel holds for a reader that does not read: else it may
// be megabytes for each.
func small(ctx context.Context, c net.Conn) context.Context {
	if c, is := c.(*net.TCPConn); is {
		_ = c.SetWriteBuffer(mostUnread) // else it holds more, and nothing fails
	}
	return ctx
}

// ServeHTTP turns away who must not ask, and then answers.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case !s.mayName(r.Host):
		refuse(w, http.StatusMisdirectedRequest, "this is not the host "+strconv.Quote(r.Host)+": ask by the address that lifeline agent printed")
	case foreign(r):
		refuse(w, http.StatusForbidden, "pages of other origins get no answer")
	case !s.authorized(r):
		h["Www-Authenticate"] = []string{"Bearer", `Basic realm="lifeline: any name, and the token as the password", charset="UTF-8"`}
		refuse(w, http.StatusUnauthorized, "send the token of --token-file: Authorization: Bearer TOKEN, or the token as the password of any user")
	case s.posts[r.URL.Path] != nil && r.Method != http.MethodPost:
		h.Set("Allow", "POST")
		refuse(w, http.StatusMethodNotAllowed, "an act is asked for by POST")
	case s.posts[r.URL.Path] != nil:
		s.posts[r.URL.Path](w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD are answered here")
	case len(r.URL.RawQuery) > mostQuery:
		refuse(w, http.StatusRequestURITooLong, "the query is too long")
	case s.paths[r.URL.Path] == nil:
		refuse(w, http.StatusNotFound, "there is nothing here; the API begins at /api/v1/state")
	default:
		s.paths[r.URL.Path](w, r)
	}
}

// mayName reports a Host header that means this agent: no name that somebody else
// can give the address of this machine to.
func (s *server) mayName(host string) bool {
	name := hostOf(host)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	listen := hostOf(s.Listen)
	if strings.EqualFold(name, listen) && listen != "" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	at, err := netip.ParseAddr(listen)
	return addr.IsLoopback() || err == nil && at.IsUnspecified() // that is every address of the machine
}

// hostOf is an address without its port.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.Trim(address, "[]")
}

// foreign reports a request by a page of another origin. Links from one may lead
// to the page.
func foreign(r *http.Request) bool {
	for _, origin := range r.Header.Values("Origin") {
		if !strings.EqualFold(origin, "http://"+r.Host) && !strings.EqualFold(origin, "https://"+r.Host) {
			return true
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.URL.Path != "/"
	}
	return false
}

func (s *server) authorized(r *http.Request) bool {
	if s.Token == "" {
		return true
	}
	got, is := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !is {
		_, got, is = r.BasicAuth() // what a browser asks its user for
	}
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(s.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && is
}

// problem is an answer that is an error.
type problem struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, status int, why string) {
	text, _ := json.Marshal(problem{why})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// answer writes a document. Whoever asked may have gone; nobody else minds.
func answer(w http.ResponseWriter, document any, err error) {
	switch {
	case errors.Is(err, state.ErrNotYet):
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	text, err := json.Marshal(document)
	if err != nil {
		refuse(w, http.StatusInternalServerError, fmt.Sprintf("cannot write it as JSON: %v", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
}
