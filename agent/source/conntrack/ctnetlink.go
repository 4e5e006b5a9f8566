//go:build linux

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// patience bounds a conversation with the kernel. It answers from within the
	// system calls that ask, about a second for a million entries.
	patience = 60 * time.Second

	// chunk is the most that the kernel puts into one answer of a dump when it
	// is offered the room (netlink_dump in net/netlink/af_netlink.c).
	chunk = 32 << 10

	sizeofNfgenmsg = 4

	// Messages, enum cntl_msg_types of linux/netfilter/nfnetlink_conntrack.h.
	getEntries = 1
	getStats   = 5
)

var errTruncated = errors.New("truncated netlink message")

// dump calls f with each entry of the table. Entries that come or go meanwhile
// may be seen or not.
func dump(f func(entry)) error {
	return ask(getEntries, netlink.Dump, func(attributes []byte) error {
		e, err := parseEntry(attributes)
		if err == nil {
			f(e)
		}
		return err
	})
}

// stats asks for the numbers of this namespace. The answer alone does not say
// that it is the last; its acknowledgement does.
func stats() (s totals, err error) {
	err = ask(getStats, netlink.Acknowledge, func(attributes []byte) error {
		s = parseStats(attributes)
		return nil
	})
	return s, err
}

// ask sends one question to ctnetlink and calls f with the attributes of each
// message of the answer, one chunk at a time: netlink.Conn.Execute would hold
// the whole table.
func ask(kind uint8, flags netlink.HeaderFlags, f func([]byte) error) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent, err := c.Send(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | uint16(kind)),
			Flags: netlink.Request | flags,
		},
		Data: make([]byte, sizeofNfgenmsg), // of any family
	})
	if err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for {
		n, err := receive(c, buf)
		if err != nil {
			return err
		}
		if done, err := messages(buf[:n], sent.Header.Sequence, f); done || err != nil {
			return err
		}
	}
}

// receive reads what the kernel, and nobody else, sent next.
func receive(c *netlink.Conn, buf []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var from unix.Sockaddr
	waitErr := raw.Read(func(fd uintptr) bool {
		for {
			if n, from, err = unix.Recvfrom(int(fd), buf, unix.MSG_TRUNC); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if waitErr != nil {
		return 0, waitErr
	}
	if err != nil {
		return 0, err
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return 0, nil
	}
	if n > len(buf) {
		return 0, errTruncated
	}
	return n, nil
}

// messages calls f with the attributes of each message that answers the
// question numbered sequence, and reports whether the last has been seen.
func messages(data []byte, sequence uint32, f func([]byte) error) (done bool, err error) {
	for len(data) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(data))
		kind := binary.NativeEndian.Uint16(data[4:])
		if size < unix.SizeofNlMsghdr || size > len(data) {
			return false, errTruncated
		}
		payload := data[unix.SizeofNlMsghdr:size]
		mine := binary.NativeEndian.Uint32(data[8:]) == sequence
		data = data[min(align(size), len(data)):]
		switch {
		case !mine:
		case kind == unix.NLMSG_ERROR || kind == unix.NLMSG_DONE:
			return true, status(payload)
		case kind>>8 == unix.NFNL_SUBSYS_CTNETLINK && len(payload) >= sizeofNfgenmsg:
			if err := f(payload[sizeofNfgenmsg:]); err != nil {
				return false, err
			}
		default:
			return false, fmt.Errorf("unexpected netlink message of type %#x", kind)
		}
	}
	return false, nil
}

// status reads the negative error number that ends an answer; zero, or none at
// all, is success.
func status(payload []byte) error {
	if len(payload) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(payload)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}
