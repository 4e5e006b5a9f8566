package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Attributes of linux/inet_diag.h.
const (
	inetDiagInfo     = 2
	inetDiagMark     = 15 // Linux 4.9, and only told to who has CAP_NET_ADMIN
	inetDiagCgroupID = 21 // Linux 5.8
)

// allStates are the bits of every state, 1 to 12, of include/net/tcp_states.h.
// The one above, for sockets that are bound and do nothing (Linux 6.8), would
// make the kernel walk one more table, and ss does not ask for it either.
const allStates = 0x1ffe

// inetDiagMsgLen is the size of struct inet_diag_msg of linux/inet_diag.h.
const inetDiagMsgLen = 72

// tcpRequest is a struct inet_diag_req of linux/inet_diag.h, the request that
// came before the one by family. It is the only one that the kernel answers for
// IPv4 and IPv6 together (inet_diag_dump_compat, net/ipv4/inet_diag.c), in one
// walk through the table that all namespaces share, which is most of what a
// look at a small namespace costs.
func tcpRequest(wanted uint32) []byte {
	const size, extensions, states = 60, 3, 52
	b := request(tcpDiagGetSock, size)
	body := b[headerLen:]
	body[extensions] = 1 << (inetDiagInfo - 1)
	binary.NativeEndian.PutUint32(body[states:], wanted)
	return b
}

// udpRequest is a struct inet_diag_req_v2 of linux/inet_diag.h.
func udpRequest(family uint8) []byte {
	const size, protocol, states = 56, 1, 4
	b := request(sockDiagByFamily, size)
	body := b[headerLen:]
	body[0] = family
	body[protocol] = unix.IPPROTO_UDP
	binary.NativeEndian.PutUint32(body[states:], allStates)
	return b
}

func (r *reader) tcp(body []byte) error {
	s := r.socket()
	info, err := parseInet(s, body)
	if err != nil {
		r.drop()
		return err
	}
	s.Protocol = fact.TCP
	// Of a listener the kernel fills in next to nothing, tcp_get_info in
	// net/ipv4/tcp.c.
	if len(info) >= infoSmallest && s.State != fact.Listen {
		s.Conn = r.conn()
		parseInfo(s.Conn, info)
	}
	return nil
}

func (r *reader) udp(body []byte) error {
	s := r.socket()
	if _, err := parseInet(s, body); err != nil {
		r.drop()
		return err
	}
	s.Protocol = fact.UDP
	return nil
}

// parseInet fills s from a struct inet_diag_msg and the attributes behind it,
// and returns the one that has the struct tcp_info, nil where there is none.
func parseInet(s *fact.Socket, b []byte) (info []byte, err error) {
	if len(b) < inetDiagMsgLen {
		return nil, fmt.Errorf("%w: an internet socket of %d bytes", errMalformed, len(b))
	}
	if !parseAddresses(s, b) {
		return nil, fmt.Errorf("%w: an internet socket of family %d", errMalformed, b[0])
	}
	s.State = fact.State(b[1])
	s.Timer = fact.Timer(b[2])
	s.Interface = binary.NativeEndian.Uint32(b[40:])
	s.Cookie = cookie(b[44:])
	// A timer that is overdue was told as a negative number before Linux 5.6.
	if left := int32(binary.NativeEndian.Uint32(b[52:])); left > 0 && s.Timer != fact.TimerNone {
		s.TimerLeft = time.Duration(left) * time.Millisecond
	}
	s.RecvQueue = binary.NativeEndian.Uint32(b[56:])
	s.SendQueue = binary.NativeEndian.Uint32(b[60:])
	s.UID = binary.NativeEndian.Uint32(b[64:])
	s.Inode = binary.NativeEndian.Uint32(b[68:])

	for kind, value, rest, ok := attribute(b[inetDiagMsgLen:]); ok; kind, value, rest, ok = attribute(rest) {
		switch kind {
		case inetDiagInfo:
			info = value
		case inetDiagMark:
			if len(value) >= 4 {
				s.Mark = fact.Seen(binary.NativeEndian.Uint32(value))
			}
		case inetDiagCgroupID:
			if len(value) >= 8 {
				s.Cgroup = binary.NativeEndian.Uint64(value)
			}
		}
	}
	return info, nil
}

// parseAddresses fills in family and addresses from a struct inet_diag_msg.
func parseAddresses(s *fact.Socket, b []byte) (ok bool) {
	localPort, remotePort := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	switch b[0] {
	case unix.AF_INET:
		s.Family = fact.IPv4
		s.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[8:])), localPort)
		s.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[24:])), remotePort)
	case unix.AF_INET6:
		s.Family = fact.IPv6
		local, remote := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		if l, r := fold(local), fold(remote); l.Is4() && r.Is4() && (local.Is4In6() || remote.Is4In6()) {
			s.Family, s.Mapped = fact.IPv4, true
			local, remote = l, r
		}
		s.Local, s.Remote = netip.AddrPortFrom(local, localPort), netip.AddrPortFrom(remote, remotePort)
	default:
		return false
	}
	return true
}

// fold returns what an address is if its socket speaks IPv4. The unspecified
// one may be IPv4 too: a listener on ::ffff:192.0.2.1 has the peer "::".
func fold(a netip.Addr) netip.Addr {
	if a == netip.IPv6Unspecified() {
		return netip.IPv4Unspecified()
	}
	return a.Unmap()
}

// cookie joins the two halves of a socket's cookie, sock_diag_save_cookie in
// net/core/sock_diag.c.
func cookie(b []byte) uint64 {
	return uint64(binary.NativeEndian.Uint32(b)) | uint64(binary.NativeEndian.Uint32(b[4:]))<<32
}
