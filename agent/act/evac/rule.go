//go:build linux

package evac

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// tuple is who began a flow and whom it addressed, before any rewriting: what
// connection tracking knows it by. The addresses of a packet would not do. Two
// flows of one client to two addresses that lead to the same server may have
// the same port, and then look the same where they are forwarded.
type tuple struct{ from, to netip.AddrPort }

func tupleOf(f *fact.Flow) tuple { return tuple{f.Source, f.Destination} }

// protocol is how connection tracking and sets have one IP version.
type protocol struct {
	suffix      string // of the names of its sets
	size        int    // of an address
	source      uint32 // key of the expression ct; it ends the rule for the other version
	destination uint32
	keyType     uint32 // by which nft(8) prints the sets
}

const (
	// Numbers of nft(8)'s types, include/datatype.h of nftables, six bits each.
	typeIPv4      = 7
	typeIPv6      = 8
	typeService   = 13
	typeDirection = 27

	// Keys of the expression ct, enum nft_ct_keys of linux/netfilter/nf_tables.h,
	// Linux 4.17.
	ctSourceIPv4      = 19
	ctDestinationIPv4 = 20
	ctSourceIPv6      = 21
	ctDestinationIPv6 = 22

	original = 0 // enum ip_conntrack_dir
	reply    = 1
)

func concatenated(address uint32) uint32 {
	return address<<18 | typeService<<12 | address<<6 | typeService
}

var (
	ipv4 = protocol{"4", 4, ctSourceIPv4, ctDestinationIPv4, concatenated(typeIPv4)}
	ipv6 = protocol{"6", 16, ctSourceIPv6, ctDestinationIPv6, concatenated(typeIPv6)}
)

func protocolOf(t tuple) protocol {
	if t.from.Addr().Is4() {
		return ipv4
	}
	return ipv6
}

const sizeofRegister = 4 // ports and directions are padded to one

// keySize is the length of a tuple in a set.
func (p protocol) keySize() int { return 2 * (p.size + sizeofRegister) }

// key is a tuple as the registers hold it.
func (p protocol) key(t tuple) []byte {
	k := make([]byte, 0, p.keySize()+sizeofRegister)
	for _, end := range []netip.AddrPort{t.from, t.to} {
		k = append(k, end.Addr().AsSlice()...)
		k = binary.BigEndian.AppendUint16(k, end.Port())
		k = append(k, 0, 0)
	}
	return k
}

// An answer is that a packet of a flow was answered with a reset: one of who
// began it, or one in reply.
type answer struct {
	tuple
	reply bool
}

// key is an answer as the registers hold it.
func (a answer) key() []byte {
	k := protocolOf(a.tuple).key(a.tuple)
	if a.reply {
		return append(k, reply, 0, 0, 0)
	}
	return append(k, original, 0, 0, 0)
}

// parseAnswer reads what key writes; its length says which protocol it is of.
func parseAnswer(k []byte) (a answer, ok bool) {
	size := len(k) - sizeofRegister
	if size != ipv4.keySize() && size != ipv6.keySize() {
		return answer{}, false
	}
	end := func(k []byte) netip.AddrPort {
		addr, _ := netip.AddrFromSlice(k[:len(k)-sizeofRegister])
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(k[len(k)-sizeofRegister:]))
	}
	return answer{tuple{end(k[:size/2]), end(k[size/2 : size])}, k[size] == reply}, true
}

// expressions writes the parts of a rule.
type expressions struct{ *attributes }

func (e expressions) one(name string, fill func(*attributes)) {
	nested(e.attributes, unix.NFTA_LIST_ELEM, func(a *attributes) {
		a.String(unix.NFTA_EXPR_NAME, name)
		if fill != nil {
			nested(a, unix.NFTA_EXPR_DATA, fill)
		}
	})
}

// metaIs lets only packets on of which the kernel knows this.
func (e expressions) metaIs(key uint32, value []byte) {
	e.one("meta", func(a *attributes) {
		a.Uint32(unix.NFTA_META_KEY, key)
		a.Uint32(unix.NFTA_META_DREG, unix.NFT_REG32_00)
	})
	e.one("cmp", func(a *attributes) {
		a.Uint32(unix.NFTA_CMP_SREG, unix.NFT_REG32_00)
		a.Uint32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		nested(a, unix.NFTA_CMP_DATA, func(a *attributes) { a.Bytes(unix.NFTA_DATA_VALUE, value) })
	})
}

// isTCP lets only TCP on.
func (e expressions) isTCP() { e.metaIs(unix.NFT_META_L4PROTO, []byte{unix.IPPROTO_TCP}) }

// loadTuple puts the flow of the packet, and after it the packet's direction,
// where the sets are asked for them. Packets of the other IP version, and of no
// known flow, go no further.
func (e expressions) loadTuple(p protocol) {
	register := uint32(unix.NFT_REG32_00)
	load := func(key uint32, size int, ofDirection bool) {
		e.one("ct", func(a *attributes) {
			a.Uint32(unix.NFTA_CT_DREG, register)
			a.Uint32(unix.NFTA_CT_KEY, key)
			if ofDirection {
				a.Uint8(unix.NFTA_CT_DIRECTION, original)
			}
		})
		register += uint32(size+sizeofRegister-1) / sizeofRegister
	}
	load(p.source, p.size, true)
	load(unix.NFT_CT_PROTO_SRC, 2, true)
	load(p.destination, p.size, true)
	load(unix.NFT_CT_PROTO_DST, 2, true)
	load(unix.NFT_CT_DIRECTION, 1, false)
}

// isIn lets only flows of the set on.
func (e expressions) isIn(set string) {
	e.one("lookup", func(a *attributes) {
		a.String(unix.NFTA_LOOKUP_SET, set)
		a.Uint32(unix.NFTA_LOOKUP_SREG, unix.NFT_REG32_00)
	})
}

// remember puts flow and direction into the set. Where the set is full the rule ends here.
func (e expressions) remember(set string) {
	e.one("dynset", func(a *attributes) {
		a.String(unix.NFTA_DYNSET_SET_NAME, set)
		a.Uint32(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_ADD)
		a.Uint32(unix.NFTA_DYNSET_SREG_KEY, unix.NFT_REG32_00)
	})
}

// reset drops the packet and answers it with a reset.
func (e expressions) reset() {
	e.one("reject", func(a *attributes) { a.Uint32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST) })
}
