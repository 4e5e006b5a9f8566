//go:build linux

package evac

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TableName is the nf_tables table, of the family inet, that holds all that an
// evac adds to the rules of a node.
const TableName = "lifeline_evac"

// nudgeMark is what our own packets carry, so that connection tracking does not
// take them for the flow's. It is in none of the bits that Kubernetes, Cilium,
// Calico, AWS or Tailscale use in marks for routing.
const nudgeMark = 0x1e

const (
	rememberedAtLeast = 1 << 16 // answers that fit into a set

	priorityRaw     = -300 // NF_IP_PRI_RAW: before connection tracking
	priorityForward = -10  // just before other filters, which might drop what should be answered

	tableOwner     = 2 // NFT_TABLE_F_OWNER, Linux 5.12
	attributeOwner = 7 // NFTA_TABLE_OWNER
)

// ErrRunning means that another evac is at work in this namespace.
var ErrRunning = errors.New("another evac is at work here")

// table is the rules in the kernel, and the socket that owns them: when it is
// closed, even by the death of the process, the kernel removes the table. Before
// Linux 5.12 nothing is owned, and the next evac removes what one left.
//
// The messages are written here because owning a table is what the libraries
// at hand cannot say, and because a node may lack the program nft.
type table struct{ conn *netlink.Conn }

// arm removes what an earlier evac may have left and puts up rules that reset
// nobody yet. flows is how many are expected; more may come.
func arm(flows int) (t *table, stale bool, err error) {
	if stale, err = removeStale(); err != nil {
		return nil, stale, explain(err)
	}
	t, err = build(flows, tableOwner)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		t, err = build(flows, 0)
	}
	if errors.Is(err, unix.ENOENT) { // a kind of expression that the kernel does not have
		err = unix.EOPNOTSUPP
	}
	return t, stale, explain(err)
}

// build puts up the table.
func build(flows int, flags uint32) (*table, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	var b batch
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Excl, func(a *attributes) {
		a.String(unix.NFTA_TABLE_NAME, TableName)
		a.Uint32(unix.NFTA_TABLE_FLAGS, flags)
	})
	b.chain("forward", unix.NF_INET_FORWARD, priorityForward)
	b.chain("output", unix.NF_INET_LOCAL_OUT, priorityRaw)
	for _, p := range []protocol{ipv4, ipv6} {
		b.set("reset"+p.suffix, p.keyType, p.keySize(), 0)
		b.set("answered"+p.suffix, p.keyType<<6|typeDirection, p.keySize()+sizeofRegister, max(4*flows, rememberedAtLeast))
		b.rule("forward", func(e expressions) {
			e.isTCP()
			e.loadTuple(p)
			e.isIn("reset" + p.suffix)
			e.remember("answered" + p.suffix)
		})
		b.rule("forward", func(e expressions) { // of its own, for when the other set is full
			e.isTCP()
			e.loadTuple(p)
			e.isIn("reset" + p.suffix)
			e.reset()
		})
	}
	b.rule("output", func(e expressions) {
		e.metaIs(unix.NFT_META_MARK, binary.NativeEndian.AppendUint32(nil, nudgeMark))
		e.isTCP()
		e.one("notrack", nil)
	})
	if err := b.commit(c); err != nil {
		c.Close()
		return nil, err
	}
	return &table{c}, nil
}

func (b *batch) chain(name string, hook uint32, priority int32) {
	b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, func(a *attributes) {
		a.String(unix.NFTA_CHAIN_TABLE, TableName)
		a.String(unix.NFTA_CHAIN_NAME, name)
		nested(a, unix.NFTA_CHAIN_HOOK, func(a *attributes) {
			a.Uint32(unix.NFTA_HOOK_HOOKNUM, hook)
			a.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
		})
		a.String(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

// set adds a set. One with a size is for rules to fill. The id is only there
// because the kernel asks for one.
func (b *batch) set(name string, keyType uint32, keySize, size int) {
	b.add(unix.NFT_MSG_NEWSET, netlink.Create, func(a *attributes) {
		flags := uint32(0)
		if size > 0 {
			flags = unix.NFT_SET_EVAL
			nested(a, unix.NFTA_SET_DESC, func(a *attributes) { a.Uint32(unix.NFTA_SET_DESC_SIZE, uint32(size)) })
		}
		a.String(unix.NFTA_SET_TABLE, TableName)
		a.String(unix.NFTA_SET_NAME, name)
		a.Uint32(unix.NFTA_SET_FLAGS, flags)
		a.Uint32(unix.NFTA_SET_KEY_TYPE, keyType)
		a.Uint32(unix.NFTA_SET_KEY_LEN, uint32(keySize))
		a.Uint32(unix.NFTA_SET_ID, uint32(len(b.messages)))
	})
}

func (b *batch) rule(chain string, fill func(expressions)) {
	b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(a *attributes) {
		a.String(unix.NFTA_RULE_TABLE, TableName)
		a.String(unix.NFTA_RULE_CHAIN, chain)
		nested(a, unix.NFTA_RULE_EXPRESSIONS, func(a *attributes) { fill(expressions{a}) })
	})
}

// add has both ends of the flows reset by their next packet. It takes no more
// than mostAtOnce flows, which fit into one attribute.
func (t *table) add(flows []*target) error {
	var b batch
	for _, p := range []protocol{ipv4, ipv6} {
		var keys [][]byte
		for _, f := range flows {
			if protocolOf(f.tuple) == p {
				keys = append(keys, p.key(f.tuple))
			}
		}
		if len(keys) == 0 {
			continue
		}
		b.add(unix.NFT_MSG_NEWSETELEM, netlink.Create, func(a *attributes) {
			a.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
			a.String(unix.NFTA_SET_ELEM_LIST_SET, "reset"+p.suffix)
			nested(a, unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *attributes) {
				for _, key := range keys {
					nested(a, unix.NFTA_LIST_ELEM, func(a *attributes) {
						nested(a, unix.NFTA_SET_ELEM_KEY, func(a *attributes) { a.Bytes(unix.NFTA_DATA_VALUE, key) })
					})
				}
			})
		})
	}
	if len(b.messages) == 0 {
		return nil
	}
	err := b.commit(t.conn)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nf_tables: somebody removed the table inet %s: %w", TableName, err)
	}
	return explain(err)
}

// answered calls f with each answer so far.
func (t *table) answered(f func(answer)) error {
	for _, p := range []protocol{ipv4, ipv6} {
		messages, err := ask(t.conn, unix.NFT_MSG_GETSETELEM, netlink.Dump, func(a *attributes) {
			a.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
			a.String(unix.NFTA_SET_ELEM_LIST_SET, "answered"+p.suffix)
		})
		if err != nil {
			return explain(err)
		}
		for _, m := range messages {
			if err := parseElements(m.Data, f); err != nil {
				return fmt.Errorf("nf_tables: what was answered: %w", err)
			}
		}
	}
	return nil
}

// parseElements reads one message of the elements of a set of answers.
func parseElements(data []byte, f func(answer)) error {
	if len(data) < sizeofNfgenmsg {
		return errors.New("truncated netlink message")
	}
	within := func(data []byte, want uint16, then func([]byte) error) (err error) {
		broken := decode(data, func(kind uint16, value []byte) {
			if kind == want && err == nil {
				err = then(value)
			}
		})
		return errors.Join(err, broken)
	}
	return within(data[sizeofNfgenmsg:], unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(data []byte) error {
		return within(data, unix.NFTA_LIST_ELEM, func(data []byte) error {
			return within(data, unix.NFTA_SET_ELEM_KEY, func(data []byte) error {
				return within(data, unix.NFTA_DATA_VALUE, func(key []byte) error {
					if one, ok := parseAnswer(key); ok {
						f(one)
					}
					return nil
				})
			})
		})
	})
}

// remove takes the table down. A socket that something went wrong on may not
// do it; without it the table is one that nobody owns, if it is there at all.
func (t *table) remove() error {
	var b batch
	b.remove()
	err := b.commit(t.conn)
	t.conn.Close()
	if err != nil {
		_, err = removeStale()
	}
	return explain(err)
}

func (b *batch) remove() {
	b.add(unix.NFT_MSG_DELTABLE, 0, func(a *attributes) { a.String(unix.NFTA_TABLE_NAME, TableName) })
}

// removeStale removes a table that no process owns, and reports that there was
// one.
func removeStale() (stale bool, err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, err
	}
	defer c.Close()
	messages, err := ask(c, unix.NFT_MSG_GETTABLE, 0, func(a *attributes) { a.String(unix.NFTA_TABLE_NAME, TableName) })
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, m := range messages {
		owned := false
		err := decode(m.Data[min(sizeofNfgenmsg, len(m.Data)):], func(kind uint16, _ []byte) {
			owned = owned || kind == attributeOwner
		})
		if err != nil {
			return false, err
		}
		if owned {
			return false, ErrRunning
		}
	}
	var b batch
	b.remove()
	return true, b.commit(c)
}

// explain gives an error of the kernel the meaning that callers ask for.
func explain(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrRunning):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("nf_tables: needs CAP_NET_ADMIN: %w", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("nf_tables with ct and reject for the family inet, Linux 4.17, is not to be had (%w): %w", err, errors.ErrUnsupported)
	default:
		return fmt.Errorf("nf_tables: %w", err)
	}
}
