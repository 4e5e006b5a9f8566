package sockdiag

import (
	"bytes"
	"errors"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// mostExpected bounds what is allocated on the word of a file.
const mostExpected = 1 << 20

// use is how many sockets a network namespace has, by the files sockstat and
// sockstat6 of /proc/net, net/ipv4/proc.c and net/ipv6/proc.c.
type use struct {
	all      int // sockets of all protocols, TIME_WAIT apart
	timeWait int // TCP of IPv4 and IPv6

	// Of each protocol and family; -1 = not told.
	tcp4, tcp6, udp4, udp6 int
}

// readUse reads that of the calling thread's network namespace.
func readUse() use { return useOf("/proc/thread-self/net/") }

func useOf(dir string) use {
	stat, _ := readStat(dir + "sockstat")
	stat6, err := readStat(dir + "sockstat6")
	u := parseUse(stat, stat6)
	if len(stat) > 0 && errors.Is(err, fs.ErrNotExist) { // IPv6 is off
		u.tcp6, u.udp6 = 0, 0
	}
	return u
}

// readStat reads one of these files, which have some 200 bytes: with half the system
// calls that os.ReadFile makes, as it is done often.
func readStat(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 1024)
	n, err := unix.Read(fd, buf)
	return buf[:max(n, 0)], err
}

// Population returns how many TCP sockets there are in the network namespace of a
// process, or of the calling thread where pid is 0; those in TIME_WAIT are not
// counted. The kernel knows it without looking at any. It is not ok when it cannot
// be read.
func Population(pid int32) (n int, ok bool) {
	dir := "/proc/thread-self/net/"
	if pid != 0 {
		dir = "/proc/" + strconv.Itoa(int(pid)) + "/net/"
	}
	u := useOf(dir)
	return u.tcp4 + u.tcp6, u.tcp4 >= 0 && u.tcp6 >= 0
}

// Allocated returns how many TCP sockets the kernel has, of all network namespaces
// together, those that are not connected among them and those in TIME_WAIT not:
// sockstat_seq_show in net/ipv4/proc.c. It takes less than [Population] of one
// namespace. It is not ok when it cannot be read.
func Allocated() (n int, ok bool) {
	stat, _ := readStat("/proc/thread-self/net/sockstat")
	n = after(stat, " alloc ")
	return n, n >= 0
}

func parseUse(stat, stat6 []byte) use {
	return use{
		all: max(after(stat, "sockets: used "), 0), timeWait: max(after(stat, " tw "), 0),
		tcp4: after(stat, "TCP: inuse "), udp4: after(stat, "UDP: inuse "),
		tcp6: after(stat6, "TCP6: inuse "), udp6: after(stat6, "UDP6: inuse "),
	}
}

// expected is about how many sockets there are, so that the list need not grow; 0
// when that is not told.
func (u *use) expected(held bool) int {
	n := u.all
	if !held {
		n += u.timeWait
	}
	return min(n+n/64, mostExpected)
}

// none reports that a query would find nothing. The kernel walks the table of all
// namespaces to answer it, however few sockets this one has, which takes it
// milliseconds where the others have many.
func (u *use) none(q query) bool {
	switch {
	case q.protocol == "tcp":
		return u.tcp4 == 0 && u.tcp6 == 0 && (q.held || u.timeWait == 0)
	case q.protocol == "udp" && q.family == fact.IPv4:
		return u.udp4 == 0
	case q.protocol == "udp":
		return u.udp6 == 0
	}
	return false
}

// TimeWait returns how many connections of the calling thread's network
// namespace are in TIME_WAIT, of IPv4 and IPv6; 0 when the kernel does not tell.
func TimeWait() int { return readUse().timeWait }

// after is the number after a word, -1 where there is none.
func after(text []byte, word string) int {
	_, rest, ok := bytes.Cut(text, []byte(word))
	if !ok {
		return -1
	}
	digits, _, _ := bytes.Cut(rest, []byte("\n"))
	digits, _, _ = bytes.Cut(digits, []byte(" "))
	n, err := strconv.Atoi(string(digits))
	if err != nil || n < 0 || n > mostExpected {
		return -1
	}
	return n
}
