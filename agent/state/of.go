package state

import (
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// FindingsOf is what [verdict.Lives.List] returned.
func FindingsOf(lives []verdict.Life) []Finding {
	list := make([]Finding, len(lives))
	for i, l := range lives {
		list[i] = Finding{Finding: l.Finding, ID: l.ID, First: l.First, Last: l.Last, Times: l.Times, Flapping: l.Flapping,
			Count: l.Count, Cause: l.Cause, Hides: l.Hides}
		if when, over := l.Resolved.Get(); over {
			list[i].Resolved = &when
		}
	}
	return list
}

// Looked says of a promise when it was last looked at and at what, in words. A
// zero At means that it could not be looked at, and What says why.
type Looked struct {
	At   time.Time
	What string
}

// PromisesOf says how it stands with the four. One that is not in looked was not
// looked at yet. What a cause hides does not count, but the promise is broken all
// the same: names do not resolve, whatever the reason.
func PromisesOf(findings []Finding, looked map[verdict.Promise]Looked) []Promise {
	var list []Promise
	for p := verdict.Names; p <= verdict.Leaks; p++ {
		l, known := looked[p]
		s := Promise{Promise: p, Status: Unknown, Summary: l.What}
		if !known {
			s.Summary = "not looked at yet"
		}
		if !l.At.IsZero() {
			s.Status, s.Looked = Kept, &l.At
		}
		worst, hidden := verdict.Info, false
		for i := range findings {
			f := &findings[i]
			if f.Promise != p || f.Resolved != nil {
				continue
			}
			if f.Cause == "" {
				s.Findings++
			}
			if f.Severity > worst || f.Severity == worst && hidden && f.Cause == "" {
				worst, hidden, s.Summary = f.Severity, f.Cause != "", f.Title
			}
		}
		switch worst {
		case verdict.Warn:
			s.Status = Warned
		case verdict.Fail:
			s.Status = Broken
		}
		list = append(list, s)
	}
	return list
}

// PeersOf is what [verdict.Peers] returned.
func PeersOf(peers []verdict.Peer) []Peer {
	list := make([]Peer, len(peers))
	for i := range peers {
		p := &peers[i]
		s := Peer{Peer: p.Addr.String(), Netns: p.Netns, Count: p.Count, Verdict: p.Verdict.String(), Unknown: p.Unknown, Processes: []Holder{}}
		if quiet, ok := p.Quiet.Get(); ok {
			ms := quiet.Milliseconds()
			s.QuietMS = &ms
		}
		since, _ := p.Evidence.Get("since")
		if text, ok := since.(string); ok && p.Verdict == verdict.Silent {
			if at, err := time.Parse(time.RFC3339, text); err == nil {
				s.Since = &at
			}
		}
		for _, h := range p.Processes[:min(len(p.Processes), 8)] {
			s.Processes = append(s.Processes, Holder(h))
		}
		s.Idle, s.Sending = knownBound(p.Idle), knownBound(p.Sending)
		s.Never = p.Idle.OK && p.Idle.Value.By == bound.None
		list[i] = s
	}
	return list
}

func knownBound(b fact.Known[bound.Bound]) *float64 {
	if !b.OK {
		return nil
	}
	return finite(b.Value)
}

func known(d fact.Known[time.Duration]) *float64 {
	if !d.OK {
		return nil
	}
	return seconds(d.Value)
}

// SitesOf is what [verdict.LeakWatch.Sites] returned. First and Over are of
// whoever remembers.
func SitesOf(sites []verdict.LeakSite) []Site {
	list := make([]Site, len(sites))
	for i := range sites {
		s := &sites[i]
		list[i] = Site{PID: s.PID, Process: s.Process, Container: s.Container, AskedBy: Call{s.AskedBy.Func, s.AskedBy.File, s.AskedBy.Line},
			OpenedAt: Call{s.OpenedAt.Func, s.OpenedAt.File, s.OpenedAt.Line}, Stack: []Call{}, Unknown: s.Unknown, Peer: s.Peer,
			Accepted: s.Accepted, Opened: s.Opened, Open: s.Open, Idle: known(s.Idle), Left: known(s.Left),
			Verdict: s.Verdict.String(), Diagnosis: s.Diagnosis, Over: []int{}}
		for _, c := range s.Stack {
			list[i].Stack = append(list[i].Stack, Call{c.Func, c.File, c.Line})
		}
		asked, opened := list[i].AskedBy, list[i].OpenedAt
		list[i].ID = fmt.Sprintf("%d %s:%d %s:%d %s accepted=%t", s.PID, asked.Function, asked.Line, opened.Function, opened.Line, s.Peer, s.Accepted)
	}
	return list
}

// LossOf is what [verdict.WhatIf] said of a peer, an address or a network.
func LossOf(peer string, l verdict.Loss) Loss {
	s := Loss{Peer: peer, Count: l.Count, Addresses: l.Addresses, Processes: []Stake{}, Idle: noticeOf(l.Idle),
		Sending: noticeOf(l.Sending), Unknown: l.Unknown}
	for _, p := range l.Processes {
		s.Processes = append(s.Processes, Stake{Holder(p.Holder), noticeOf(p.Idle), noticeOf(p.Sending)})
	}
	if l.Transit != nil {
		n := len(l.Transit)
		s.Transit = &n
	}
	return s
}

func noticeOf(n verdict.Notice) Notice { return Notice{known(n.First), known(n.Last), n.Never} }
