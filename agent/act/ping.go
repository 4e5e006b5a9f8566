package act

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/netns"
)

// The messages of RFC 792 and RFC 4443 that a pinger knows.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	echoLen                  = 8
)

// pinger sends ICMP echo requests to the peer of a connection, from the address
// and the interface of the connection.
type pinger struct {
	fd       int
	v6       bool
	id       uint16
	sent     uint16
	answered bool
}

// newPinger opens a raw socket in the namespace of s, which needs CAP_NET_RAW.
// It hears nothing but what its peer sends.
func newPinger(ns fact.Namespace, s *fact.Socket) (*pinger, error) {
	p := &pinger{fd: -1, v6: s.Remote.Addr().Is6()}
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails, see its documentation
	p.id = binary.BigEndian.Uint16(id[:])
	domain, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if p.v6 {
		domain, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	err := netns.Do(ns, func() (err error) {
		p.fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	if err := p.aim(s); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// aim fixes both ends.
func (p *pinger) aim(s *fact.Socket) error {
	if s.Interface != 0 {
		if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, int(s.Interface)); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(p.fd, rawAddress(s.Local.Addr(), s.Interface)); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("connect", unix.Connect(p.fd, rawAddress(s.Remote.Addr(), s.Interface)))
}

func rawAddress(a netip.Addr, iface uint32) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	to := &unix.SockaddrInet6{Addr: a.As16()}
	if a.IsLinkLocalUnicast() {
		to.ZoneId = iface
	}
	return to
}

func (p *pinger) close() { unix.Close(p.fd) }

// ping sends the next request. One that cannot be sent is one that is not
// answered.
func (p *pinger) ping() {
	b := make([]byte, echoLen)
	b[0] = echoRequest4
	if p.v6 {
		b[0] = echoRequest6
	}
	p.sent++
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.sent)
	if !p.v6 { // of ICMPv6 the kernel computes it
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	_ = unix.Send(p.fd, b, unix.MSG_DONTWAIT)
}

// heard reports whether any request was answered so far. It reads no more at a
// time than a peer that answers could have sent.
func (p *pinger) heard() bool {
	var b [256]byte
	for range 64 {
		if p.answered {
			break
		}
		n, _, err := unix.Recvfrom(p.fd, b[:], unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			break
		}
		p.answered = isReply(b[:n], p.v6, p.id)
	}
	return p.answered
}

// isReply reports whether b is an answer to the requests of id. Of IPv4 a raw
// socket shows the header too (raw(7)).
func isReply(b []byte, v6 bool, id uint16) bool {
	reply := byte(echoReply6)
	if !v6 {
		reply = echoReply4
		if len(b) == 0 {
			return false
		}
		header := int(b[0]&0xf) * 4
		if b[0]>>4 != 4 || header < 20 || header > len(b) {
			return false
		}
		b = b[header:]
	}
	return len(b) >= echoLen && b[0] == reply && b[1] == 0 && binary.BigEndian.Uint16(b[4:]) == id
}

// checksum is that of RFC 1071 over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
