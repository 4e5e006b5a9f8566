//go:build linux

package redirect

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// address is a socket address as programs pass it: sockaddr_in or sockaddr_in6.
type address struct {
	netip.AddrPort      // an IPv4 address in an IPv6 one is unmapped, a zone is left out
	inet6          bool // sockaddr_in6
}

// mapped says that it is an IPv4 address for an IPv6 socket.
func (a address) mapped() bool { return a.inet6 && a.Addr().Is4() }

// parseAddress reads an address of another process; ok is false for families
// other than IPv4 and IPv6 and for what is too short.
func parseAddress(b []byte) (a address, ok bool) {
	if len(b) < unix.SizeofSockaddrInet4 {
		return a, false
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		a.AddrPort = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
		return a, true
	case unix.AF_INET6:
		if len(b) < 24 { // SIN6_LEN_RFC2133: without the scope
			return a, false
		}
		a.inet6 = true
		a.AddrPort = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port)
		return a, true
	}
	return a, false
}

// sockaddr returns the address for a socket of the family that a has.
func (a address) sockaddr() unix.Sockaddr {
	if a.inet6 {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// put writes the address as parseAddress reads it, and zeros behind it.
func (a address) put(b []byte) {
	clear(b)
	binary.BigEndian.PutUint16(b[2:], a.Port())
	if a.inet6 {
		binary.NativeEndian.PutUint16(b, unix.AF_INET6)
		addr := a.Addr().As16()
		copy(b[8:24], addr[:])
		return
	}
	binary.NativeEndian.PutUint16(b, unix.AF_INET)
	addr := a.Addr().As4()
	copy(b[4:8], addr[:])
}

// localAddress and peerAddress are what a socket says of itself and its peer; ok
// is false when it has none, or one of another family. Package unix asks twice
// for each.
func localAddress(fd int) (a address, ok bool) { return addressOf(unix.SYS_GETSOCKNAME, fd) }
func peerAddress(fd int) (a address, ok bool)  { return addressOf(unix.SYS_GETPEERNAME, fd) }

func addressOf(nr uintptr, fd int) (a address, ok bool) {
	var b [unix.SizeofSockaddrAny]byte
	length := uint32(len(b))
	_, _, errno := unix.RawSyscall(nr, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&length)))
	if errno != 0 {
		return a, false
	}
	return parseAddress(b[:min(int(length), len(b))])
}
