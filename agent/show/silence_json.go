package show

import (
	"io"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// peerJSON is verdict.Peer in JSON.
type peerJSON struct {
	Peer         string           `json:"peer"`
	Netns        uint32           `json:"netns"`
	Interface    *uint32          `json:"interface,omitempty"` // of a link-local address
	Count        int              `json:"count"`
	Processes    []holder         `json:"processes"`
	Verdict      verdict.Liveness `json:"verdict"`
	QuietMS      *int64           `json:"quiet_ms"` // null when it was never heard
	Idle         any              `json:"bound_idle_seconds"`
	Sending      any              `json:"bound_sending_seconds"`
	IdleNever    bool             `json:"bound_idle_never"`
	SendingNever bool             `json:"bound_sending_never"`
	Unknown      int              `json:"bound_unknown"`
	First        any              `json:"first_notice_seconds"`
	Last         any              `json:"last_notice_seconds"`
	Never        bool             `json:"notice_never"`
	Evidence     verdict.Values   `json:"evidence"`
}

func peerOf(p *verdict.Peer) peerJSON {
	j := peerJSON{Peer: p.Addr.String(), Netns: p.Netns, Count: p.Count, Processes: []holder{}, Verdict: p.Verdict,
		Idle: boundJSON(p.Idle), Sending: boundJSON(p.Sending), IdleNever: p.Idle.OK && p.Idle.Value.Never(),
		SendingNever: p.Sending.OK && p.Sending.Value.Never(), Unknown: p.Unknown,
		First: secondsJSON(p.First), Last: secondsJSON(p.Last), Never: p.Never, Evidence: p.Evidence}
	if p.Interface != 0 {
		j.Interface = &p.Interface
	}
	for i := range p.Processes {
		j.Processes = append(j.Processes, holderOf(&p.Processes[i]))
	}
	if quiet, ok := p.Quiet.Get(); ok {
		ms := quiet.Milliseconds()
		j.QuietMS = &ms
	}
	if j.Evidence == nil {
		j.Evidence = verdict.Values{}
	}
	return j
}

func holderOf(h *verdict.Holder) holder {
	j := holder{Name: h.Name, Count: h.Count}
	if h.PID != 0 {
		j.PID = &h.PID
	}
	return j
}

func boundJSON(b fact.Known[bound.Bound]) any {
	if !b.OK || b.Value.Never() {
		return nil
	}
	return seconds(b.Value.After)
}

func secondsJSON(d fact.Known[time.Duration]) any {
	if !d.OK {
		return nil
	}
	return seconds(d.Value)
}

// flowJSON is verdict.Transit in JSON.
type flowJSON struct {
	Netns       uint32  `json:"netns"`
	Protocol    string  `json:"protocol"`
	State       string  `json:"state"`
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	ReplySource string  `json:"reply_source"`
	ReplyTo     string  `json:"reply_to"`
	Timeout     float64 `json:"timeout_seconds"`
}

// flowsOf is nil, and null in JSON, where no table was read.
func flowsOf(flows []verdict.Transit) []flowJSON {
	if flows == nil {
		return nil
	}
	list := make([]flowJSON, len(flows))
	for i := range flows {
		f := &flows[i]
		list[i] = flowJSON{f.Netns, f.Protocol.String(), f.State, f.Source.String(), f.Destination.String(),
			f.ReplySource.String(), f.ReplyTo.String(), seconds(f.Timeout)}
	}
	return list
}

// SilenceJSON writes the peers and the flows that are forwarded as one document.
func SilenceJSON(w io.Writer, m *fact.Machine, peers []verdict.Peer, transit []verdict.Transit, top int) error {
	d := struct {
		Head
		Peers   []peerJSON `json:"peers"`
		Total   int        `json:"total"` // peers, of which --top may leave some out
		Transit []flowJSON `json:"transit"`
	}{head(m), []peerJSON{}, len(peers), flowsOf(transit)}
	for i := range peers {
		if top > 0 && i == top {
			break
		}
		d.Peers = append(d.Peers, peerOf(&peers[i]))
	}
	return encode(w, d, false)
}

// noticeJSON is verdict.Notice in JSON.
type noticeJSON struct {
	First any `json:"first_seconds"`
	Last  any `json:"last_seconds"` // of those that are told
	Never int `json:"never"`        // connections that are not
}

func noticeOf(n *verdict.Notice) noticeJSON {
	return noticeJSON{secondsJSON(n.First), secondsJSON(n.Last), n.Never}
}

type stakeJSON struct {
	holder
	Idle    noticeJSON `json:"idle"`
	Sending noticeJSON `json:"sending"`
}

// WhatIfJSON writes what the death of a peer would do as one document.
func WhatIfJSON(w io.Writer, m *fact.Machine, peer string, l *verdict.Loss) error {
	d := struct {
		Head
		Peer      string      `json:"peer"`
		Count     int         `json:"count"`
		Addresses int         `json:"addresses"`
		Processes []stakeJSON `json:"processes"`
		Idle      noticeJSON  `json:"idle"`
		Sending   noticeJSON  `json:"sending"`
		Unknown   int         `json:"bound_unknown"`
		Transit   []flowJSON  `json:"transit"`
	}{head(m), peer, l.Count, l.Addresses, []stakeJSON{}, noticeOf(&l.Idle), noticeOf(&l.Sending), l.Unknown, flowsOf(l.Transit)}
	for i := range l.Processes {
		s := &l.Processes[i]
		d.Processes = append(d.Processes, stakeJSON{holderOf(&s.Holder), noticeOf(&s.Idle), noticeOf(&s.Sending)})
	}
	return encode(w, d, false)
}

// ChangesJSON writes the verdicts that fell or were lifted in one look as one
// document on one line. silent_seconds is how long a verdict that was lifted
// lasted, null for one that fell.
func ChangesJSON(w io.Writer, m *fact.Machine, changes []verdict.Change) error {
	type change struct {
		peerJSON
		Silent any `json:"silent_seconds"`
	}
	d := struct {
		Head
		Peers []change `json:"peers"`
	}{head(m), []change{}}
	for i := range changes {
		c := change{peerJSON: peerOf(&changes[i].Peer)}
		if changes[i].Verdict != verdict.Silent {
			c.Silent = seconds(changes[i].Silent)
		}
		d.Peers = append(d.Peers, c)
	}
	return encode(w, d, true)
}
