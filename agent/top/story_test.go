package top

import (
	"fmt"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// began is when the stories begin.
var began = time.Date(2026, 11, 20, 14, 5, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// story is a machine on which much goes wrong.
func story() *state.State {
	at := func(ago time.Duration) time.Time { return began.Add(-ago) }
	silent := state.Finding{ID: "S001 peer=10.77.1.2", First: at(10 * time.Second), Last: began, Times: 1, Count: 4224, Hides: 2,
		Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail,
			Title:    "10.77.1.2 is silent: 4,224 connections, nothing acknowledged for 3.2 s when it was noticed",
			Subject:  verdict.Values{{Key: "peer", V: "10.77.1.2"}, {Key: "count", V: 4224}},
			Evidence: verdict.Values{{Key: "unacknowledged_connections", V: 12}, {Key: "longest_silence_seconds", V: 13.2}, {Key: "poked", V: true}, {Key: "owner", V: nil}},
			Why:      "What was sent to it went unanswered. Programs that use these connections do not know it: writes succeed, reads wait. The kernel tells the last of them after 15 min 24 s.",
			Fix:      []string{"lifeline cut --peer 10.77.1.2 ends them now, so that programs connect again", "lifeline tune --peer 10.77.1.2 shortens the wait of those that stay"},
			Bound:    fact.Seen(924 * time.Second)}}
	hidden := state.Finding{ID: "C001 pid=811", First: at(8 * time.Second), Last: began, Times: 1, Count: 3, Cause: silent.ID,
		Finding: verdict.Finding{Code: "C001", Promise: verdict.Calls, Severity: verdict.Warn, Title: "worker (pid 811) waits for 3 answers of 10.77.1.2"}}
	leak := state.Finding{ID: "L004 pid=902", First: at(52 * time.Minute), Last: began, Times: 3, Count: 118, Flapping: true,
		Finding: verdict.Finding{Code: "L004", Promise: verdict.Leaks, Severity: verdict.Warn, Title: "drone-agent (pid 902) leaves sockets open: 118 to /var/run/docker.sock, opened in runner.(*Client).Dial (client.go:88)",
			Subject: verdict.Values{{Key: "pid", V: 902}, {Key: "peer", V: "/var/run/docker.sock"}}, Why: "They are idle since they were used once."}}
	over := state.Finding{ID: "N003", First: at(30 * time.Minute), Last: at(25 * time.Minute), Resolved: ptr(at(25 * time.Minute)), Times: 1,
		Finding: verdict.Finding{Code: "N003", Promise: verdict.Names, Severity: verdict.Fail, Title: "nameserver 10.0.0.53 does not answer"}}
	s := &state.State{Schema: "lifeline/v1", Host: "web-3", Time: began, Run: "A", Seq: 7, Agent: state.Agent{Version: "v0.8.0", PID: 99},
		Findings: []state.Finding{silent, hidden, leak, over},
		Totals:   state.Totals{Sockets: 4813, Processes: 52, Peers: 4, Sites: 2, Looked: at(3 * time.Second)},
		Blind:    []state.Blind{{Source: "owners", Error: "the sockets of 3 processes were not seen", Needs: ptr("CAP_SYS_PTRACE")}}}
	s.Promises = []state.Promise{{Promise: verdict.Names, Status: state.Kept, Summary: "2 nameservers asked", Looked: ptr(at(time.Second))},
		{Promise: verdict.Calls, Status: state.Warned, Summary: hidden.Title, Looked: ptr(at(time.Second))},
		{Promise: verdict.Silence, Status: state.Broken, Findings: 1, Summary: silent.Title, Looked: ptr(began)},
		{Promise: verdict.Leaks, Status: state.Unknown, Summary: "could not be looked at: BPF: operation not permitted"}}
	s.Peers = []state.Peer{
		{Peer: "10.77.1.2", Netns: 4026531840, Count: 4224, Verdict: "silent", Since: ptr(at(10 * time.Second)), QuietMS: ptr(int64(13200)),
			Processes: []state.Holder{{PID: 811, Name: "worker", Count: 4200}, {PID: 812, Name: "worker", Count: 24}}, Idle: ptr(150.0), Sending: ptr(924.6)},
		{Peer: "10.0.3.7", Netns: 4026531840, Count: 31, Verdict: "alive", QuietMS: ptr(int64(40)), Processes: []state.Holder{{PID: 77, Name: "postgres", Count: 31}}, Never: true, Sending: ptr(924.6)},
		{Peer: "2001:db8:85a3::8a2e:370:7334", Netns: 4026531840, Count: 2, Verdict: "unsure", Processes: []state.Holder{{PID: 4, Name: "curl", Count: 1}, {Count: 1}}},
		{Peer: "10.0.0.53", Netns: 4026531840, Count: 1, Verdict: "alive", QuietMS: ptr(int64(2)), Processes: []state.Holder{{PID: 5, Name: "unbound", Count: 1}}, Idle: ptr(75.0), Sending: ptr(30.0)}}
	s.Leaks = []state.Site{{ID: "902 x", PID: 902, Process: "drone-agent", AskedBy: state.Call{Function: "runner.(*Client).Dial", File: "/src/runner/client.go", Line: 88},
		Stack: []state.Call{{Function: "net.(*Dialer).DialContext", File: "net/dial.go", Line: 500}, {Function: "runner.(*Client).Dial", File: "/src/runner/client.go", Line: 88}},
		Peer:  "/var/run/docker.sock", Opened: 130, Open: 118, Idle: ptr(3000.0), Left: ptr(7200.0), Verdict: "suspect", Diagnosis: "Each is used once and then idle: the client that has it is never closed.",
		First: at(time.Hour), Over: []int{2, 4, 8, 16, 30, 44, 61, 77, 90, 104, 118}},
		{ID: "77 y", PID: 77, Process: "postgres", Peer: "10.0.3.7", Accepted: true, Opened: 31, Open: 31, Verdict: "healthy", Over: []int{31, 31}}}
	s.Names = &state.Names{Servers: []state.Nameserver{{Address: "10.0.0.53", Way: "eth0 by 10.0.0.1", OK: ptr(true), MS: ptr(2.13)}, {Address: "10.9.9.9", Way: "no route", OK: ptr(false), Error: "no answer within 2 s"}},
		Names:    []state.Name{{Name: "db.internal", Ways: []state.Way{{Way: "go", Error: "no such host", MS: 12}, {Way: "getaddrinfo", OK: true, Addresses: []string{"10.0.3.7"}, MS: 3}}}},
		Programs: []state.Resolver{{Resolver: "go", Count: 4, Fails: ptr(1), Examples: []string{"kubectl"}}}, Config: []state.Setting{{Source: "/etc/resolv.conf", Text: "nameserver 10.0.0.53 10.9.9.9; search internal"}}}
	s.Calls = []state.Waiting{{PID: 811, Process: "worker", Peer: "10.77.1.2", Count: 3, Since: 8.5, Acknowledged: false, Goroutines: []string{"goroutine 33 in net/http.(*persistConn).roundTrip for 8.5 s"}}}
	s.Sources = []state.Source{{Name: "peers", Every: 10, Last: ptr(at(time.Second))}, {Name: "census", Every: 10, Last: ptr(at(3 * time.Second)), Took: ptr(0.041)},
		{Name: "names", Every: 60, Last: ptr(at(40 * time.Second)), Took: ptr(1.2), Late: true, Error: "under way for 40 s: it is not asked again before it returns"},
		{Name: "leaks", Every: 60, Error: "BPF: operation not permitted"}}
	return s
}

// well is a machine on which nothing is wrong.
func well() *state.State {
	s := &state.State{Schema: "lifeline/v1", Host: "web-4", Time: began, Run: "B", Seq: 1, Totals: state.Totals{Sockets: 210, Processes: 12, Looked: began}}
	for p := verdict.Names; p <= verdict.Leaks; p++ {
		s.Promises = append(s.Promises, state.Promise{Promise: p, Status: state.Kept, Summary: "looked at", Looked: ptr(began)})
	}
	return s
}

// many connections that the story has.
const connections = 4258

// answer is what the machine of the story says.
func answer(a Ask) *Answer {
	out := &Answer{ID: a.ID}
	switch {
	case a.Connections != nil:
		q := a.Connections
		out.Connections.Time, out.Connections.Total = began.Add(-3*time.Second), connections
		if q.Peer != "" || q.PID != 0 {
			out.Connections.Total = 30
		}
		if q.Process == "nobody" {
			out.Connections.Total = 0
		}
		for i := q.After; i < min(q.After+q.Most, out.Connections.Total); i++ {
			out.Connections.List = append(out.Connections.List, state.Connection{Cookie: uint64(i + 1), Protocol: "tcp", State: "ESTABLISHED", Local: fmt.Sprintf("10.0.0.9:%d", 30000+i),
				Remote: "10.77.1.2:8080", Netns: 1, Process: state.Holder{PID: 811, Name: "worker", Count: 1}, HeardMS: ptr(int64(13200)), RTTMS: ptr(0.25), Send: 120, Idle: ptr(150.0), Sending: ptr(924.6), ByIdle: "keepalive"})
		}
	case a.WhatIf != "":
		n := state.Notice{First: ptr(110.0), Last: ptr(150.0), Never: 3}
		sending := state.Notice{First: ptr(924.6), Last: ptr(924.6)}
		out.Loss = state.Loss{Peer: a.WhatIf, Count: 4224, Processes: []state.Stake{{Holder: state.Holder{PID: 811, Name: "worker", Count: 4200}, Idle: n, Sending: sending},
			{Holder: state.Holder{PID: 812, Name: "worker", Count: 24}, Idle: state.Notice{First: ptr(140.0), Last: ptr(150.0)}, Sending: sending}}, Idle: n, Sending: sending, Transit: ptr(7)}
	case a.Past != nil:
		out.Span = state.Span{First: ptr(began.Add(-72 * time.Hour)), Last: ptr(began), Records: 25920, Bytes: 3 << 20}
		for i := range 240 {
			p := state.Point{Time: a.Past.From.Add(time.Duration(i) * a.Past.To.Sub(a.Past.From) / 240)}
			if i < 60 || i > 80 {
				p.Count = ptr(float64(4000 + i%7))
			}
			if i > 200 {
				p.Count = ptr(12.0)
			}
			out.Points = append(out.Points, p)
		}
		out.Findings = []state.PastFinding{{ID: "S001 peer=10.77.1.2", Code: "S001", Severity: "fail", Title: "10.77.1.2 is silent: 4,224 connections", First: began.Add(-2 * time.Hour), Last: began.Add(-110 * time.Minute), Resolved: ptr(began.Add(-110 * time.Minute))},
			{ID: "L004 pid=902", Code: "L004", Severity: "warn", Title: "drone-agent (pid 902) leaves sockets open", First: began.Add(-52 * time.Minute), Last: began}}
	case a.Difference != nil:
		out.Difference = state.Difference{Before: 4300, After: 80, Same: 12, Went: []state.Change{{Peer: "10.77.1.2", From: 4224, Programs: []string{"worker"}}}, Came: []state.Change{{Peer: "10.77.1.3", To: 4, Programs: []string{"worker", "curl"}}}}
	}
	return out
}
