package netns

import (
	"net"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
)

const snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab RetransSegs\n" +
	"Tcp: 1 -1 39503 39200 216 5475 32 18542\nUdp: InDatagrams\nUdp: 9\n"

func TestParseCounts(t *testing.T) {
	if got, err := parseCounts(snmp); err != nil || got != (fact.TCPCounts{Opened: 39503, Accepted: 39200, Reset: 5475, Resent: 18542}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "Tcp: ActiveOpens\n", "Tcp: ActiveOpens\nTcp: 1\n", "Tcp: ActiveOpens\nTcp: x\n", "Tcp:\nTcp:\n"} {
		if got, err := parseCounts(text); err == nil || got != (fact.TCPCounts{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func FuzzParseCounts(f *testing.F) {
	f.Add(snmp)
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCounts(text); err != nil && c != (fact.TCPCounts{}) {
			t.Errorf("%+v beside %v", c, err)
		}
	})
}

// The kernel counts a connection that is dialled and accepted here, and its reset.
func TestCounts(t *testing.T) {
	before, err := Counts()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := s.Read(make([]byte, 1)); err == nil {
		t.Fatal("it was not reset")
	}
	after, err := Counts()
	if err != nil || after.Opened <= before.Opened || after.Accepted <= before.Accepted || after.Reset <= before.Reset {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
}
