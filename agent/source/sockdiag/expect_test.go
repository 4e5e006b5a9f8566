package sockdiag

import "testing"

func TestSockstat(t *testing.T) {
	for stat, want := range map[string]int{
		"sockets: used 6400\nTCP: inuse 15003 orphan 0 tw 64 alloc 15005 mem 0\nUDP: inuse 0 mem 0\n": 6464 + 101,
		"sockets: used 12\n":                       12,
		"":                                         0,
		"sockets: used many\nTCP: tw x\n":          0,
		"sockets: used 99999999999999999999\n":     0,
		"sockets: used 4000000000\n":               0,
		"TCP: inuse 1 orphan 0 tw -5 alloc 1\n":    0,
		"sockets: used 1048576\nTCP: 0 tw 1048576": mostExpected,
	} {
		if got := parseSockstat([]byte(stat)); got != want {
			t.Errorf("%q: %d, want %d", stat, got, want)
		}
	}
	if n := expected(); n == 0 {
		t.Error("this machine tells nothing")
	}
}

func FuzzSockstat(f *testing.F) {
	f.Add([]byte("sockets: used 6400\nTCP: inuse 15003 orphan 0 tw 64 alloc 15005 mem 0\n"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if n := parseSockstat(stat); n < 0 || n > mostExpected {
			t.Errorf("%d sockets expected", n)
		}
	})
}
