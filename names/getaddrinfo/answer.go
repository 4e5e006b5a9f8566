//go:build linux && (amd64 || arm64)

package getaddrinfo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// What a question begins with, by network; asker/main.go has all of the protocol.
var families = map[string]byte{"ip": '0', "ip4": '4', "ip6": '6'}

// noSuchHost is what package net says of a name that does not exist.
const noSuchHost = "no such host"

// What getaddrinfo returns, in glibc and in musl: EAI_* of netdb.h.
const (
	eaiAgain      = -3
	eaiNoName     = -2
	eaiNoData     = -5
	eaiAddrFamily = -9
	eaiSystem     = -11
)

// meanings is what the others mean: gai_strerror of glibc, in lower case.
var meanings = map[int32]string{
	-1:  "bad value for ai_flags",
	-3:  "temporary failure in name resolution",
	-4:  "non-recoverable failure in name resolution",
	-6:  "ai_family not supported",
	-7:  "ai_socktype not supported",
	-8:  "servname not supported for ai_socktype",
	-10: "memory allocation failure",
	-12: "result too large for supplied buffer",
}

// An answer is what getaddrinfo said.
type answer struct {
	id        uint32
	code      int32
	errno     syscall.Errno // when code is EAI_SYSTEM
	addresses []netip.Addr
}

// parse reads a message of the process. Whatever it is, it does not panic, and
// keeps nothing of it.
func parse(message []byte) (answer, error) {
	if len(message) < 12 {
		return answer{}, fmt.Errorf("an answer of %d bytes", len(message))
	}
	a := answer{
		id:    binary.LittleEndian.Uint32(message),
		code:  int32(binary.LittleEndian.Uint32(message[4:])),
		errno: syscall.Errno(binary.LittleEndian.Uint32(message[8:])),
	}
	for rest := message[12:]; len(rest) > 0; {
		switch {
		case rest[0] == 4 && len(rest) >= 5:
			a.addresses = append(a.addresses, netip.AddrFrom4([4]byte(rest[1:])))
			rest = rest[5:]
		case rest[0] == 6 && len(rest) >= 21:
			addr := netip.AddrFrom16([16]byte(rest[1:]))
			if scope := binary.LittleEndian.Uint32(rest[17:]); scope != 0 {
				addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
			}
			a.addresses = append(a.addresses, addr)
			rest = rest[21:]
		default:
			return answer{}, fmt.Errorf("an address that begins with %d and is %d bytes long", rest[0], len(rest))
		}
	}
	return a, nil
}

// result is the answer as Lookup returns it.
func (a answer) result(host string) ([]netip.Addr, error) {
	dns := &net.DNSError{Name: host}
	switch a.code {
	case 0:
		if found := distinct(a.addresses); len(found) > 0 {
			return found, nil
		}
		dns.Err, dns.IsNotFound = noSuchHost, true
	case eaiNoName, eaiNoData, eaiAddrFamily:
		dns.Err, dns.IsNotFound = noSuchHost, true
	case eaiSystem:
		errno := a.errno
		if errno == 0 { // getaddrinfo ran out of something and forgot to say of what, see golang.org/issue/6232
			errno = syscall.EMFILE
		}
		dns.Err, dns.UnwrapErr = "getaddrinfo: "+errno.Error(), errno
		dns.IsTimeout, dns.IsTemporary = errno.Timeout(), errno.Temporary()
	default:
		meaning, known := meanings[a.code]
		if !known {
			meaning = fmt.Sprintf("error %d", a.code)
		}
		dns.Err, dns.IsTemporary = "getaddrinfo: "+meaning, a.code == eaiAgain
	}
	return nil, dns
}

// distinct leaves out what comes a second time, and names zones.
func distinct(addresses []netip.Addr) []netip.Addr {
	seen := make(map[netip.Addr]bool, len(addresses))
	found := addresses[:0]
	for _, addr := range addresses {
		if seen[addr] {
			continue
		}
		seen[addr] = true
		if index, err := strconv.Atoi(addr.Zone()); err == nil {
			if of, err := net.InterfaceByIndex(index); err == nil {
				addr = addr.WithZone(of.Name)
			}
		}
		found = append(found, addr)
	}
	return found
}

// failure is the error of a question that could not be asked.
func failure(host string, err error) error {
	return &net.DNSError{Name: host, Err: err.Error(), UnwrapErr: err, IsTemporary: !errors.Is(err, ErrUnavailable)}
}

// tooLate is the error of a question whose context ended after d.
func tooLate(host string, d time.Duration, err error) error {
	timeout := errors.Is(err, context.DeadlineExceeded)
	return &net.DNSError{
		Name: host, Err: fmt.Sprintf("getaddrinfo has not answered within %v: %v", d.Round(time.Millisecond), err), UnwrapErr: err,
		IsTimeout: timeout, IsTemporary: timeout,
	}
}
