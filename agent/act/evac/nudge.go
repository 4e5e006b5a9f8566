//go:build linux

package evac

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A nudge is an acknowledgement that fits no connection: its sequence number is
// drawn at random. Who has the connection answers with one that does fit
// (RFC 9293, section 3.10.7.4: "If an incoming segment is not acceptable, an
// acknowledgment should be sent in reply"), and that answer carries all that a
// reset needs to be believed.
//
// The first nudge is empty. Linux answers such a one no more than twice a second
// on each connection, and counts its answers to keepalive probes too; and it
// does not answer the one in thousands whose number happens to fit. So those
// that follow carry an octet: what has data is no part of an endless exchange of
// acknowledgements, and always answered (tcp_oow_rate_limited in
// net/ipv4/tcp_input.c). No program gets to read that octet, unless its number is
// by a chance of one in 2^32 the very next, and mostly not even then, as the
// acknowledged number is random too (tcp_ack). One that is further on waits for
// what is missing before it, which does not come: the rules answer for the other
// end already.

const (
	sizeofTCP  = 20
	sizeofIPv4 = 20
	sizeofIPv6 = 40

	flagACK = 0x10
	ttl     = 64
)

// nudger sends nudges.
type nudger struct{ fd4, fd6 int } // fd6 is -1 where the kernel has no IPv6

// newNudger opens the sockets, which needs CAP_NET_RAW.
func newNudger() (*nudger, error) {
	fd4, err := openRaw(unix.AF_INET)
	if err != nil {
		return nil, err
	}
	fd6, err := openRaw(unix.AF_INET6)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return &nudger{fd4, -1}, nil
	}
	if err != nil {
		unix.Close(fd4)
		return nil, err
	}
	return &nudger{fd4, fd6}, nil
}

// openRaw opens a socket that sends packets with the header that they come with.
func openRaw(family int) (fd int, err error) {
	fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == nil {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, nudgeMark); err == nil {
			return fd, nil
		}
		unix.Close(fd)
	}
	if errors.Is(err, fs.ErrPermission) {
		return -1, fmt.Errorf("raw socket: needs CAP_NET_RAW: %w", err)
	}
	return -1, fmt.Errorf("raw socket: %w", err)
}

// send nudges who has the connection at the end to, in the name of from, with
// so many octets of data.
func (n *nudger) send(from, to netip.AddrPort, octets int) (err error) {
	p := nudge(from, to, rand.Uint32(), rand.Uint32(), octets)
	if to.Addr().Is4() {
		err = unix.Sendto(n.fd4, p, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	} else {
		err = unix.Sendto(n.fd6, p, 0, &unix.SockaddrInet6{Addr: to.Addr().As16()})
	}
	if err != nil {
		return fmt.Errorf("sending to %v: %w", to.Addr(), err)
	}
	return nil
}

func (n *nudger) close() {
	unix.Close(n.fd4)
	if n.fd6 >= 0 {
		unix.Close(n.fd6)
	}
}

// nudge is the whole packet; its data is zeros. The kernel fills in the IPv4
// checksum.
func nudge(from, to netip.AddrPort, sequence, acknowledged uint32, octets int) []byte {
	var p []byte
	segment := sizeofTCP + octets
	if to.Addr().Is4() {
		p = make([]byte, sizeofIPv4, sizeofIPv4+segment)
		p[0] = 4<<4 | sizeofIPv4/4
		binary.BigEndian.PutUint16(p[2:], uint16(sizeofIPv4+segment))
		p[8], p[9] = ttl, unix.IPPROTO_TCP
		copy(p[12:], from.Addr().AsSlice())
		copy(p[16:], to.Addr().AsSlice())
	} else {
		p = make([]byte, sizeofIPv6, sizeofIPv6+segment)
		p[0] = 6 << 4
		binary.BigEndian.PutUint16(p[4:], uint16(segment))
		p[6], p[7] = unix.IPPROTO_TCP, ttl
		copy(p[8:], from.Addr().AsSlice())
		copy(p[24:], to.Addr().AsSlice())
	}
	head := len(p)
	p = binary.BigEndian.AppendUint16(p, from.Port())
	p = binary.BigEndian.AppendUint16(p, to.Port())
	p = binary.BigEndian.AppendUint32(p, sequence)
	p = binary.BigEndian.AppendUint32(p, acknowledged)
	p = append(p, sizeofTCP/4<<4, flagACK, 0, 0, 0, 0, 0, 0) // window 0, checksum, no urgent data
	tcp := p[head:]
	sum := sum16(from.Addr().AsSlice()) + sum16(to.Addr().AsSlice()) + unix.IPPROTO_TCP + uint32(segment) + sum16(tcp)
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return append(p, make([]byte, octets)...) // which add nothing to the checksum
}

// sum16 adds the 16-bit words of data, which has an even length (RFC 1071).
func sum16(data []byte) (sum uint32) {
	for ; len(data) >= 2; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	return sum
}
