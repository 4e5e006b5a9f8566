//go:build linux

package conntrack

import (
	"encoding/binary"
	"errors"
	"iter"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Attributes of an entry, enum ctattr_type of
// linux/netfilter/nfnetlink_conntrack.h and the enums nested in it.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaTimeout    = 7

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaProtoInfoTCP      = 1
	ctaProtoInfoTCPState = 1

	ctaStatsGlobalEntries = 1
	ctaStatsGlobalMax     = 2
)

// Bits of ctaStatus, enum ip_conntrack_status of
// linux/netfilter/nf_conntrack_common.h.
const (
	statusOffload   = 1 << 14
	statusHWOffload = 1 << 15
)

// tcpStates are the table's words, tcp_conntrack_names in
// net/netfilter/nf_conntrack_proto_tcp.c.
var tcpStates = [...]string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT",
	"CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

var errMalformed = errors.New("malformed conntrack entry")

// tuple is one direction of a flow, as its packets are addressed before NAT
// rewrites them.
type tuple struct {
	protocol            uint8
	source, destination netip.AddrPort
}

// entry is one row of the table.
type entry struct {
	original, reply tuple
	status          uint32
	timeout         uint32 // seconds; absent while a flowtable forwards the flow
	tcp             uint8  // state
}

// known reports that the entry is of a protocol that facts can name.
func (e *entry) known() bool { return protocol(e.original.protocol) != fact.ProtocolUnknown }

func protocol(number uint8) fact.Protocol {
	switch number {
	case unix.IPPROTO_TCP:
		return fact.TCP
	case unix.IPPROTO_UDP:
		return fact.UDP
	default:
		return fact.ProtocolUnknown
	}
}

// flow returns the entry as a fact.
func (e *entry) flow() fact.Flow {
	return fact.Flow{
		Protocol:    protocol(e.original.protocol),
		State:       e.state(),
		Source:      e.original.source,
		Destination: e.original.destination,
		ReplySource: e.reply.source,
		ReplyTo:     e.reply.destination,
		Timeout:     time.Duration(e.timeout) * time.Second,
	}
}

// state is the word that conntrack(8) prints. The table has neither a state nor
// a timeout for what a flowtable forwards without it (ctnetlink_fill_info in
// net/netfilter/nf_conntrack_netlink.c).
func (e *entry) state() string {
	switch {
	case e.status&statusHWOffload != 0:
		return "HW_OFFLOAD"
	case e.status&statusOffload != 0:
		return "OFFLOAD"
	case e.original.protocol == unix.IPPROTO_TCP && int(e.tcp) < len(tcpStates):
		return tcpStates[e.tcp]
	default:
		return ""
	}
}

// parseEntry reads the attributes of one entry.
func parseEntry(data []byte) (entry, error) {
	var e entry
	for kind, value := range attributes(data) {
		switch kind {
		case ctaTupleOrig:
			e.original = parseTuple(value)
		case ctaTupleReply:
			e.reply = parseTuple(value)
		case ctaStatus:
			e.status = number(value)
		case ctaTimeout:
			e.timeout = number(value)
		case ctaProtoInfo:
			e.tcp = parseTCPState(value)
		}
	}
	if !e.original.source.Addr().IsValid() || !e.reply.source.Addr().IsValid() {
		return entry{}, errMalformed
	}
	return e, nil
}

func parseTuple(data []byte) tuple {
	var (
		t                tuple
		source, dest     netip.Addr
		fromPort, toPort uint16
	)
	for kind, value := range attributes(data) {
		switch kind {
		case ctaTupleIP:
			for kind, value := range attributes(value) {
				switch kind {
				case ctaIPv4Src, ctaIPv6Src:
					source, _ = netip.AddrFromSlice(value)
				case ctaIPv4Dst, ctaIPv6Dst:
					dest, _ = netip.AddrFromSlice(value)
				}
			}
		case ctaTupleProto:
			for kind, value := range attributes(value) {
				switch {
				case kind == ctaProtoNum && len(value) == 1:
					t.protocol = value[0]
				case kind == ctaProtoSrcPort && len(value) == 2:
					fromPort = binary.BigEndian.Uint16(value)
				case kind == ctaProtoDstPort && len(value) == 2:
					toPort = binary.BigEndian.Uint16(value)
				}
			}
		}
	}
	t.source, t.destination = netip.AddrPortFrom(source, fromPort), netip.AddrPortFrom(dest, toPort)
	return t
}

func parseTCPState(data []byte) uint8 {
	for kind, value := range attributes(data) {
		if kind != ctaProtoInfoTCP {
			continue
		}
		for kind, value := range attributes(value) {
			if kind == ctaProtoInfoTCPState && len(value) == 1 {
				return value[0]
			}
		}
	}
	return 0
}

// totals are the numbers of one namespace.
type totals struct{ entries, limit uint32 }

func parseStats(data []byte) totals {
	var s totals
	for kind, value := range attributes(data) {
		switch kind {
		case ctaStatsGlobalEntries:
			s.entries = number(value)
		case ctaStatsGlobalMax:
			s.limit = number(value)
		}
	}
	return s
}

// number reads a 32-bit value. nfnetlink sends all numbers in network order.
func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

// attributes yields the netlink attributes of data and stops at the first that
// does not fit. The headers are in the machine's byte order. It allocates
// nothing: a table has a quarter of a million entries of twenty attributes.
func attributes(data []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(data))
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofNlAttr || size > len(data) {
				return
			}
			if !yield(kind, data[unix.SizeofNlAttr:size]) {
				return
			}
			data = data[min(align(size), len(data)):]
		}
	}
}

// align rounds up to where the next attribute or message starts.
func align(size int) int { return (size + 3) &^ 3 }
