//go:build linux

// Package conntrack reports the connection tracking table of a network
// namespace: how full it is, and which flows only pass through.
//
// Every function looks at the namespace of the calling thread. A caller that
// entered another one must have locked its goroutine to that thread.
package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Size returns how many entries the table of the namespace has and may have.
// netns is its inode, only passed on. It needs no capability, except where the
// kernel hides these settings: there ctnetlink is asked, as [Read] does, which
// needs CAP_NET_ADMIN.
//
// Max is unknown where the kernel sets no limit, nf_conntrack_max = 0. The
// error is an [errors.ErrUnsupported] when the kernel does not track
// connections.
func Size(netns uint32) (fact.Conntrack, error) {
	return kernel{proc: "/proc", sys: "/sys"}.size(netns)
}

// Read does what [Size] does and reads the entries too, to find the flows that
// this namespace only forwards. It needs CAP_NET_ADMIN; without, the error is a
// [fs.ErrPermission] and what Size returns is returned with it. Where reading
// would load a kernel module the error is an [errors.ErrUnsupported] that names
// the module.
//
// local is what is delivered in this namespace, as route.Delivered returns it.
// A flow is transit when neither who began it (the source of the original
// direction) nor who really answers (the source of the reply direction) is
// there. So:
//
//   - one that arrives at an address of this namespace and is sent on to another
//     host by DNAT is transit: its ends are the client and the backend;
//   - masquerading changes nothing, as it rewrites where replies go to, and not
//     who began or who answers;
//   - one that a program of this namespace began or answers is not, whatever NAT
//     makes of it, and REDIRECT makes it one that is answered here;
//   - a host that reaches itself by way of this one (hairpin) is transit;
//   - multicast, broadcast, DHCP from 0.0.0.0 and IPv6 link-local addresses are
//     never forwarded as a connection, so they are not.
//
// A proxy that answers for foreign addresses (TPROXY) cannot be told from
// forwarding by the table alone. Only TCP and UDP are connections; the rest is
// counted in Entries. A flow that passes several conntrack zones is listed once
// for each.
//
// Entries are read as a stream, so memory grows only with the transit flows,
// by 160 bytes each.
func Read(netns uint32, local []netip.Prefix) (fact.Conntrack, error) {
	k := kernel{proc: "/proc", sys: "/sys"}
	table, err := k.size(netns)
	if err != nil {
		return table, err
	}
	if !k.netlinkLoaded() {
		return table, fmt.Errorf("conntrack entries: the module nf_conntrack_netlink is not loaded: %w", errors.ErrUnsupported)
	}
	here := newSet(local)
	entries, transit := 0, []fact.Flow{}
	err = dump(func(e entry) {
		entries++
		if e.known() && !here.has(e.original.source.Addr()) && !here.has(e.reply.source.Addr()) {
			transit = append(transit, e.flow())
		}
	})
	if err != nil {
		return table, fmt.Errorf("conntrack entries: %w", explain(err))
	}
	table.Entries, table.Transit = fact.Seen(entries), transit
	return table, nil
}

// explain gives an error of the kernel the meaning that callers ask for:
// fs.ErrPermission is an EPERM already, and lacks which capability.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("needs CAP_NET_ADMIN: %w", err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("this kernel has no ctnetlink (%w): %w", err, errors.ErrUnsupported)
	default:
		return err
	}
}

// kernel is where the kernel shows its settings and modules.
type kernel struct{ proc, sys string }

// size reads the settings first: whoever may look at all may read them, and
// /proc/sys/net is that of the thread that reads. Kernels hide them in
// namespaces that an unprivileged user made; then ctnetlink is asked. The
// limit counts the entries of each namespace on its own
// (__nf_conntrack_alloc in net/netfilter/nf_conntrack_core.c).
func (k kernel) size(netns uint32) (fact.Conntrack, error) {
	table := fact.Conntrack{Netns: netns}
	count, err := k.setting("nf_conntrack_count")
	if err == nil {
		table.Count = fact.Seen(count)
		var limit int
		if limit, err = k.setting("nf_conntrack_max"); err == nil && limit > 0 {
			table.Max = fact.Seen(limit)
		}
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return table, err
	}
	if !k.netlinkLoaded() {
		return table, fmt.Errorf("conntrack: the kernel does not track connections (nf_conntrack is not loaded): %w", errors.ErrUnsupported)
	}
	s, err := stats()
	if err != nil {
		return table, fmt.Errorf("conntrack size: %w", explain(err))
	}
	table.Count = fact.Seen(int(s.entries))
	if s.limit > 0 {
		table.Max = fact.Seen(int(s.limit))
	}
	return table, nil
}

// setting reads a number of /proc/sys/net/netfilter.
func (k kernel) setting(name string) (int, error) {
	path := k.proc + "/sys/net/netfilter/" + name
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: %q is not a count", path, text)
	}
	return n, nil
}

// netlinkLoaded reports that asking ctnetlink loads no module, as far as it can
// be known. A module that is loaded has its folder with initstate; one built
// into the kernel has none, or only its parameters. So when nf_conntrack was
// built in, its netlink half may have been too, and only asking would tell.
func (k kernel) netlinkLoaded() bool {
	if _, err := os.Stat(k.sys + "/module/nf_conntrack_netlink"); err == nil {
		return true
	}
	if _, err := os.Stat(k.sys + "/module/nf_conntrack"); err != nil {
		return false
	}
	_, err := os.Stat(k.sys + "/module/nf_conntrack/initstate")
	return errors.Is(err, fs.ErrNotExist)
}

// set is a set of addresses.
type set struct {
	single map[netip.Addr]struct{}
	ranges []netip.Prefix
}

func newSet(prefixes []netip.Prefix) set {
	s := set{single: make(map[netip.Addr]struct{}, len(prefixes))}
	for _, p := range prefixes {
		if p.IsSingleIP() {
			s.single[p.Addr()] = struct{}{}
		} else {
			s.ranges = append(s.ranges, p)
		}
	}
	return s
}

// has reports that addr is in the set, or that nothing from or to it is
// forwarded as a connection.
func (s set) has(addr netip.Addr) bool {
	if addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() || addr == broadcast ||
		(addr.Is6() && addr.IsLinkLocalUnicast()) { // link-local IPv4 is routed: clouds have a server at 169.254.169.254
		return true
	}
	if _, ok := s.single[addr]; ok {
		return true
	}
	for _, p := range s.ranges {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// broadcast is the limited broadcast address, RFC 919.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
