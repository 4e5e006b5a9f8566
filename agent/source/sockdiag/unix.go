package sockdiag

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// What to show of a unix socket, and the attributes it comes in,
// linux/unix_diag.h.
const (
	unixShowName  = 1 << 0
	unixShowPeer  = 1 << 2
	unixShowQueue = 1 << 4
	unixShowUID   = 1 << 6 // Linux 5.3; older kernels leave it out

	unixDiagName  = 0
	unixDiagPeer  = 2
	unixDiagQueue = 4
	unixDiagUID   = 7
)

// unixDiagMsgLen is the size of struct unix_diag_msg of linux/unix_diag.h.
const unixDiagMsgLen = 16

// unixRequest is a struct unix_diag_req of linux/unix_diag.h.
func unixRequest() []byte {
	b := request(sockDiagByFamily, 24)
	body := b[headerLen:]
	body[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(body[4:], allStates)
	binary.NativeEndian.PutUint32(body[12:], unixShowName|unixShowPeer|unixShowQueue|unixShowUID)
	return b
}

func (r *reader) unix(body []byte) error {
	s := r.socket()
	name, err := parseUnix(s, body)
	if err != nil {
		r.drop()
		return err
	}
	if len(name) > 0 {
		s.Path = r.path(name)
	}
	return nil
}

// parseUnix fills s from a struct unix_diag_msg and the attributes behind it,
// and returns the name for people, which may change bytes of b; nil where the
// socket has none.
func parseUnix(s *fact.Socket, b []byte) (name []byte, err error) {
	if len(b) < unixDiagMsgLen || b[0] != unix.AF_UNIX {
		return nil, fmt.Errorf("%w: a unix socket of %d bytes", errMalformed, len(b))
	}
	s.Family = fact.Unix
	s.Protocol = unixProtocol(b[1])
	s.State = fact.State(b[2])
	s.Inode = binary.NativeEndian.Uint32(b[4:])
	s.Cookie = cookie(b[8:])

	for kind, value, rest, ok := attribute(b[unixDiagMsgLen:]); ok; kind, value, rest, ok = attribute(rest) {
		switch kind {
		case unixDiagName:
			name = unixName(value)
		case unixDiagPeer:
			if len(value) >= 4 {
				s.PeerInode = binary.NativeEndian.Uint32(value)
			}
		case unixDiagQueue:
			if len(value) >= 8 {
				s.RecvQueue = binary.NativeEndian.Uint32(value)
				s.SendQueue = binary.NativeEndian.Uint32(value[4:])
			}
		case unixDiagUID:
			if len(value) >= 4 {
				s.UID = binary.NativeEndian.Uint32(value)
			}
		}
	}
	return name, nil
}

func unixProtocol(kind uint8) fact.Protocol {
	switch kind {
	case unix.SOCK_STREAM:
		return fact.UnixStream
	case unix.SOCK_DGRAM:
		return fact.UnixDatagram
	case unix.SOCK_SEQPACKET:
		return fact.UnixSeqpacket
	}
	return fact.ProtocolUnknown
}

// unixName makes the sun_path of a socket readable, in place: a name of the
// abstract namespace starts with a zero byte and may hold more of them, each
// becomes an @, as in ss and /proc/net/unix; the path of a file ends at one.
func unixName(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if b[0] != 0 {
		path, _, _ := bytes.Cut(b, []byte{0})
		return path
	}
	for i, c := range b {
		if c == 0 {
			b[i] = '@'
		}
	}
	return b
}
