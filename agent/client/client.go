// Package client asks an agent by its API, and follows its stream of states. What
// answers is not trusted: it is read up to a bound, and in a bounded time.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/state"
)

const (
	// dialTime, answerTime and askTime are how long a connection may take, the
	// begin of an answer, and all of one that is no stream.
	dialTime   = 5 * time.Second
	answerTime = 20 * time.Second
	askTime    = 20 * time.Second

	// mostBytes is how long an answer or an event may be. A state with 200,000
	// sockets has less than one MiB.
	mostBytes = 32 << 20
)

// ErrNoAgent is what is wrong when something answers that is no agent.
var ErrNoAgent = errors.New("what answers there is no lifeline agent")

// Refused is an answer that is an error.
type Refused struct {
	Status int
	Text   string // what the agent says, or the status in words
}

func (r *Refused) Error() string { return r.Text }

// Agent is an agent to ask. Use [New], and Close in the end.
type Agent struct {
	base, token string
	http        *http.Client
	silence     time.Duration // see Follow
	again       time.Duration
}

// Health is what an agent says of itself in a word.
type Health struct {
	OK   bool   `json:"ok"`
	Run  string `json:"run"`
	Seq  uint64 `json:"seq"`
	Host string `json:"host"`
}

// New returns an Agent that is asked by its URL, such as http://127.0.0.1:7117.
// A token that is not "" is sent with each request. No proxy is used, and nobody
// is followed elsewhere.
func New(address, token string) (*Agent, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%q is no address of an agent: take one such as http://127.0.0.1:7117", address)
	}
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, TLSHandshakeTimeout: dialTime,
		ResponseHeaderTimeout: answerTime, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: time.Minute, MaxConnsPerHost: 8}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Agent{base: strings.TrimRight(u.String(), "/"), token: token, silence: silence, again: again,
		http: &http.Client{Transport: transport, CheckRedirect: stay}}, nil
}

// Close gives connections back that nobody uses.
func (a *Agent) Close() { a.http.CloseIdleConnections() }

// get asks for a path. The body of the answer is the caller's to close.
func (a *Agent) get(ctx context.Context, path string, query url.Values, header http.Header) (*http.Response, error) {
	address := a.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	for key := range header {
		r.Header.Set(key, header.Get(key))
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	w, err := a.http.Do(r)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) { // the address is known to who asked
			err = of.Err
		}
		return nil, err
	}
	if w.StatusCode == http.StatusOK {
		return w, nil
	}
	defer w.Body.Close()
	var said struct {
		Error string `json:"error"`
	}
	text, _ := io.ReadAll(io.LimitReader(w.Body, 64<<10))
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = "it answers " + w.Status
	}
	return nil, &Refused{w.StatusCode, said.Error}
}

// ask reads the JSON that a path answers with.
func (a *Agent) ask(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askTime, fmt.Errorf("no answer within %v", askTime))
	defer cancel()
	w, err := a.get(ctx, path, query, nil)
	if err != nil {
		return cmpCause(ctx, err)
	}
	defer w.Body.Close()
	if !strings.HasPrefix(w.Header.Get("Content-Type"), "application/json") {
		return ErrNoAgent
	}
	text, err := io.ReadAll(io.LimitReader(w.Body, mostBytes+1))
	switch {
	case err != nil:
		return cmpCause(ctx, err)
	case len(text) > mostBytes:
		return fmt.Errorf("%s answers with more than %d MiB", path, mostBytes>>20)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrNoAgent, err)
	}
	return nil
}

// cmpCause is why ctx ended where it did, and err else.
func cmpCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Health asks whether it is there. What is no agent is [ErrNoAgent].
func (a *Agent) Health(ctx context.Context) (h Health, err error) {
	if err = a.ask(ctx, "/healthz", nil, &h); err == nil && (!h.OK || h.Run == "") {
		err = ErrNoAgent
	}
	return h, err
}

// State asks for the latest state.
func (a *Agent) State(ctx context.Context) (*state.State, error) {
	s := new(state.State)
	if err := a.ask(ctx, "/api/v1/state", nil, s); err != nil {
		return nil, err
	}
	if s.Run == "" {
		return nil, ErrNoAgent
	}
	return s, nil
}

// Connections asks for those of the last census that a query chooses.
func (a *Agent) Connections(ctx context.Context, q state.Query) (c state.Connections, err error) {
	v := url.Values{}
	for key, text := range map[string]string{"peer": q.Peer, "process": q.Process, "state": q.State, "sort": q.Sort,
		"pid": strconv.Itoa(int(q.PID)), "netns": strconv.FormatUint(uint64(q.Netns), 10), "after": strconv.Itoa(q.After), "most": strconv.Itoa(q.Most)} {
		if text != "" && text != "0" {
			v.Set(key, text)
		}
	}
	if q.Reverse {
		v.Set("reverse", "true")
	}
	err = a.ask(ctx, "/api/v1/connections", v, &c)
	return c, err
}

// WhatIf asks what the death of a network, or of the one peer that it is, would do
// to those of one network namespace; 0 = of all.
func (a *Agent) WhatIf(ctx context.Context, dead netip.Prefix, netns uint32) (l state.Loss, err error) {
	peer := dead.String()
	if dead.IsSingleIP() {
		peer = dead.Addr().String()
	}
	v := url.Values{"peer": {peer}}
	if netns != 0 {
		v.Set("netns", strconv.FormatUint(uint64(netns), 10))
	}
	err = a.ask(ctx, "/api/v1/whatif", v, &l)
	return l, err
}

// Of the history. An agent that keeps none refuses with status 404.

// Span asks what the history holds.
func (a *Agent) Span(ctx context.Context) (s state.Span, err error) {
	err = a.ask(ctx, "/api/v1/history/span", nil, &s)
	return s, err
}

// Range asks for the number of all connections from one moment to another, in
// steps; 0 leaves the steps to the agent.
func (a *Agent) Range(ctx context.Context, from, to time.Time, step time.Duration) ([]state.Point, error) {
	v := period(from, to)
	if step >= time.Second {
		v.Set("step", strconv.Itoa(int(step/time.Second)))
	}
	var line state.TimeLine
	err := a.ask(ctx, "/api/v1/history/range", v, &line)
	return line.Points, err
}

// PastFindings asks for those that were open at any time between two moments.
func (a *Agent) PastFindings(ctx context.Context, from, to time.Time) ([]state.PastFinding, error) {
	var doc struct {
		Findings []state.PastFinding `json:"findings"`
	}
	err := a.ask(ctx, "/api/v1/history/findings", period(from, to), &doc)
	return doc.Findings, err
}

// Difference asks what changed from one moment to another.
func (a *Agent) Difference(ctx context.Context, from, to time.Time) (d state.Difference, err error) {
	err = a.ask(ctx, "/api/v1/history/diff", period(from, to), &d)
	return d, err
}

func period(from, to time.Time) url.Values {
	return url.Values{"from": {from.Format(time.RFC3339)}, "to": {to.Format(time.RFC3339)}}
}
