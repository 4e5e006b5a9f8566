package sockdiag

import (
	"cmp"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// tallyRequest asks for no TCP_INFO, which is most of an answer.
var tallyRequest = func() []byte {
	b := tcpRequest(heldStates)
	const extensions = 3
	b[headerLen+extensions] = 0
	return b
}()

// Tally calls each with every TCP socket of the calling thread's network
// namespace, whose inode is netns, but for those in TIME_WAIT. It is for who only
// counts: a socket has no fact.Conn, is good until each returns, and none is kept.
//
// After an error, one [*Error], what each was called with is not to be counted.
func Tally(netns uint32, each func(*fact.Socket)) error {
	used := readUse()
	if used.none(heldQueries[0]) {
		return nil
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var s fact.Socket
	var malformed error
	_, err := dump(tallyRequest, buf[:], func(body []byte) {
		s = fact.Socket{Netns: netns, Protocol: fact.TCP}
		if _, err := parseInet(&s, body); err != nil {
			malformed = err
			return
		}
		each(&s)
	})
	if err = cmp.Or(err, malformed); err != nil {
		return &Error{Protocol: "tcp", Err: err}
	}
	return nil
}
