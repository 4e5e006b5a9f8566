package show

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

func keepaliveBound(after time.Duration) fact.Known[bound.Bound] {
	return fact.Seen(bound.Bound{After: after, By: bound.KeepAlive})
}

func peers() []verdict.Peer {
	return []verdict.Peer{
		{Addr: netip.MustParseAddr("10.77.1.2"), Netns: 1, Count: 4224, Verdict: verdict.Silent, Quiet: fact.Seen(12300 * time.Millisecond),
			Processes: []verdict.Holder{{PID: 812, Name: "ws-server", Count: 2112}, {PID: 813, Name: "ws-server", Count: 2100}, {Count: 12}},
			Evidence:  verdict.Values{{Key: "last_ack_seconds", V: 12.3}, {Key: "probing", V: 4100}, {Key: "sure", V: true}},
			Idle:      keepaliveBound(150 * time.Second), Sending: keepaliveBound(940 * time.Second),
			First: fact.Seen(133 * time.Second), Last: fact.Seen(138 * time.Second)},
		{Addr: netip.MustParseAddr("10.0.0.9"), Netns: 1, Count: 3, Verdict: verdict.Unsure, Quiet: fact.Seen(16 * time.Second),
			Processes: []verdict.Holder{{PID: 9, Name: "client", Count: 3}}, Evidence: verdict.Values{{Key: "sure", V: false}},
			Idle: fact.Seen(bound.Bound{}), Unknown: 1, Never: true},
		{Addr: netip.MustParseAddr("fe80::1"), Netns: 2, Interface: 3, Count: 1, Processes: []verdict.Holder{{PID: 9, Name: "client", Count: 1}}},
	}
}

func flows(n int) (list []verdict.Transit) {
	for i := range n {
		list = append(list, verdict.Transit{Netns: 1, Flow: fact.Flow{Protocol: fact.TCP, State: "ESTABLISHED", Timeout: 5 * 24 * time.Hour,
			Source: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.7"), uint16(40000+i)), Destination: netip.MustParseAddrPort("10.77.1.2:30080"),
			ReplySource: netip.MustParseAddrPort("10.77.2.2:8080"), ReplyTo: netip.AddrPortFrom(netip.MustParseAddr("10.77.2.1"), uint16(40000+i))}})
	}
	return list
}

func loss() *verdict.Loss {
	idle := verdict.Notice{First: fact.Seen(136 * time.Second), Last: fact.Seen(148 * time.Second)}
	sending := verdict.Notice{First: fact.Seen(929 * time.Second), Last: fact.Seen(929 * time.Second)}
	return &verdict.Loss{Count: 4225, Addresses: 1, Idle: verdict.Notice{First: idle.First, Last: idle.Last, Never: 1}, Sending: sending, Unknown: 2, Transit: flows(2),
		Processes: []verdict.Stake{
			{Holder: verdict.Holder{PID: 812, Name: "ws-server", Count: 4224}, Idle: idle, Sending: sending},
			{Holder: verdict.Holder{Count: 1}, Idle: verdict.Notice{Never: 1}, Sending: sending}}}
}

func TestSilenceText(t *testing.T) {
	var b bytes.Buffer
	Silence(&b, peers(), flows(3), 0, Style{})
	b.WriteString("\n")
	Silence(&b, peers(), nil, 1, Style{})
	b.WriteString("\n")
	WhatIf(&b, "10.77.1.2", loss())
	b.WriteString("\n")
	WhatIf(&b, "192.0.2.1", &verdict.Loss{})
	golden(t, "silence.txt", b.Bytes())
}

func changes() []verdict.Change {
	all := peers()
	at := machine().Time
	back := all[0]
	back.Verdict, back.Evidence = verdict.Alive, nil
	gone := verdict.Peer{Addr: all[0].Addr, Netns: 1, Verdict: verdict.Unsure}
	return []verdict.Change{{Peer: all[0], Time: at}, {Peer: back, Time: at.Add(time.Second), Silent: 13 * time.Second}, {Peer: gone, Time: at, Silent: time.Minute}}
}

func TestChangeText(t *testing.T) {
	var b bytes.Buffer
	for _, c := range changes() {
		Change(&b, &c, Style{})
	}
	golden(t, "changes.txt", b.Bytes())
	b.Reset()
	Change(&b, &changes()[0], Style{Color: true})
	if !strings.Contains(b.String(), "\x1b[31;1m10.77.1.2 is silent") {
		t.Errorf("no colour in %q", b.String())
	}
}

// Who did not look for owners and options does not say that there are none.
func TestChangeOfBriefWatch(t *testing.T) {
	c := changes()[0]
	c.Processes, c.First, c.Last = []verdict.Holder{{Count: c.Count}}, fact.Known[time.Duration]{}, fact.Known[time.Duration]{}
	var b bytes.Buffer
	Change(&b, &c, Style{})
	if want := "  10.77.1.2 is silent: 4,224 connections, nothing acknowledged for 12 s\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("got %q, want %q at its end", b.String(), want)
	}
}

func TestSilenceJSON(t *testing.T) {
	var b bytes.Buffer
	if err := SilenceJSON(&b, machine(), peers(), flows(1), 0); err != nil {
		t.Fatal(err)
	}
	if err := WhatIfJSON(&b, machine(), "10.77.1.2", loss()); err != nil {
		t.Fatal(err)
	}
	if err := ChangesJSON(&b, machine(), changes()); err != nil {
		t.Fatal(err)
	}
	golden(t, "silence.json", b.Bytes())
}

// What was not read is null, what is not there is an empty list.
func TestSilenceJSONOfNothing(t *testing.T) {
	for want, transit := range map[string][]verdict.Transit{"null": nil, "[]": {}} {
		var b bytes.Buffer
		if err := SilenceJSON(&b, machine(), nil, transit, 5); err != nil {
			t.Fatal(err)
		}
		var d struct{ Peers, Transit json.RawMessage }
		if err := json.Unmarshal(b.Bytes(), &d); err != nil || string(d.Peers) != "[]" || string(d.Transit) != want {
			t.Errorf("peers %s, transit %s, %v, want [] and %s", d.Peers, d.Transit, err, want)
		}
	}
}
