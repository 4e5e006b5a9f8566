package sockdiag

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

func TestUse(t *testing.T) {
	const stat6 = "TCP6: inuse 4\nUDP6: inuse 0\nRAW6: inuse 1\n"
	for stat, want := range map[string]use{
		"sockets: used 6400\nTCP: inuse 15003 orphan 0 tw 64 alloc 15005 mem 0\nUDP: inuse 0 mem 0\n": {6400, 64, 15003, 4, 0, 0},
		"sockets: used 12\n":                    {12, 0, -1, 4, -1, 0},
		"":                                      {0, 0, -1, 4, -1, 0},
		"sockets: used many\nTCP: tw x\n":       {0, 0, -1, 4, -1, 0},
		"sockets: used 99999999999999999999\n":  {0, 0, -1, 4, -1, 0},
		"sockets: used 4000000000\n":            {0, 0, -1, 4, -1, 0},
		"TCP: inuse 1 orphan 0 tw -5 alloc 1\n": {0, 0, 1, 4, -1, 0},
	} {
		if got := parseUse([]byte(stat), []byte(stat6)); got != want {
			t.Errorf("%q: %+v, want %+v", stat, got, want)
		}
	}
	u := use{all: mostExpected, timeWait: mostExpected}
	if held, all := u.expected(true), u.expected(false); held != mostExpected || all != mostExpected {
		t.Errorf("%d and %d sockets expected", held, all)
	}
	u = readUse()
	if n := u.expected(true); n == 0 || n > mostExpected {
		t.Errorf("this machine tells of %d", n)
	}
}

// What is not told is asked for, and so is what there is one of.
func TestNone(t *testing.T) {
	unknown := parseUse(nil, nil)
	for _, list := range [][]query{tcpQueries, heldQueries, udpQueries, unixQueries} {
		for _, q := range list {
			if unknown.none(q) {
				t.Errorf("%s of %v is not asked for", q.protocol, q.family)
			}
		}
	}
	empty := use{}
	if !empty.none(heldQueries[0]) || !empty.none(udpQueries[1]) || empty.none(unixQueries[0]) {
		t.Error("an empty namespace is asked")
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue // no IPv6
		}
		p, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		family := fact.IPv4
		if l.Addr().(*net.TCPAddr).IP.To4() == nil {
			family = fact.IPv6
		}
		u := readUse()
		if u.none(heldQueries[0]) || u.none(query{protocol: "udp", family: family}) {
			t.Errorf("%s is not seen: %+v", address, u)
		}
		l.Close()
		p.Close()
	}
}

func FuzzUse(f *testing.F) {
	f.Add([]byte("sockets: used 6400\nTCP: inuse 15003 orphan 0 tw 64 alloc 15005 mem 0\n"), []byte("TCP6: inuse 1\n"))
	f.Fuzz(func(t *testing.T, stat, stat6 []byte) {
		u := parseUse(stat, stat6)
		if n := u.expected(false); n < 0 || n > mostExpected {
			t.Errorf("%d sockets expected", n)
		}
	})
}

// A socket counts among all the kernel has as soon as it is made.
func TestAllocated(t *testing.T) {
	was, ok := Allocated()
	if !ok {
		t.Fatal("this kernel does not tell")
	}
	const more = 500 // than others here let go of meanwhile
	for range more {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	if is, _ := Allocated(); is <= was {
		t.Errorf("%d sockets, and with %d more %d", was, more, is)
	}
}
