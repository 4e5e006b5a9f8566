//go:build linux

package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds a conversation with the kernel. rtnetlink answers from
// within the system call that asks, so only a broken kernel gets near it.
const patience = 5 * time.Second

// looks is how often a dump is repeated that was changed under the look.
const looks = 5

var errShort = errors.New("rtnetlink message too short")

type conn struct{ *netlink.Conn }

// dial opens a socket in the namespace of the calling thread.
func dial() (*conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	if err := nl.SetDeadline(time.Now().Add(patience)); err != nil {
		nl.Close()
		return nil, err
	}
	// Linux 4.20 honours the filters of a dump only when asked to; before, it
	// sends everything.
	_ = nl.SetOption(netlink.GetStrictCheck, true)
	return &conn{nl}, nil
}

func (c *conn) close() { _ = c.Close() }

// dump calls f with the payload of each message of a dump. When the kernel says
// that what it was listing changed meanwhile, the dump starts again; f never
// sees a message of a dump that does not count.
func (c *conn) dump(kind uint16, payload []byte, f func([]byte) error) error {
	for range looks {
		msgs, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump},
			Data:   payload,
		})
		if err != nil {
			return err
		}
		if interrupted(msgs) {
			continue
		}
		for _, m := range msgs {
			if err := f(m.Data); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("changed during each of %d looks", looks)
}

func interrupted(msgs []netlink.Message) bool {
	for _, m := range msgs {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return true
		}
	}
	return false
}

// get asks for one thing.
func (c *conn) get(kind uint16, payload []byte) ([]byte, error) {
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   payload,
	})
	if err != nil {
		return nil, err
	}
	if len(msgs) != 1 {
		return nil, fmt.Errorf("%d answers to one question", len(msgs))
	}
	return msgs[0].Data, nil
}

// lookup asks which route a packet to addr takes; out narrows it to one
// interface, 0 does not.
func (c *conn) lookup(addr netip.Addr, out uint32) (route, error) {
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, addr.AsSlice())
	if out != 0 {
		ae.Uint32(unix.RTA_OIF, out)
	}
	attributes, err := ae.Encode()
	if err != nil {
		return route{}, err
	}
	var h [unix.SizeofRtMsg]byte
	h[0], h[1] = family(addr), byte(addr.BitLen())
	data, err := c.get(unix.RTM_GETROUTE, append(h[:], attributes...))
	if err != nil {
		return route{}, err
	}
	return parseRoute(data)
}

// link asks for an interface by its index, or by its name when that is 0.
func (c *conn) link(index uint32, name string) (link, error) {
	var h [unix.SizeofIfInfomsg]byte
	binary.NativeEndian.PutUint32(h[4:], index)
	payload := h[:]
	if index == 0 {
		ae := netlink.NewAttributeEncoder()
		ae.String(unix.IFLA_IFNAME, name)
		attributes, err := ae.Encode()
		if err != nil {
			return link{}, err
		}
		payload = append(payload, attributes...)
	}
	data, err := c.get(unix.RTM_GETLINK, payload)
	if err != nil {
		return link{}, err
	}
	return parseLink(data)
}

func family(addr netip.Addr) uint8 {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// errnoOf returns the error number that the kernel answered with.
func errnoOf(err error) (unix.Errno, bool) {
	var errno unix.Errno
	ok := errors.As(err, &errno)
	return errno, ok
}

// route is a row of a routing table, or the answer to a look-up.
type route struct {
	kind    uint8 // RTN_*
	table   uint32
	to      netip.Prefix
	out     uint32 // interface
	gateway netip.Addr
	source  netip.Addr
}

// parseRoute reads struct rtmsg and its attributes, linux/rtnetlink.h.
func parseRoute(data []byte) (route, error) {
	if len(data) < unix.SizeofRtMsg {
		return route{}, errShort
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofRtMsg:])
	if err != nil {
		return route{}, err
	}
	r := route{kind: data[7], table: uint32(data[4])}
	to := unspecified(data[0])
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_TABLE:
			r.table = ad.Uint32()
		case unix.RTA_OIF:
			r.out = ad.Uint32()
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_GATEWAY:
			r.gateway, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_PREFSRC:
			r.source, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_VIA: // struct rtvia: a family, then an address of it
			if via := ad.Bytes(); len(via) > 2 {
				r.gateway, _ = netip.AddrFromSlice(via[2:])
			}
		}
	}
	r.to = netip.PrefixFrom(to, int(data[1]))
	if ad.Err() == nil && !r.to.IsValid() {
		return route{}, fmt.Errorf("route to %v/%d", to, data[1])
	}
	return r, ad.Err()
}

// unspecified is what a route without RTA_DST leads to.
func unspecified(family uint8) netip.Addr {
	switch family {
	case unix.AF_INET:
		return netip.IPv4Unspecified()
	case unix.AF_INET6:
		return netip.IPv6Unspecified()
	default:
		return netip.Addr{}
	}
}

// parseAddress reads struct ifaddrmsg and its attributes, linux/if_addr.h. On
// a point-to-point link IFA_ADDRESS is the peer and IFA_LOCAL is this end;
// elsewhere IPv6 has no IFA_LOCAL.
func parseAddress(data []byte) (netip.Addr, error) {
	if len(data) < unix.SizeofIfAddrmsg {
		return netip.Addr{}, errShort
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return netip.Addr{}, err
	}
	var local, address netip.Addr
	for ad.Next() {
		switch ad.Type() {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(ad.Bytes())
		}
	}
	if local.IsValid() {
		return local, ad.Err()
	}
	return address, ad.Err()
}

// link is a network interface.
type link struct {
	index uint32
	name  string
}

// parseLink reads struct ifinfomsg and its attributes, linux/if_link.h.
func parseLink(data []byte) (link, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return link{}, errShort
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, err
	}
	l := link{index: binary.NativeEndian.Uint32(data[4:])}
	for ad.Next() {
		if ad.Type() == unix.IFLA_IFNAME {
			l.name = unix.ByteSliceToString(ad.Bytes())
		}
	}
	return l, ad.Err()
}
