package state

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

func tcp(local, remote string, pid int32) fact.Socket {
	s := fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Established, Netns: 1, Local: netip.MustParseAddrPort(local),
		Remote: netip.MustParseAddrPort(remote), Conn: &fact.Conn{}, Options: fact.Seen(bound.Options{KeepAlive: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9})}
	if pid != 0 {
		s.Owners = []fact.Owner{{PID: pid}}
	}
	return s
}

func listen(local string) fact.Socket {
	return fact.Socket{Protocol: fact.TCP, Family: fact.IPv4, State: fact.Listen, Netns: 1, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort("0.0.0.0:0")}
}

func unix(inode, peer uint32, path string, pid int32) fact.Socket {
	return fact.Socket{Protocol: fact.UnixStream, Family: fact.Unix, State: fact.Established, Netns: 1, Inode: inode, PeerInode: peer, Path: path, Owners: []fact.Owner{{PID: pid}}}
}

func machine(sockets ...fact.Socket) *fact.Machine {
	return &fact.Machine{Time: time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC), Sockets: sockets,
		Namespaces: []fact.Namespace{{Inode: 1, Own: true, Sysctl: fact.Seen(bound.Sysctl{})}},
		Processes:  []fact.Process{{PID: 7, Name: "app"}, {PID: 8, Name: "app"}, {PID: 9, Name: "db", Unit: "db.service"}, {PID: 10, Name: "agent", Container: "3f1c9a"}}}
}

func lines(links []Link) string {
	var b strings.Builder
	for _, l := range links {
		fmt.Fprintf(&b, "%s/%d -> %s/%d %s %s %d %s here=%t\n", l.From.Name, l.From.Processes, l.To.Name, l.To.Processes, l.Port, l.Protocol, l.Count, l.Verdict, l.Here)
	}
	return b.String()
}

func TestLinksOf(t *testing.T) {
	gone := tcp("10.0.0.1:5000", "10.0.0.9:443", 7)
	gone.State = fact.TimeWait
	m := machine(
		listen("0.0.0.0:5432"),
		tcp("10.0.0.1:4000", "10.0.0.5:443", 7), tcp("10.0.0.1:4001", "10.0.0.5:443", 8), gone,
		tcp("10.0.0.1:5432", "10.0.0.6:999", 9), tcp("10.0.0.1:5432", "10.0.0.6:1000", 0),
		tcp("127.0.0.1:4002", "127.0.0.1:5432", 7), tcp("127.0.0.1:5432", "127.0.0.1:4002", 9),
		unix(1, 2, "", 10), unix(2, 1, "/run/db.sock", 9), unix(5, 77, "", 10),
	)
	want := `app/2 -> 10.0.0.5/0 >443 tcp 2 alive here=false
(no process)/0 -> 10.0.0.6/0 :5432 tcp 1 alive here=false
agent/1 -> (unknown)/0  unix 1 alive here=true
agent/1 -> db/1 /run/db.sock unix 1 alive here=true
app/2 -> db/1 :5432 tcp 1 alive here=true
db/1 -> 10.0.0.6/0 :5432 tcp 1 alive here=false
`
	links := LinksOf(m, verdict.Peers(m))
	if got := lines(links); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if l := links[0]; l.Idle == nil || *l.Idle != 150 || l.Never || l.From.PID != 0 {
		t.Errorf("%+v", l)
	}
	if l := links[3]; l.From.PID != 10 || l.From.Container != "3f1c9a" || l.To.Unit != "db.service" || l.Idle != nil {
		t.Errorf("%+v", l)
	}
	m.Sockets[1].Options.OK, m.Sockets[2].Options.Value.KeepAlive = false, false
	if l := LinksOf(m, verdict.Peers(m))[0]; l.Idle != nil || !l.Never {
		t.Errorf("keepalive is off on one and unknown of another: %+v", l)
	}
	if got := LinksOf(nil, nil); got == nil || len(got) != 0 {
		t.Error("no machine has no links")
	}
}

// TestLinksOfSilent has a peer with 30 connections that answers on none.
func TestLinksOfSilent(t *testing.T) {
	m := machine()
	for i := range 30 {
		s := tcp(fmt.Sprintf("10.0.0.1:%d", 4000+i), "10.0.0.5:443", 7)
		s.Conn.LastAck, s.Conn.LastReceived, s.Conn.LastSent = 12*time.Second, 12*time.Second, 11*time.Second
		s.Conn.Unacked, s.Conn.Retransmits, s.Conn.RTO, s.Conn.Backoff = 1, 5, 6400*time.Millisecond, 5
		s.Timer, s.TimerLeft = fact.TimerResend, time.Second
		m.Sockets = append(m.Sockets, s)
	}
	if l := LinksOf(m, verdict.Peers(m)); len(l) != 1 || l[0].Verdict != "silent" || l[0].Unacked != 30 {
		t.Errorf("%+v", l)
	}
}

// busy has 20,000 connections with 10,000 peers.
func busy() *fact.Machine {
	m := machine()
	for i := range 100 {
		m.Processes = append(m.Processes, fact.Process{PID: int32(100 + i), Name: fmt.Sprintf("p%d", i)})
	}
	for i := range 20_000 {
		n := i % 10_000
		m.Sockets = append(m.Sockets, tcp(fmt.Sprintf("10.0.0.1:%d", 20000+i), fmt.Sprintf("10.%d.%d.5:443", 1+n/250, n%250), int32(100+i%100)))
	}
	return m
}

func TestLinksOfBusy(t *testing.T) {
	links := LinksOf(busy(), nil)
	folded := Fold(links, 0)
	if total(links) != 20_000 || total(folded) != 20_000 || len(folded) > MostLinks {
		t.Errorf("%d links of %d, folded %d of %d", len(links), total(links), len(folded), total(folded))
	}
}

func total(links []Link) (n int) {
	for i := range links {
		n += links[i].Count
	}
	return n
}

func TestFold(t *testing.T) {
	var links []Link
	for i := range 100 {
		links = append(links, Link{From: End{Name: "app", PID: 7, Processes: 1}, To: End{Name: fmt.Sprintf("10.0.%d.%d", i/50, i)}, Port: ">443",
			Netns: 1, Protocol: "tcp", Count: 100 - i, Verdict: "alive", Idle: seconds(time.Duration(i) * time.Second)})
	}
	links[99].Verdict, links[60].Never = "silent", true
	got := Fold(links, 10)
	if len(got) != 7 || total(got) != total(links) {
		t.Fatalf("%d links, %d connections:\n%s", len(got), total(got), lines(got))
	}
	if l := got[1]; l.To.Name != "10.0.1.0/24" || l.To.Folded != 50 || l.Verdict != "silent" || !l.Never || *l.Idle != 99 || l.Port != ">443" || l.From.PID != 7 {
		t.Errorf("%+v", l)
	}
	for i := range links {
		links[i].To.Name = fmt.Sprintf("10.0.%d.1", i)
	}
	if got := Fold(links, 10); len(got) != 8 || got[0].To.Name != "93 others" || total(got) != total(links) {
		t.Errorf("%s", lines(got))
	}
	for i := range links {
		links[i].From = End{Name: fmt.Sprint("p", i), PID: int32(i + 1), Processes: 1}
	}
	got = Fold(links, 10)
	if len(got) != 10 || got[0].From.Name != "91 others" || got[0].From.Processes != 91 || total(got) != total(links) {
		t.Errorf("%s", lines(got))
	}
}

// TestFoldRandom holds what is always true: nothing is lost, nothing is better
// than it was, and the order of what comes in does not matter.
func TestFoldRandom(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		var links []Link
		sum, unacked, worst := 0, 0, verdict.Alive
		for i := range r.IntN(400) {
			l := Link{From: End{Name: fmt.Sprint("p", r.IntN(30)), Processes: 1}, To: End{Name: fmt.Sprintf("10.%d.%d.%d", r.IntN(2), r.IntN(20), i%250)},
				Port: fmt.Sprint(">", i), Netns: uint32(r.IntN(2)), Protocol: "tcp", Count: r.IntN(50), Unacked: r.IntN(3), Verdict: verdict.Liveness(r.IntN(3)).String()}
			sum, unacked, worst = sum+l.Count, unacked+l.Unacked, max(worst, badness(l.Verdict))
			links = append(links, l)
		}
		most := 1 + r.IntN(60)
		before := slices.Clone(links)
		got := Fold(links, most)
		if !reflect.DeepEqual(before, links) {
			t.Fatalf("seed %d: what came in was changed", seed)
		}
		for _, l := range got {
			sum, unacked = sum-l.Count, unacked-l.Unacked
		}
		bad := slices.ContainsFunc(got, func(l Link) bool { return badness(l.Verdict) == worst })
		if len(got) > most || sum != 0 || unacked != 0 || len(links) > 0 && !bad {
			t.Fatalf("seed %d: %d of at most %d links, %d connections lost, %d unacked; worst kept: %t", seed, len(got), most, sum, unacked, bad)
		}
		r.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
		if again := Fold(links, most); !reflect.DeepEqual(got, again) {
			t.Fatalf("seed %d: in another order:\n%s\n%s", seed, lines(got), lines(again))
		}
	}
}

// Groups are all links, those that differ in what the history does not count as one.
func TestGroupsOf(t *testing.T) {
	var links []Link
	for i := range 3 * MostLinks {
		links = append(links, Link{From: End{Name: "app", Unit: "app.service", PID: 7}, To: End{Name: fmt.Sprintf("10.0.%d.%d", i/256, i%256)}, Port: ">443", Protocol: "tcp", Count: 1 + i})
	}
	twin := links[9]
	twin.Netns, twin.From.Container = 7, "3f1c9a"
	groups := GroupsOf(append(links, twin))
	if len(groups) != len(links) || groups[9] != (Group{Series{"app", "app.service", "10.0.0.9", ">443"}, 20}) || groups[599].Count != 600 {
		t.Errorf("%d groups of %d links, %+v", len(groups), len(links), groups[9])
	}
	if none := GroupsOf(nil); none == nil || len(none) > 0 {
		t.Errorf("no links make %v", none)
	}
}

func TestFindingsOf(t *testing.T) {
	at := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	lives := []verdict.Life{{Finding: verdict.Finding{Code: "S001", Promise: verdict.Silence, Severity: verdict.Fail, Title: "t",
		Subject: verdict.Values{{Key: "peer", V: "10.0.0.5"}, {Key: "count", V: 3}}, Evidence: verdict.Values{}, Fix: []string{}, Bound: fact.Seen(138 * time.Second)},
		ID: "S001 peer=10.0.0.5", First: at, Last: at, Resolved: fact.Seen(at), Times: 2, Flapping: true, Cause: "x", Hides: 4, Count: 3}}
	list := FindingsOf(lives)
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"code":"S001"`, `"id":"S001 peer=10.0.0.5"`, `"resolved":"2026-`, `"hides":4`, `"bound_seconds":138`} {
		if !strings.Contains(string(text), key) {
			t.Errorf("%s is not in %s", key, text)
		}
	}
	var read []Finding
	if err := json.Unmarshal(text, &read); err != nil || !reflect.DeepEqual(read, list) {
		t.Errorf("%v: %+v, want %+v", err, read, list)
	}
}

func TestPromisesOf(t *testing.T) {
	at := time.Now()
	over := &at
	f := func(p verdict.Promise, s verdict.Severity, title string) Finding {
		return Finding{Finding: verdict.Finding{Promise: p, Severity: s, Title: title}}
	}
	findings := []Finding{f(verdict.Silence, verdict.Fail, "dead"), f(verdict.Silence, verdict.Warn, "long"), f(verdict.Leaks, verdict.Info, "idle"),
		f(verdict.Names, verdict.Fail, "over"), f(verdict.Names, verdict.Fail, "hidden")}
	findings[3].Resolved, findings[4].Cause = over, "S005"
	var got []string
	for _, p := range PromisesOf(findings, map[verdict.Promise]Looked{verdict.Names: {at, "2 nameservers"}, verdict.Silence: {at, "3 peers"}, verdict.Leaks: {What: "no right"}}) {
		got = append(got, fmt.Sprintf("%v %v %d %s %t", p.Promise, p.Status, p.Findings, p.Summary, p.Looked != nil))
	}
	want := []string{"names broken 0 hidden true", "calls unknown 0 not looked at yet false", "silence broken 2 dead true", "leaks unknown 1 no right false"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestOf(t *testing.T) {
	p := PeersOf([]verdict.Peer{{Addr: netip.MustParseAddr("10.0.0.5"), Count: 3, Verdict: verdict.Silent, Evidence: verdict.Values{{Key: "since", V: "2026-03-14T15:09:14Z"}},
		Processes: make([]verdict.Holder, 20), Idle: fact.Seen(bound.Bound{By: bound.None}), Sending: fact.Seen(bound.Bound{After: time.Second, By: bound.KeepAlive})}})[0]
	if p.Since == nil || p.QuietMS != nil || len(p.Processes) != 8 || p.Idle != nil || !p.Never || *p.Sending != 1 || p.Verdict != "silent" {
		t.Errorf("%+v", p)
	}
	s := SitesOf([]verdict.LeakSite{{PID: 7, AskedBy: fact.Call{Func: "main.f", File: "f.go", Line: 3}, Stack: []fact.Call{{Func: "net.Dial"}}, Open: 5, Peer: "db"}})[0]
	if s.ID != "7 main.f:3 :0 db accepted=false" || s.Idle != nil || s.Open != 5 || s.Stack[0].Function != "net.Dial" || s.AskedBy.File != "f.go" {
		t.Errorf("%+v", s)
	}
	l := LossOf("10.0.0.0/8", verdict.Loss{Count: 2, Processes: []verdict.Stake{{Holder: verdict.Holder{PID: 7, Count: 2}, Idle: verdict.Notice{Last: fact.Seen(time.Minute), Never: 1}}}, Transit: []verdict.Transit{{}}})
	if l.Count != 2 || l.Processes[0].PID != 7 || *l.Processes[0].Idle.Last != 60 || l.Processes[0].Idle.First != nil || *l.Transit != 1 || LossOf("x", verdict.Loss{}).Transit != nil {
		t.Errorf("%+v", l)
	}
}

func BenchmarkLinksOf(b *testing.B) {
	m := busy()
	peers := verdict.Peers(m)
	b.ReportAllocs()
	for b.Loop() {
		Fold(LinksOf(m, peers), 0)
	}
}
