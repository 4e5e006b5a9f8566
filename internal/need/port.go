package need

import (
	"math/rand/v2"
	"net"
	"strconv"
)

// Port returns a TCP port on which a program of the test may listen on loopback.
// It is below those that the kernel gives to who names none, so that nobody else
// has it by the time that the program is there.
func Port(t T) int {
	t.Helper()
	const first, last, tries = 16384, 32767, 100
	for range tries {
		port := first + rand.IntN(last-first+1)
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no port is free from %d to %d", first, last)
	return 0
}

// Address returns 127.0.0.1 with such a port: where one program after another may
// listen, or nobody at first.
func Address(t T) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(Port(t)))
}
