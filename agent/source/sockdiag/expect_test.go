package sockdiag

import "testing"

func TestSockstat(t *testing.T) {
	for stat, want := range map[string][2]int{
		"sockets: used 6400\nTCP: inuse 15003 orphan 0 tw 64 alloc 15005 mem 0\nUDP: inuse 0 mem 0\n": {6400, 64},
		"sockets: used 12\n":                       {12, 0},
		"":                                         {},
		"sockets: used many\nTCP: tw x\n":          {},
		"sockets: used 99999999999999999999\n":     {},
		"sockets: used 4000000000\n":               {},
		"TCP: inuse 1 orphan 0 tw -5 alloc 1\n":    {},
		"sockets: used 1048576\nTCP: 0 tw 1048576": {mostExpected, mostExpected},
	} {
		if used, waiting := parseSockstat([]byte(stat)); used != want[0] || waiting != want[1] {
			t.Errorf("%q: %d and %d, want %d", stat, used, waiting, want)
		}
	}
	if n := expected(true); n == 0 || n > mostExpected {
		t.Error("this machine tells nothing")
	}
}

func FuzzSockstat(f *testing.F) {
	f.Add([]byte("sockets: used 6400\nTCP: inuse 15003 orphan 0 tw 64 alloc 15005 mem 0\n"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if used, waiting := parseSockstat(stat); min(used, waiting) < 0 || max(used, waiting) > mostExpected {
			t.Errorf("%d and %d sockets expected", used, waiting)
		}
	})
}
