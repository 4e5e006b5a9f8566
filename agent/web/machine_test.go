package web

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
)

// machine is an agent on a machine that does not exist: its promises are broken in
// every way that the page shows, and it has so many connections.
type machine struct {
	*agent
	connections []state.Connection
}

func some[T any](v T) *T { return &v }

// programs of the machine, the service each speaks with, and the share of the
// connections that it has.
var programs = []struct {
	name, unit, port, network string
	share, peers              int
	idle                      *float64
}{
	{"ingress-nginx", "ingress.service", ":443", "198.51.100.", 40, 200, some(75.0)},
	{"chat-server", "chat.service", ":8080", "10.48.2.", 26, 90, nil},
	{"orders", "orders.service", ">5432", "10.48.9.", 14, 6, some(165.0)},
	{"payments", "payments.service", ">443", "203.0.113.", 10, 40, some(20.0)},
	{"drone-runner", "drone.service", ">2375", "10.48.12.", 6, 3, some(7875.0)},
	{"telemetry", "", ">4317", "10.48.20.", 4, 12, some(45.0)},
}

const silentPeer = "10.77.1.2"

func newMachine(sockets int) *machine {
	m := &machine{agent: newAgent()}
	now := time.Now().UTC().Truncate(time.Second)
	s := &state.State{Schema: schema, Host: "node-a.example", Time: now, Run: "RUN1", Seq: 7, Names: namesOf(now), Blind: []state.Blind{}, Acts: []state.Act{}}
	s.Agent = state.Agent{Version: "v1.0.0", PID: 812, Started: now.Add(-26 * time.Hour), Profile: "observe", History: "/var/lib/lifeline/history.db", CPU: some(0.0083), Resident: some(uint64(42 << 20)), Policy: state.Policy{Acts: []string{}},
		ByHand: []state.ByHand{{Act: "cut", On: []string{}, Why: "the policy does not allow to cut on a finding: it takes acts: cut: {on: [S001]} in the file of --policy"}}}
	peers := make(map[string]*state.Peer)
	add := func(program int, peer, verdict string) {
		p := &programs[program]
		i := len(m.connections)
		c := state.Connection{Cookie: uint64(i + 1), Protocol: "tcp", State: "ESTABLISHED", Local: fmt.Sprintf("10.48.0.7:%d", 20000+i%40000), Remote: peer + ":" + p.port[1:],
			Process: state.Holder{PID: int32(4000 + program), Name: p.name, Count: 1}, HeardMS: some(int64(i * 7919 % 900_000)), RTTMS: some(0.4 + float64(i%50)/10),
			Send: uint32(i % 7 * 512), Idle: p.idle, Sending: some(928.9), Never: p.idle == nil, ByIdle: map[bool]string{true: "none", false: "keepalive"}[p.idle == nil]}
		m.connections = append(m.connections, c)
		if peers[peer] == nil {
			peers[peer] = &state.Peer{Peer: peer, Verdict: verdict, Processes: []state.Holder{{PID: c.Process.PID, Name: p.name}}, Idle: p.idle, Sending: c.Sending, Never: c.Never, QuietMS: c.HeardMS}
		}
		peers[peer].Count++
		peers[peer].Processes[0].Count++
	}
	for range sockets / 5 {
		add(1, silentPeer, "silent")
	}
	for i := range sockets - sockets/5 {
		program, share := 0, i%100
		for share >= programs[program].share {
			share -= programs[program].share
			program++
		}
		add(program, fmt.Sprintf("%s%d", programs[program].network, 1+i%programs[program].peers), "alive")
	}
	for _, p := range peers {
		if p.Peer == "10.48.9.3" {
			p.Verdict = "unsure"
		}
		s.Peers = append(s.Peers, *p)
	}
	slices.SortFunc(s.Peers, func(a, b state.Peer) int {
		rank := func(p state.Peer) int { return strings.Index("silent unsure alive", p.Verdict) }
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Peer, b.Peer))
	})
	s.Peers[0].Since = some(now.Add(-90 * time.Second))
	s.Links = linksOf(s.Peers)
	s.Leaks, s.Calls, s.Findings, s.Sources = leaksOf(now), callsOf(), findingsOn(now, sockets/5), sourcesOf(now)
	s.Promises = []state.Promise{
		{Promise: verdict.Names, Status: state.Warned, Findings: 1, Summary: "10.0.0.53 did not answer one question", Looked: some(now.Add(-31 * time.Second))},
		{Promise: verdict.Calls, Status: state.Kept, Summary: "no call known to wait among those of 41 processes", Looked: &now},
		{Promise: verdict.Silence, Status: state.Broken, Findings: 1, Summary: s.Findings[0].Title, Looked: &now},
		{Promise: verdict.Leaks, Status: state.Broken, Findings: 1, Summary: s.Findings[1].Title, Looked: &now},
	}
	s.Totals = state.Totals{Sockets: sockets, Families: map[string]int{"ipv4": sockets}, TCP: map[string]int{"ESTABLISHED": sockets}, Processes: 41, Namespaces: 12,
		Peers: len(peers), Links: len(peers) + 4, Sites: 40, Opened: some(512.4), Resets: some(0.2), Resent: some(1.5), Conntrack: some(0.0312), Files: some(0.21), Looked: now, Took: 0.084}
	m.now = s
	return m
}

func linksOf(peers []state.Peer) (links []state.Link) {
	for i := range peers {
		p := &peers[i]
		at := int(p.Processes[0].PID - 4000)
		links = append(links, state.Link{From: state.End{Name: programs[at].name, Unit: programs[at].unit, Processes: 1 + at%3}, To: state.End{Name: p.Peer}, Port: programs[at].port,
			Protocol: "tcp", Count: p.Count, Verdict: p.Verdict, Idle: p.Idle, Sending: p.Sending, Never: p.Never})
	}
	for _, here := range [][2]string{{"ingress-nginx", "chat-server"}, {"ingress-nginx", "orders"}, {"chat-server", "redis"}, {"orders", "payments"}} {
		at := func(name string) state.End {
			for i := range programs {
				if programs[i].name == name {
					return state.End{Name: name, Unit: programs[i].unit, Processes: 1 + i%3}
				}
			}
			return state.End{Name: name, Unit: name + ".service", Processes: 1}
		}
		links = append(links, state.Link{From: at(here[0]), To: at(here[1]), Port: ":8080", Protocol: "tcp", Count: 160, Verdict: "alive", Here: true})
	}
	return state.Fold(links, 0)
}

func findingsOn(now time.Time, silent int) []state.Finding {
	find := func(code string, promise verdict.Promise, severity verdict.Severity, title string, subject, evidence verdict.Values) state.Finding {
		at := slices.IndexFunc(verdict.Rules, func(r verdict.Rule) bool { return r.Code == code })
		var fix []string
		for _, line := range verdict.Rules[at].Fix {
			fix = append(fix, strings.ReplaceAll(line, "PEER", silentPeer))
		}
		why, _, _ := strings.Cut(verdict.Rules[at].Meaning, ". ")
		return state.Finding{Finding: verdict.Finding{Code: code, Promise: promise, Severity: severity, Title: title, Subject: subject, Evidence: evidence, Why: why + ".", Fix: fix},
			ID: code + " " + title, First: now.Add(-90 * time.Second), Last: now, Times: 1}
	}
	list := []state.Finding{
		find("S001", verdict.Silence, verdict.Fail, fmt.Sprintf("%s is silent: %s connections, nothing heard for 90 s", silentPeer, verdict.Number(silent)),
			verdict.Values{{Key: "peer", V: silentPeer}, {Key: "process", V: "chat-server"}}, verdict.Values{{Key: "unanswered_exchanges", V: 40}, {Key: "quiet_seconds", V: 90.4}, {Key: "unacknowledged_bytes", V: 18432}}),
		find("L004", verdict.Leaks, verdict.Fail, "drone-runner opens sockets and does not close them: 1,204 of 1,204 open, 2 for each build",
			verdict.Values{{Key: "pid", V: 4004}, {Key: "process", V: "drone-runner"}}, verdict.Values{{Key: "open", V: 1204}, {Key: "growth_per_minute", V: 2.1}}),
		find("N003", verdict.Names, verdict.Warn, "10.0.0.53 did not answer one question within 2 s", nil, verdict.Values{{Key: "server", V: "10.0.0.53"}}),
		find("S002", verdict.Silence, verdict.Info, "280 connections to 10.48.9.3 would be silent for up to 165 s (15 min 29 s while sending)", verdict.Values{{Key: "peer", V: "10.48.9.3"}}, nil),
		find("C001", verdict.Calls, verdict.Warn, "chat-server waits for 12 answers of "+silentPeer, verdict.Values{{Key: "peer", V: silentPeer}}, nil),
		find("N001", verdict.Names, verdict.Fail, "the first nameserver could not be reached", nil, nil),
	}
	list[0].Count, list[0].Hides, list[0].Bound = silent, 1, fact.Seen(930*time.Second)
	list[4].Cause = list[0].ID
	list[5].Resolved = some(now.Add(-10 * time.Minute))
	return list
}

func leaksOf(now time.Time) (list []state.Site) {
	for i := range 40 {
		s := state.Site{ID: fmt.Sprint("site", i), PID: int32(4000 + i%6), Process: programs[i%6].name, OpenedAt: state.Call{Function: "net.(*Dialer).DialContext", File: "net/dial.go", Line: 512},
			AskedBy: state.Call{Function: fmt.Sprintf("example.com/%s/client.(*Pool).dial%d", programs[i%6].name, i), File: "example.com/client/pool.go", Line: 40 + i},
			Peer:    "10.48.12.1:2375", Open: 3 + i%4, Opened: 900 + i, Idle: some(12.5), Verdict: "healthy", First: now.Add(-50 * time.Minute)}
		for minute := range 50 {
			s.Over = append(s.Over, 3+(minute*(i+3))%4)
		}
		s.Stack = []state.Call{{Function: "syscall.connect", File: "syscall/zsyscall_linux_amd64.go", Line: 1422}, s.OpenedAt, s.AskedBy, {Function: "main.main", File: "example.com/main.go", Line: 31}}
		if i < 2 {
			s.Process, s.PID, s.Verdict = "drone-runner", 4004, []string{"leak", "suspect"}[i]
			s.AskedBy = state.Call{Function: "github.com/drone/drone-runtime/engine/docker.NewEnv", File: "github.com/drone/drone-runtime/engine/docker/docker.go", Line: 42 + i}
			s.Stack[2], s.Open, s.Opened = s.AskedBy, 1204-800*i, 1204-700*i
			s.Diagnosis = "A client is made for each build and never closed: each leaves its idle connections behind."
			for minute := range s.Over {
				s.Over[minute] = (1100 + 2*minute) / (1 + 2*i)
			}
		}
		list = append(list, s)
	}
	return list
}

func callsOf() []state.Waiting {
	return []state.Waiting{
		{PID: 4001, Process: "chat-server", Peer: silentPeer + ":9000", Count: 12, Since: 88, Acknowledged: false, Goroutines: []string{"goroutine 41 [IO wait, 1 minute]: chat.(*hub).read"}},
		{PID: 4003, Process: "payments", Peer: "203.0.113.9:443", Count: 1, Since: 2.4, Acknowledged: true},
	}
}

func namesOf(now time.Time) *state.Names {
	return &state.Names{Time: now.Add(-31 * time.Second),
		Config: []state.Setting{{Source: "/etc/resolv.conf", Text: "nameserver 10.0.0.53, nameserver 10.0.0.54, search example.com, ndots:5"}, {Source: "/etc/nsswitch.conf", Text: "hosts: files dns"}},
		Servers: []state.Nameserver{{Address: "10.0.0.53", Way: "eth0 via 10.0.0.1", OK: some(false), Error: "no answer within 2 s"},
			{Address: "10.0.0.54", Way: "eth0 via 10.0.0.1", OK: some(true), MS: some(1.3)}, {Address: "10.8.0.1", Way: "tun0"}},
		Names:    []state.Name{{Name: "db.example.com", Ways: []state.Way{{Way: "the operating system", OK: true, Addresses: []string{"10.48.9.3"}, MS: 1.4}, {Way: "Go's own resolver", Error: "i/o timeout", MS: 10012}}}},
		Programs: []state.Resolver{{Resolver: "go", Count: 14, Fails: some(2), Examples: []string{"kubectl", "orders"}}, {Resolver: "system", Count: 25, Fails: some(0)}, {Resolver: "unknown", Count: 2}}}
}

func sourcesOf(now time.Time) []state.Source {
	return []state.Source{{Name: "peers", Every: 1, Last: &now, Took: some(0.004)}, {Name: "census", Every: 10, Last: &now, Took: some(0.084)},
		{Name: "names", Every: 60, Last: some(now.Add(-31 * time.Second)), Took: some(2.01), Late: true, Error: "10.0.0.53 does not answer"}, {Name: "leaks", Every: 10, Last: &now, Took: some(0.02)},
		{Name: "calls", Every: 10, Off: "policy"}}
}

// Connections answers as the daemon does, of what the machine has.
func (m *machine) Connections(_ context.Context, q state.Query) (state.Connections, error) {
	found := state.Connections{Time: m.State().Time, List: []state.Connection{}}
	for i := range m.connections {
		c := &m.connections[i]
		if (q.Peer == "" || strings.HasPrefix(c.Remote, q.Peer+":")) && (q.Process == "" || c.Process.Name == q.Process) {
			found.List = append(found.List, *c)
		}
	}
	found.Total = len(found.List)
	slices.SortStableFunc(found.List, func(a, b state.Connection) int {
		if q.Reverse {
			a, b = b, a
		}
		if q.Sort == "idle" {
			return cmp.Compare(*b.HeardMS, *a.HeardMS)
		}
		return cmp.Compare(a.Remote, b.Remote)
	})
	after := min(q.After, found.Total)
	found.List = found.List[after:min(after+cmp.Or(q.Most, 100), found.Total)]
	return found, nil
}

func (m *machine) WhatIf(_ context.Context, dead netip.Prefix, netns uint32) (state.Loss, error) {
	loss := state.Loss{Netns: netns, Peer: dead.Addr().String(), Addresses: 1, Processes: []state.Stake{}, Transit: some(0)}
	for i := range m.connections {
		c := &m.connections[i]
		if a, err := netip.ParseAddrPort(c.Remote); err != nil || !dead.Contains(a.Addr()) {
			continue
		}
		loss.Count++
		at := slices.IndexFunc(loss.Processes, func(s state.Stake) bool { return s.PID == c.Process.PID })
		if at < 0 {
			at = len(loss.Processes)
			loss.Processes = append(loss.Processes, state.Stake{Holder: state.Holder{PID: c.Process.PID, Name: c.Process.Name}})
		}
		p := &loss.Processes[at]
		p.Count++
		for _, n := range []*state.Notice{&p.Idle, &loss.Idle} {
			if n.First = c.Idle; c.Never {
				n.Never++
			}
			n.Last = c.Idle
		}
		p.Sending = state.Notice{First: c.Sending, Last: c.Sending}
		loss.Sending = p.Sending
	}
	return loss, nil
}
