//go:build linux

package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Local returns the addresses that are this namespace's own, sorted and
// without zones: those of its interfaces, up or not, and the single addresses
// that its local routing table claims beyond them (AnyIP). Ranges such as
// 127.0.0.0/8 are in [Delivered] only.
func Local() ([]netip.Addr, error) {
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("local addresses: %w", err)
	}
	defer c.close()
	own, err := c.addresses()
	if err != nil {
		return nil, fmt.Errorf("local addresses: %w", err)
	}
	routes, err := c.localRoutes()
	if err != nil {
		return nil, fmt.Errorf("local addresses: %w", err)
	}
	for _, r := range routes {
		if r.kind == unix.RTN_LOCAL && r.to.IsSingleIP() {
			own = append(own, r.to.Addr())
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return slices.Compact(own), nil
}

// Delivered returns what the kernel delivers in this namespace instead of
// forwarding it, sorted: all of [Local], the ranges that are local as a whole,
// the broadcast addresses of its links, and its anycast addresses. Multicast is
// not in it, because no table says where that ends.
func Delivered() ([]netip.Prefix, error) {
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("local routes: %w", err)
	}
	defer c.close()
	own, err := c.addresses()
	if err != nil {
		return nil, fmt.Errorf("local routes: %w", err)
	}
	routes, err := c.localRoutes()
	if err != nil {
		return nil, fmt.Errorf("local routes: %w", err)
	}
	var all []netip.Prefix
	for _, addr := range own {
		all = append(all, netip.PrefixFrom(addr, addr.BitLen()))
	}
	for _, r := range routes {
		switch r.kind {
		case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST:
			all = append(all, r.to)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all), nil
}

// addresses returns the addresses of all interfaces.
func (c *conn) addresses() ([]netip.Addr, error) {
	var own []netip.Addr
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var h [unix.SizeofIfAddrmsg]byte
		h[0] = family
		err := c.dump(unix.RTM_GETADDR, h[:], func(data []byte) error {
			addr, err := parseAddress(data)
			if addr.IsValid() {
				own = append(own, addr)
			}
			return err
		})
		if err != nil && !(family == unix.AF_INET6 && noFamily(err)) {
			return nil, err
		}
	}
	return own, nil
}

// localRoutes returns the rows of the local table. Kernels before 4.20 cannot
// filter and send all tables, so the rows are filtered here too. Addresses that
// belong to a VRF are in that VRF's table, but addresses returns them.
func (c *conn) localRoutes() ([]route, error) {
	var all []route
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var h [unix.SizeofRtMsg]byte
		h[0], h[4] = family, unix.RT_TABLE_LOCAL
		err := c.dump(unix.RTM_GETROUTE, h[:], func(data []byte) error {
			r, err := parseRoute(data)
			if err == nil && r.table == unix.RT_TABLE_LOCAL {
				all = append(all, r)
			}
			return err
		})
		if err != nil && !(family == unix.AF_INET6 && noFamily(err)) {
			return nil, err
		}
	}
	return all, nil
}

// noFamily reports that the kernel does not speak the family asked for.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}
