//go:build linux

package redirect

import (
	"bytes"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
)

// musl keeps the nameservers that it asks in an array, zeros behind the last
// (union { sockaddr_in; sockaddr_in6 } ns[MAXNS] of __res_msend_rc in
// src/network/res_msend.c), sends to each by sendto(2) with a pointer into it, and
// passes over what comes from somebody who is not in it.
const (
	muslServers = 3 // MAXNS
	muslSize    = unix.SizeofSockaddrInet6
)

// sendto replaces all nameservers in that array by the stub, and lets the call
// go on, to where it points now. Other programs that send like this are left
// alone, since they would not accept the answer.
func (r *Redirector) sendto(c *notify.Call) answer {
	at := c.Args[4]
	a, ok := r.wants(c, r.read(c, at, c.Args[5], new(room)))
	if !ok {
		return goOn
	}
	all := r.servers.list()
	all = all[:min(len(all), muslServers)]
	for i, server := range all {
		if server != a.Addr() || at < uint64(i*muslSize) {
			continue
		}
		array := make([]byte, muslServers*muslSize)
		start := at - uint64(i*muslSize)
		if readMemory(int(c.TID), start, array) != nil || !isMusl(array, all, a.inet6) {
			continue
		}
		return r.rewrite(c, start, array[:len(all)*muslSize], a)
	}
	r.Tally.add(r.program(c), Unconnected)
	return goOn
}

// isMusl reports that memory is the array for these servers.
func isMusl(array []byte, servers []netip.Addr, inet6 bool) bool {
	want := make([]byte, muslServers*muslSize)
	for i, server := range servers {
		if !inet6 && !server.Is4() {
			return false
		}
		entry := want[i*muslSize : (i+1)*muslSize]
		address{netip.AddrPortFrom(server, dnsPort), inet6}.put(entry)
		if inet6 { // the scope is that of a zone
			copy(entry[24:], array[i*muslSize+24:(i+1)*muslSize])
		}
	}
	return bytes.Equal(array, want)
}

// rewrite needs no other socket: that of musl can send to any address.
func (r *Redirector) rewrite(c *notify.Call, start uint64, array []byte, a address) answer {
	fd, err := r.borrow(c)
	if err != nil {
		if fd, err = r.exchange(c, a); err != nil {
			return r.failed(c, err)
		}
	}
	defer unix.Close(fd)
	if r.netns.other(fd) {
		r.Tally.add(r.program(c), Elsewhere)
		return goOn
	}
	if !r.allow(fd, false, true) {
		return r.failed(c, errNoInet)
	}
	to := r.IPv4 // an IPv6 socket of musl's takes both
	if a.inet6 {
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	for i := 0; i < len(array); i += muslSize {
		address{to, a.inet6}.put(array[i : i+muslSize])
	}
	if err := writeMemory(int(c.TID), start, array); err != nil {
		return r.failed(c, err)
	}
	r.Tally.add(r.program(c), Redirected)
	return goOn
}

// exchange puts a new socket like musl's in the place of one that cannot be
// borrowed, to know its port.
func (r *Redirector) exchange(c *notify.Call, a address) (int, error) {
	d, err := describe(int(c.TID), descriptorOf(c))
	if err != nil || d.stream {
		return -1, errNoInet
	}
	fd, err := newSocket(address{inet6: a.inet6}, false)
	if err != nil {
		return -1, err
	}
	if a.inet6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err == nil {
		any := netip.IPv4Unspecified()
		if a.inet6 {
			any = netip.IPv6Unspecified()
		}
		err = unix.Bind(fd, address{netip.AddrPortFrom(any, 0), a.inet6}.sockaddr())
	}
	if err == nil {
		err = r.Listener.Replace(c.ID, descriptorOf(c), fd, d.closeOnExec)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
