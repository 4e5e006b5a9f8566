package verdict

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

// each runs the scenarios of a file; judge writes what is to be compared.
func each(t *testing.T, file string, judge func(t *testing.T, s scenario, m *fact.Machine) string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var judged []string
	for _, s := range scenarios(string(text)) {
		t.Run(s.name, func(t *testing.T) {
			m, _, err := parse(s.facts)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.TrimSpace(judge(t, s, m))
			if got != s.want && !*update {
				t.Errorf("got:\n%s\nwant:\n%s", got, s.want)
			}
			s.want = got
		})
		judged = append(judged, s.String())
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(judged, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeers(t *testing.T) {
	each(t, "testdata/peers/peers.txt", func(t *testing.T, _ scenario, m *fact.Machine) string {
		peers := Peers(m)
		agree(t, m, peers)
		var b strings.Builder
		for i := range peers {
			b.WriteString(peerLine(&peers[i]))
		}
		if len(peers) == 0 {
			return "nobody"
		}
		return b.String()
	})
}

// agree holds that check and silence never say different things of a peer.
func agree(t *testing.T, m *fact.Machine, peers []Peer) {
	t.Helper()
	sure := make(map[string]bool)
	for _, f := range Judge(m) {
		if f.Code == silentPeer.Code {
			if addr, ok := f.Subject.Get("peer"); ok {
				sure[addr.(string)] = f.Severity == Fail
			}
		}
	}
	for _, p := range peers {
		said, found := sure[p.Addr.String()]
		if found && said != (p.Verdict == Silent) && p.Count >= largePeer {
			t.Errorf("%s is %s, and S001 says otherwise", p.Addr, p.Verdict)
		}
		if found && p.Verdict == Alive {
			t.Errorf("%s is alive, and there is an S001", p.Addr)
		}
	}
}

func peerLine(p *Peer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %d of", p.Verdict, p.Addr, p.Count)
	for _, h := range p.Processes {
		fmt.Fprintf(&b, " %s[%d]×%d", h.Name, h.PID, h.Count)
	}
	fmt.Fprintf(&b, "; quiet %s; bounds %s, %s; notice %s to %s", spanOf(p.Quiet), boundOf(p.Idle), boundOf(p.Sending), spanOf(p.First), spanOf(p.Last))
	if p.Never {
		b.WriteString(" and never")
	}
	if p.Unknown > 0 {
		fmt.Fprintf(&b, "; %d unknown", p.Unknown)
	}
	if len(p.Evidence) > 0 {
		fmt.Fprintf(&b, "\n     |%s", valuesLine(p.Evidence))
	}
	return b.String() + "\n"
}

func spanOf(d fact.Known[time.Duration]) string {
	if !d.OK {
		return "?"
	}
	return span(d.Value)
}

func boundOf(b fact.Known[bound.Bound]) string {
	if !b.OK {
		return "?"
	}
	return b.Value.String()
}

// A scenario's name ends in the question: "…: 10.77.1.2".
func TestWhatIf(t *testing.T) {
	each(t, "testdata/peers/whatif.txt", func(t *testing.T, s scenario, m *fact.Machine) string {
		question := s.name[strings.LastIndex(s.name, ": ")+2:]
		dead, err := netip.ParsePrefix(question)
		if addr, notPrefix := netip.ParseAddr(question); notPrefix == nil {
			dead, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		l := WhatIf(m, dead)
		var b strings.Builder
		fmt.Fprintf(&b, "%d connections with %d; idle %s; sending %s; %d unknown\n", l.Count, l.Addresses, noticeOf(l.Idle), noticeOf(l.Sending), l.Unknown)
		for _, s := range l.Processes {
			fmt.Fprintf(&b, "%s[%d]×%d: idle %s; sending %s\n", s.Name, s.PID, s.Count, noticeOf(s.Idle), noticeOf(s.Sending))
		}
		if l.Transit == nil {
			b.WriteString("flows unknown\n")
		} else {
			fmt.Fprintf(&b, "%d flows\n", len(l.Transit))
		}
		return b.String()
	})
}

func noticeOf(n Notice) string {
	return fmt.Sprintf("%s to %s, %d never", spanOf(n.First), spanOf(n.Last), n.Never)
}

func TestForwarded(t *testing.T) {
	m, _, err := parse("flow 3x tcp ESTABLISHED 203.0.113.7:40000+ 10.77.1.2:30080 answers=10.77.2.2:8080\nflow 2x udp \"\" 10.9.0.1+:53 10.8.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	for with, want := range map[string]int{"203.0.113.0/24": 3, "10.77.2.2/32": 3, "10.9.0.2/32": 1, "192.0.2.0/24": 0, "0.0.0.0/0": 5} {
		if flows := Forwarded(m, netip.MustParsePrefix(with)); len(flows) != want || flows == nil {
			t.Errorf("%s: %v, want %d", with, flows, want)
		}
	}
	if flows := Forwarded(m, netip.Prefix{}); len(flows) != 5 {
		t.Errorf("all: %v", flows)
	}
	if flows := Forwarded(&fact.Machine{}, netip.Prefix{}); flows != nil {
		t.Errorf("no table read: %v, want nil", flows)
	}
}

func TestPeersOfNothing(t *testing.T) {
	if Peers(nil) == nil || Peers(&fact.Machine{}) == nil {
		t.Error("no peers must be an empty list")
	}
	if l := WhatIf(nil, netip.MustParsePrefix("10.0.0.1/32")); l.Count != 0 || l.Transit != nil {
		t.Errorf("what if of nothing: %+v", l)
	}
	for l := Alive; l <= Silent; l++ {
		if text, err := json.Marshal(l); err != nil || string(text) != `"`+l.String()+`"` {
			t.Errorf("%s, %v", text, err)
		}
	}
	p := Peer{Addr: netip.MustParseAddr("10.0.0.1")}
	p.Complete([]Peer{{Addr: netip.MustParseAddr("10.0.0.2"), Unknown: 1}, {Addr: p.Addr, Unknown: 2, Count: 9}})
	if p.Unknown != 2 || p.Count != 0 {
		t.Errorf("completed to %+v", p)
	}
}
