package sockdiag

import (
	"bytes"
	"os"
	"strconv"
)

// mostExpected bounds what is allocated on the word of a file.
const mostExpected = 1 << 20

// expected is about how many sockets the calling thread's namespace has, by
// /proc/net/sockstat, so that the list need not grow; 0 when it does not tell.
func expected(held bool) int {
	used, waiting := parseSockstat(sockstat())
	if held {
		waiting = 0
	}
	n := used + waiting
	return min(n+n/64, mostExpected)
}

// TimeWait returns how many connections of the calling thread's network
// namespace are in TIME_WAIT, of IPv4 and IPv6; 0 when the kernel does not tell.
func TimeWait() int {
	_, waiting := parseSockstat(sockstat())
	return waiting
}

// sockstat is empty when it cannot be read.
func sockstat() []byte {
	stat, _ := os.ReadFile("/proc/thread-self/net/sockstat")
	return stat
}

// parseSockstat reads what net/ipv4/proc.c, sockstat_seq_show, writes: all
// sockets in use, and those in TIME_WAIT, which are not among them.
func parseSockstat(stat []byte) (used, waiting int) {
	return after(stat, "sockets: used "), after(stat, " tw ")
}

func after(text []byte, word string) int {
	_, rest, ok := bytes.Cut(text, []byte(word))
	if !ok {
		return 0
	}
	digits, _, _ := bytes.Cut(rest, []byte("\n"))
	digits, _, _ = bytes.Cut(digits, []byte(" "))
	n, err := strconv.Atoi(string(digits))
	if err != nil || n < 0 || n > mostExpected {
		return 0
	}
	return n
}
