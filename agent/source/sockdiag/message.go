package sockdiag

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Kinds of request; the answers have the kind of their request.
const (
	tcpDiagGetSock   = 18 // TCPDIAG_GETSOCK of linux/inet_diag.h
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY of linux/sock_diag.h
)

// sequence numbers the only request of a socket.
const sequence = 1

const (
	headerLen    = unix.NLMSG_HDRLEN // struct nlmsghdr
	attributeLen = unix.NLA_HDRLEN   // struct nlattr
)

// message is one netlink message.
type message struct {
	kind, flags uint16
	sequence    uint32
	body        []byte // shares its bytes with what it was split off
}

// next splits the first message off b.
func next(b []byte) (m message, rest []byte, err error) {
	if len(b) < headerLen {
		return message{}, nil, fmt.Errorf("%w: a header of %d bytes", errMalformed, len(b))
	}
	n := int64(binary.NativeEndian.Uint32(b))
	if n < headerLen || n > int64(len(b)) {
		return message{}, nil, fmt.Errorf("%w: a length of %d where %d bytes are left", errMalformed, n, len(b))
	}
	m = message{
		kind:     binary.NativeEndian.Uint16(b[4:]),
		flags:    binary.NativeEndian.Uint16(b[6:]),
		sequence: binary.NativeEndian.Uint32(b[8:]),
		body:     b[headerLen:n:n],
	}
	return m, b[min(align(int(n)), len(b)):], nil
}

// answers follows the answers to one request through the datagrams they come in.
type answers struct {
	kind        uint16
	interrupted bool // a message said so
}

// read calls each with the bodies in one datagram and reports whether the
// message that ends the dump was among them. err is the kernel's, or
// [ErrInterrupted], or says that b is malformed.
func (a *answers) read(b []byte, each func(body []byte)) (done bool, err error) {
	for len(b) > 0 {
		var m message
		if m, b, err = next(b); err != nil {
			return false, err
		}
		if m.sequence != sequence {
			continue
		}
		if m.flags&unix.NLM_F_DUMP_INTR != 0 {
			a.interrupted = true
		}
		switch m.kind {
		case a.kind:
			each(m.body)
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			// A dump that fails before its first row ends in a DONE that carries
			// the error, netlink_dump_done in net/netlink/af_netlink.c.
			errno, err := m.errno()
			if err == nil {
				err = answer(errno)
			}
			if err == nil && a.interrupted {
				err = ErrInterrupted
			}
			return true, err
		}
	}
	return false, nil
}

// errno is the result in the body of an NLMSG_ERROR or NLMSG_DONE.
func (m message) errno() (unix.Errno, error) {
	if len(m.body) < 4 {
		if m.kind == unix.NLMSG_DONE {
			return 0, nil
		}
		return 0, fmt.Errorf("%w: an error of %d bytes", errMalformed, len(m.body))
	}
	result := int32(binary.NativeEndian.Uint32(m.body))
	if result >= 0 {
		return 0, nil
	}
	return unix.Errno(-int64(result)), nil
}

// attribute splits the first netlink attribute off b. It is not ok at the end
// and at bytes that are no attribute, which end the list as they do in the
// kernel's own nla_ok.
func attribute(b []byte) (kind uint16, value, rest []byte, ok bool) {
	if len(b) < attributeLen {
		return 0, nil, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < attributeLen || n > len(b) {
		return 0, nil, nil, false
	}
	kind = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return kind, b[attributeLen:n:n], b[min(align(n), len(b)):], true
}

// align rounds n up to where the next message or attribute starts.
func align(n int) int { return (n + 3) &^ 3 }

// request starts a dump request with room for a body of n bytes.
func request(kind uint16, n int) []byte {
	b := make([]byte, headerLen+n)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b[8:], sequence)
	return b
}
