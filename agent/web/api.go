package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/lifeline-go/lifeline/agent/state"
)

// text is a State as JSON. It is made once for all who want it, and nobody may
// change it.
func (s *server) text(of *state.State) ([]byte, error) {
	e := &s.encoded
	e.Lock()
	defer e.Unlock()
	if e.of == of {
		return e.text, nil
	}
	text, err := json.Marshal(of)
	if err == nil {
		e.of, e.text = of, text
	}
	return text, err
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	now := s.Agent.State()
	answer(w, struct {
		OK   bool   `json:"ok"`
		Run  string `json:"run"`
		Seq  uint64 `json:"seq"`
		Host string `json:"host"`
	}{true, now.Run, now.Seq, now.Host}, nil)
}

func (s *server) state(w http.ResponseWriter, _ *http.Request) {
	text, err := s.text(s.Agent.State())
	answer(w, json.RawMessage(text), err)
}

func (s *server) findings(w http.ResponseWriter, _ *http.Request) {
	now := s.Agent.State()
	answer(w, struct {
		Schema   string          `json:"schema"`
		Run      string          `json:"run"`
		Seq      uint64          `json:"seq"`
		Findings []state.Finding `json:"findings"`
	}{now.Schema, now.Run, now.Seq, now.Findings}, nil)
}

func (s *server) connections(w http.ResponseWriter, r *http.Request) {
	q, err := queryOf(r.URL.RawQuery)
	if err != nil {
		answer(w, nil, err)
		return
	}
	found, err := inTurn(s, r, func() (state.Connections, error) { return s.Agent.Connections(r.Context(), q) })
	answer(w, found, err)
}

// inTurn answers a question about all sockets, which takes some hundred bytes for
// each of these: so many at a time, others wait until it is their turn.
func inTurn[T any](s *server, r *http.Request, ask func() (T, error)) (out T, err error) {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
		return ask()
	case <-r.Context().Done():
		return out, r.Context().Err()
	}
}

// queryOf reads the query of a URL: the names are those of [state.Query].
func queryOf(raw string) (q state.Query, err error) {
	v, err := values(raw, "peer", "process", "pid", "state", "netns", "sort", "reverse", "after", "most")
	if err != nil {
		return q, err
	}
	number := func(key string, bits int) (n int64) {
		if err == nil {
			n, err = numberOf(v, key, bits)
		}
		return n
	}
	q = state.Query{Peer: v.Get("peer"), Process: v.Get("process"), PID: int32(number("pid", 32)), State: v.Get("state"), Netns: uint32(number("netns", 33)),
		Sort: v.Get("sort"), After: int(number("after", 32)), Most: int(number("most", 32))}
	switch way := v.Get("reverse"); way {
	case "", "false":
	case "true":
		q.Reverse = true
	default:
		err = cmp.Or(err, fmt.Errorf("reverse=%q is neither true nor false", way))
	}
	return q, err
}

// numberOf reads a number from 0 of so many bits, the sign included; 0 where it is
// not there.
func numberOf(v url.Values, key string, bits int) (int64, error) {
	text := v.Get(key)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, bits)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s=%q is no number from 0", key, text)
	}
	return n, nil
}

// values reads a query that has nothing but these keys, each once.
func values(raw string, keys ...string) (url.Values, error) {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fmt.Errorf("the query cannot be read: %w", err)
	}
	for key := range v {
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("unknown key %q: take %v", key, keys)
		}
		if len(v[key]) > 1 {
			return nil, fmt.Errorf("%s is there %d times: give it once", key, len(v[key]))
		}
	}
	return v, nil
}

func (s *server) whatIf(w http.ResponseWriter, r *http.Request) {
	dead, netns, err := deadOf(r.URL.RawQuery)
	if err != nil {
		answer(w, nil, err)
		return
	}
	loss, err := inTurn(s, r, func() (state.Loss, error) { return s.Agent.WhatIf(r.Context(), dead, netns) })
	answer(w, loss, err)
}

// deadOf reads whose death is asked about, and for which namespace; 0 for all.
func deadOf(raw string) (dead netip.Prefix, netns uint32, err error) {
	v, err := values(raw, "peer", "netns")
	if err != nil {
		return dead, 0, err
	}
	n, err := numberOf(v, "netns", 33)
	if err != nil {
		return dead, 0, err
	}
	text := v.Get("peer")
	if text == "" {
		return dead, 0, errors.New("say who dies: ?peer=10.77.1.2, or a network")
	}
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.WithZone("").Unmap()
		return netip.PrefixFrom(a, a.BitLen()), uint32(n), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, 0, fmt.Errorf("peer=%q is no address and no network: take one such as 10.77.1.2 or 10.48.0.0/14", text)
	}
	return p.Masked(), uint32(n), nil
}
