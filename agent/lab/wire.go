//go:build linux

package lab

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// wireTimeout bounds the wait for a new wire to carry packets.
const wireTimeout = 10 * time.Second

// Wire connects two hosts with a wire of their own and gives each end an
// address with its prefix length, IPv4 or IPv6, such as 10.77.1.1/24. The
// interfaces of a host are eth0, eth1 and so on, in the order of its wires.
//
// Between the two is a switch (a bridge in a namespace of its own), so that the
// death of one host is as silent as on a real network: with a bare veth pair the
// other end would lose its carrier, and with it all that it knows about its
// neighbours (arp_netdev_event in net/ipv4/arp.c).
func (l *Lab) Wire(a *Host, addrA string, b *Host, addrB string) {
	l.t.Helper()
	if l.room == nil {
		l.room = l.Host("switches")
	}
	bridge := fmt.Sprintf("wire%d", l.wires)
	l.wires++
	l.ip(l.room, "link", "add", bridge, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
	l.ip(l.room, "link", "set", bridge, "addrgenmode", "none", "up")
	l.plug(a, addrA, bridge, "a")
	l.plug(b, addrB, bridge, "b")
	a.awaitCarrier()
	b.awaitCarrier()
}

// plug connects a new interface of h to a new port of the bridge.
func (l *Lab) plug(h *Host, addr, bridge, side string) {
	l.t.Helper()
	dev, port := fmt.Sprintf("eth%d", len(h.ports)), bridge+side
	h.ports = append(h.ports, port)
	l.ip(l.room, "link", "add", port, "type", "veth", "peer", "name", dev, "netns", h.netns)
	l.ip(l.room, "link", "set", port, "master", bridge, "addrgenmode", "none", "up")
	args := []string{"addr", "add", addr, "dev", dev}
	if strings.Contains(addr, ":") {
		args = append(args, "nodad") // nobody else is there, and it takes a second
	}
	l.ip(h, args...)
	l.ip(h, "link", "set", dev, "up")
}

// Unplug kills the host as its peers see it: from now on nothing goes to it or
// comes from it, and nobody is told.
func (h *Host) Unplug() {
	h.lab.t.Helper()
	h.setPorts("down")
}

// Plug undoes Unplug. The host is as it was: its addresses, routes and
// connections are still there.
func (h *Host) Plug() {
	h.lab.t.Helper()
	h.setPorts("up")
	h.awaitCarrier()
}

func (h *Host) setPorts(state string) {
	h.lab.t.Helper()
	for _, port := range h.ports {
		h.lab.ip(h.lab.room, "link", "set", port, state)
	}
}

// awaitCarrier waits until the host's interfaces and the ports that they are
// plugged into are running, which the kernel finds out in the background
// (net/core/link_watch.c).
func (h *Host) awaitCarrier() {
	h.lab.t.Helper()
	if len(h.ports) == 0 {
		return
	}
	for deadline := time.Now().Add(wireTimeout); ; time.Sleep(time.Millisecond) {
		err := h.lab.room.Do(func() error { return running(h.ports...) })
		if err == nil {
			err = h.Do(func() error { return running(h.devs()...) })
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.lab.t.Fatalf("lab: %s: no carrier after %v: %v", h.name, wireTimeout, err)
		}
	}
}

// devs returns the names of the host's interfaces, in the order of its ports.
func (h *Host) devs() []string {
	devs := make([]string, len(h.ports))
	for i := range devs {
		devs[i] = fmt.Sprintf("eth%d", i)
	}
	return devs
}

// running returns an error unless all interfaces of this thread's namespace
// can carry packets.
func running(names ...string) error {
	for _, name := range names {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if ifi.Flags&net.FlagRunning == 0 {
			return fmt.Errorf("%s is not running", name)
		}
	}
	return nil
}
