//go:build linux

package evac

import (
	"encoding/binary"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds every conversation with the kernel, which answers from within
// the system calls that ask.
const patience = 10 * time.Second

const sizeofNfgenmsg = 4

// attributes writes the attributes of one message, numbers in network order as
// nfnetlink has them.
type attributes = netlink.AttributeEncoder

// message is a message of nf_tables about something in the family inet.
func message(kind uint8, flags netlink.HeaderFlags, fill func(*attributes)) (netlink.Message, error) {
	a := netlink.NewAttributeEncoder()
	a.ByteOrder = binary.BigEndian
	fill(a)
	data, err := a.Encode()
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | uint16(kind)),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{unix.NFPROTO_INET, 0, 0, 0}, data...),
	}, err
}

// nested puts attributes into one.
func nested(a *attributes, kind uint16, fill func(*attributes)) {
	a.Nested(kind, func(inner *attributes) error {
		fill(inner)
		return nil
	})
}

// batch is what the kernel does as a whole or not at all.
type batch struct {
	messages []netlink.Message
	err      error
}

func (b *batch) add(kind uint8, flags netlink.HeaderFlags, fill func(*attributes)) {
	m, err := message(kind, flags, fill)
	if err != nil && b.err == nil {
		b.err = err
	}
	b.messages = append(b.messages, m)
}

// commit sends the batch and waits for the kernel's word. Only the last message
// asks for one: what goes wrong before it is reported before it (nfnetlink_rcv_batch
// in net/netfilter/nfnetlink.c). After an error c must not be used any more.
func (b *batch) commit(c *netlink.Conn) error {
	if b.err != nil {
		return b.err
	}
	frame := func(kind netlink.HeaderType) netlink.Message {
		data := make([]byte, sizeofNfgenmsg)
		binary.BigEndian.PutUint16(data[2:], unix.NFNL_SUBSYS_NFTABLES)
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: data}
	}
	b.messages[len(b.messages)-1].Header.Flags |= netlink.Acknowledge
	all := append([]netlink.Message{frame(unix.NFNL_MSG_BATCH_BEGIN)}, b.messages...)
	all = append(all, frame(unix.NFNL_MSG_BATCH_END))
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.SendMessages(all); err != nil {
		return err
	}
	_, err := c.Receive()
	return err
}

// ask sends one question and returns all of the answer.
func ask(c *netlink.Conn, kind uint8, flags netlink.HeaderFlags, fill func(*attributes)) ([]netlink.Message, error) {
	m, err := message(kind, flags, fill)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return c.Execute(m)
}

// decode calls f with each attribute of data until one does not fit.
func decode(data []byte, f func(kind uint16, value []byte)) error {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return err
	}
	for d.Next() {
		f(d.Type(), d.Bytes())
	}
	return d.Err()
}
