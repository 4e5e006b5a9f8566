package tcpevent

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Kind is what happened.
type Kind uint8

// The kinds of event, as enum kind of tcpevent.bpf.c numbers them.
const (
	Retransmit Kind = iota + 1 // the retransmission timer expired: what was sent is not acknowledged
	Probe                      // a keepalive probe is due: now it is sent, or the connection given up
)

func (k Kind) String() string {
	switch k {
	case Retransmit:
		return "retransmit"
	case Probe:
		return "probe"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Event is something that happened to a TCP connection.
type Event struct {
	Kind        Kind
	State       fact.State     // of the connection then
	At          time.Duration  // when, by CLOCK_MONOTONIC
	Netns       uint32         // inode of its network namespace
	Local       netip.AddrPort // IPv4 also where an IPv6 socket speaks it
	Remote      netip.AddrPort
	Interface   uint32 // that the socket is bound to, as in fact.Socket
	Cookie      uint64 // as in fact.Socket; 0 when nobody has asked for it before
	Retransmits uint8  // how often the same data was sent again, the first time included
	Unanswered  uint8  // of a Probe: how many before it got no answer
}

const recordSize = int(unsafe.Sizeof(eventsEvent{}))

// decode reads one record. The layout is that of the type which bpf2go made
// from the C.
func decode(raw []byte) (Event, error) {
	var r eventsEvent
	// What the kernel hands over is rounded up to eight bytes, as is the record.
	if len(raw) != recordSize {
		return Event{}, fmt.Errorf("a record of %d bytes, of %d", len(raw), recordSize)
	}
	e := Event{
		At:        time.Duration(binary.NativeEndian.Uint64(raw[unsafe.Offsetof(r.At):])),
		Cookie:    binary.NativeEndian.Uint64(raw[unsafe.Offsetof(r.Cookie):]),
		Netns:     binary.NativeEndian.Uint32(raw[unsafe.Offsetof(r.Netns):]),
		Interface: binary.NativeEndian.Uint32(raw[unsafe.Offsetof(r.Device):]),
		Kind:      Kind(raw[unsafe.Offsetof(r.Kind)]),
		State:     fact.State(raw[unsafe.Offsetof(r.State)]),
	}
	switch count := raw[unsafe.Offsetof(r.Count)]; e.Kind {
	case Retransmit:
		e.Retransmits = count
	case Probe:
		e.Unanswered = count
	}
	local, remote := raw[unsafe.Offsetof(r.Local):], raw[unsafe.Offsetof(r.Remote):]
	localPort := binary.NativeEndian.Uint16(raw[unsafe.Offsetof(r.LocalPort):])
	remotePort := binary.BigEndian.Uint16(raw[unsafe.Offsetof(r.RemotePort):])
	switch family := raw[unsafe.Offsetof(r.Family)]; family {
	case unix.AF_INET:
		e.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(local)), localPort)
		e.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(remote)), remotePort)
	case unix.AF_INET6:
		e.Local = netip.AddrPortFrom(netip.AddrFrom16([16]byte(local)).Unmap(), localPort)
		e.Remote = netip.AddrPortFrom(netip.AddrFrom16([16]byte(remote)).Unmap(), remotePort)
	default:
		return Event{}, fmt.Errorf("a record of family %d", family)
	}
	return e, nil
}
