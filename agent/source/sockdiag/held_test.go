package sockdiag

import (
	"net"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// What nobody holds any more is left out and counted; and a look whose room is
// given back leaves nothing new behind.
func TestHeld(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	for range 2 {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client.Close() // first: it is the one to wait
		server.Read(make([]byte, 1))
		server.Close()
	}
	states := func(want Want) map[fact.State]int {
		n := make(map[fact.State]int)
		sockets, err := Read(nil, 1, want)
		if err != nil {
			t.Fatal(err)
		}
		for i := range sockets {
			if sockets[i].Local.Port() == port || sockets[i].Remote.Port() == port {
				n[sockets[i].State]++
			}
		}
		return n
	}
	if all := states(Want{TCP: true}); all[fact.TimeWait] != 2 || all[fact.Listen] != 1 {
		t.Errorf("of all: %v", all)
	}
	if held := states(Want{TCP: true, Held: true}); held[fact.TimeWait] != 0 || held[fact.Listen] != 1 {
		t.Errorf("of those that are held: %v", held)
	}
	if held := states(Want{Held: true}); held[fact.Listen] != 1 {
		t.Errorf("of all protocols: %v", held)
	}
	if n := TimeWait(); n < 2 {
		t.Errorf("%d wait", n)
	}
}

func TestRoomIsUsedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	first, err := Read(nil, 1, Want{TCP: true, Held: true})
	if err != nil {
		t.Fatal(err)
	}
	conns := make(map[*fact.Conn]bool)
	for i := range first {
		if first[i].Conn != nil {
			first[i].Conn.Unacked = 1 << 30
			conns[first[i].Conn] = true
		}
	}
	second, err := Read(first[:0], 1, Want{TCP: true, Held: true})
	if err != nil {
		t.Fatal(err)
	}
	again, of := 0, make(map[*fact.Conn]bool)
	for i := range second {
		c := second[i].Conn
		if c == nil {
			continue
		}
		if conns[c] {
			again++
		}
		if of[c] || c.Unacked == 1<<30 {
			t.Errorf("%v has what another one had", second[i].Local)
		}
		of[c] = true
	}
	if again == 0 {
		t.Error("nothing was used again")
	}
}
