//go:build linux

// Package route reports the addresses and routes of a network namespace over
// rtnetlink: which addresses are its own, and which way packets to others go.
//
// Every function looks at the namespace of the calling thread. A caller that
// entered another one must have locked its goroutine to that thread.
package route

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Hop is where the packets to an address go first.
type Hop struct {
	Interface string     // they leave through; lo for an address of this namespace
	Gateway   netip.Addr // next hop; invalid when the address itself is on the link. IPv6 may carry IPv4 (RFC 5549)
	Source    netip.Addr // of a socket that binds to none; invalid when the kernel leaves it open
	Local     bool       // they are delivered in this namespace
}

// NoRouteError says that the kernel would not send packets to an address.
type NoRouteError struct {
	To  netip.Addr
	Err unix.Errno // what connect(2) would fail with
}

func (e *NoRouteError) Error() string {
	return fmt.Sprintf("no route to %s: %s", e.To, e.Reason())
}

// Unwrap returns the kernel's error.
func (e *NoRouteError) Unwrap() error { return e.Err }

// Reason is why, in words. Each kind of refusing route has an error number of
// its own: fib_props in net/ipv4/fib_semantics.c, ip6_rt_type_to_error in
// net/ipv6/route.c.
func (e *NoRouteError) Reason() string {
	switch e.Err {
	case unix.EINVAL:
		return "a blackhole route drops it"
	case unix.EACCES:
		return "a prohibit route refuses it"
	case unix.EHOSTUNREACH:
		return "an unreachable route refuses it"
	case unix.EAFNOSUPPORT, unix.EOPNOTSUPP:
		return "this kernel has no IPv6"
	default:
		return e.Err.Error()
	}
}

// noRoute tells the errors that are an answer from those that are a failure to
// ask.
func noRoute(err unix.Errno, to netip.Addr) bool {
	switch err {
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL:
		return true
	case unix.EAFNOSUPPORT, unix.EOPNOTSUPP:
		return to.Is6()
	default:
		return false
	}
}

// To returns the way that a packet to addr takes when a program of the calling
// user sends it without a mark and from no address of its own choice. A zone
// in addr, the name or number of an interface, narrows the look-up to that
// interface. It returns a *[NoRouteError] when there is none.
func To(addr netip.Addr) (Hop, error) {
	addr = addr.Unmap()
	if !addr.IsValid() {
		return Hop{}, fmt.Errorf("route to %v: not an address", addr)
	}
	c, err := dial()
	if err != nil {
		return Hop{}, fmt.Errorf("route to %s: %w", addr, err)
	}
	defer c.close()
	var out uint32
	if addr.Zone() != "" {
		if out, err = c.index(addr.Zone()); err != nil {
			return Hop{}, fmt.Errorf("route to %s: %w", addr, err)
		}
	}
	r, err := c.lookup(addr.WithZone(""), out)
	if err != nil {
		if errno, ok := errnoOf(err); ok && noRoute(errno, addr) {
			return Hop{}, &NoRouteError{To: addr, Err: errno}
		}
		return Hop{}, fmt.Errorf("route to %s: %w", addr, err)
	}
	name, err := c.name(r.out)
	if err != nil {
		return Hop{}, fmt.Errorf("route to %s: %w", addr, err)
	}
	return Hop{Interface: name, Gateway: r.gateway, Source: r.source, Local: r.kind == unix.RTN_LOCAL}, nil
}

// Index returns the number of the interface that a zone means: its name, or
// the number itself. The zones of package net are no substitute: it caches the
// names of whichever namespace it saw first.
func Index(zone string) (uint32, error) {
	c, err := dial()
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", zone, err)
	}
	defer c.close()
	return c.index(zone)
}

// index looks for a name first and takes the zone for a number second, as
// glibc's __inet6_scopeid_pton does.
func (c *conn) index(zone string) (uint32, error) {
	l, err := c.link(0, zone)
	if err == nil {
		return l.index, nil
	}
	if n, notNumber := strconv.ParseUint(zone, 10, 32); notNumber == nil && n > 0 {
		return uint32(n), nil
	}
	return 0, fmt.Errorf("interface %s: %w", zone, err)
}

// name returns the name of an interface.
func (c *conn) name(index uint32) (string, error) {
	l, err := c.link(index, "")
	if err != nil {
		return "", fmt.Errorf("interface %d: %w", index, err)
	}
	return l.name, nil
}
