package opener

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// How a socket was seen for the first time, as enum how of opener.bpf.c has it.
type How uint8

// The ways.
const (
	Connected How = iota + 1 // by connect(2)
	Named                    // by getsockname(2): it was accepted just before, or is older than the watch
	Accepted                 // by accept(2)
)

// Socket is one open socket and who opened it. Where [Sockets.ByInode] is true,
// only the inode is known of the socket itself.
type Socket struct {
	Cookie     uint64 // as in fact.Socket
	Inode      uint32 // as in fact.Socket
	Peer       uint32 // unix: inode of the other end, 0 = unknown
	Netns      uint32
	Protocol   fact.Protocol
	Family     fact.Family
	State      fact.State
	Local      netip.AddrPort // IPv4 also where an IPv6 socket speaks it
	Remote     netip.AddrPort
	Path       string // unix: its own name where Own, else that of the other end; @name is abstract
	Own        bool
	How        How
	PID        int32         // of the process that opened it; others may hold it by now
	Exec       uint32        // another one, of the same process: it runs another program since
	Born, Used time.Duration // by CLOCK_MONOTONIC; Used is Born where uses are not watched
	Uses       uint64

	Opened    uint64    // key of the stack, see Sockets.Stack; 0 = unknown
	Asked     [3]uint64 // the goroutine that asked for it, the one that started that, and so on
	Last      uint64    // of the code that used it last, or not long before
	Transport uint64    // address of the http.Transport that it was opened for; 0 = unknown
}

// Stack is a stack of program counters, innermost first. The first is where the
// program was, the others are return addresses.
type Stack struct {
	Opened   uint64 // how many sockets were opened there, those that are closed too
	Counters []uint64
	Logical  bool // all are return addresses, one for each inlined call too, as the Go runtime keeps them
	Cut      bool // it goes on
}

const (
	rowSize   = int(unsafe.Sizeof(openerRow{}))
	birthSize = int(unsafe.Sizeof(openerBirth{}))
	depth     = len(openerStack{}.At)
)

// Read appends all open sockets that have a record and returns the extended
// slice; see [Sockets.Each].
func (s *Sockets) Read(dst []Socket) ([]Socket, error) {
	before := len(dst)
	err := s.Each(func(one *Socket) { dst = append(dst, *one) })
	if err != nil {
		return dst[:before], err
	}
	return dst, nil
}

// Each calls take with each open socket that has a record: those that some
// descriptor refers to. What take is given is good until it returns. The time
// depends on the number of open files on the machine, and of records: a few µs for
// each of these.
func (s *Sockets) Each(take func(*Socket)) error {
	n := 0
	count := func(one *Socket) {
		n++
		take(one)
	}
	var err error
	if s.ByInode() {
		err = s.eachInode(count)
	} else {
		err = s.pass(count)
	}
	if err == nil {
		err = s.set(openerVarLeft, uint64(max(most-n, 0)))
	}
	if err != nil {
		return &Error{Err: fmt.Errorf("read who opened what: %w", err)}
	}
	return nil
}

// chunk is what the kernel hands over in one read at most, bpf_seq_read in
// kernel/bpf/bpf_iter.c.
const chunk = 32 << 10

// pass is one walk over all files. A socket that several descriptors refer to
// counts once.
func (s *Sockets) pass(take func(*Socket)) error {
	reader, err := s.dump.Open()
	if err != nil {
		return err
	}
	defer reader.Close()
	if s.raw == nil {
		s.raw, s.seen = make([]byte, 2*chunk), make(map[uint64]bool)
	}
	clear(s.seen)
	for kept := 0; ; {
		n, err := reader.Read(s.raw[kept : kept+chunk])
		left, bad := decode(s.raw[:kept+n], s.seen, take)
		switch {
		case bad != nil:
			return bad
		case err == io.EOF && left > 0:
			return fmt.Errorf("a record of %d bytes", left)
		case err == io.EOF:
			return nil
		case errors.Is(err, unix.EAGAIN): // a million files without a record: it goes on where it stopped
		case err != nil:
			return err
		}
		copy(s.raw, s.raw[kept+n-left:kept+n])
		kept = left
	}
}

// longestPath is that of a unix socket, sun_path of unix(7).
const longestPath = 108

// decode calls take with the records that are whole and not seen yet, and returns
// how many bytes of the last are left.
func decode(raw []byte, seen map[uint64]bool, take func(*Socket)) (left int, err error) {
	for len(raw) >= rowSize {
		path := int(raw[unsafe.Offsetof(openerRow{}.Path)])
		size := rowSize + (path+7)&0x78
		if path > longestPath {
			return 0, fmt.Errorf("a record with a name of %d bytes", path)
		}
		if len(raw) < size {
			break
		}
		one := decodeRow(raw[:rowSize], raw[rowSize:rowSize+path])
		raw = raw[size:]
		if one.Cookie != 0 && seen[one.Cookie] {
			continue
		}
		seen[one.Cookie] = true
		take(&one)
	}
	return len(raw), nil
}

// decodeRow reads one record. The layout is that of the type which bpf2go made
// from the C.
func decodeRow(raw, path []byte) Socket {
	var r openerRow
	word := func(at uintptr) uint32 { return binary.NativeEndian.Uint32(raw[at:]) }
	s := decodeBirth(raw)
	s.Inode, s.Peer, s.Netns = word(unsafe.Offsetof(r.Inode)), word(unsafe.Offsetof(r.Peer)), word(unsafe.Offsetof(r.Netns))
	s.State = fact.State(raw[unsafe.Offsetof(r.State)])
	kind := raw[unsafe.Offsetof(r.Type)]
	local, remote := raw[unsafe.Offsetof(r.Local):], raw[unsafe.Offsetof(r.Remote):]
	localPort := binary.NativeEndian.Uint16(raw[unsafe.Offsetof(r.LocalPort):])
	remotePort := binary.BigEndian.Uint16(raw[unsafe.Offsetof(r.RemotePort):])
	switch raw[unsafe.Offsetof(r.Family)] {
	case unix.AF_UNIX:
		s.Family, s.Path, s.Own = fact.Unix, unixPath(path), raw[unsafe.Offsetof(r.Own)] != 0
		s.Protocol = map[uint8]fact.Protocol{unix.SOCK_STREAM: fact.UnixStream, unix.SOCK_DGRAM: fact.UnixDatagram, unix.SOCK_SEQPACKET: fact.UnixSeqpacket}[kind]
		return s
	case unix.AF_INET:
		s.Family = fact.IPv4
		s.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(local)), localPort)
		s.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(remote)), remotePort)
	case unix.AF_INET6:
		s.Family = fact.IPv6
		s.Local = netip.AddrPortFrom(netip.AddrFrom16([16]byte(local)).Unmap(), localPort)
		s.Remote = netip.AddrPortFrom(netip.AddrFrom16([16]byte(remote)).Unmap(), remotePort)
		if s.Remote.Addr().Is4() {
			s.Family = fact.IPv4
		}
	}
	s.Protocol = map[uint8]fact.Protocol{unix.SOCK_STREAM: fact.TCP, unix.SOCK_DGRAM: fact.UDP}[kind]
	return s
}

// unixPath is the name of a unix socket as package net writes it.
func unixPath(path []byte) string {
	if len(path) > 0 && path[0] == 0 {
		return fact.Printable("@" + string(path[1:]))
	}
	if end := slices.Index(path, 0); end >= 0 {
		path = path[:end]
	}
	return fact.Printable(string(path))
}

func decodeBirth(raw []byte) (s Socket) {
	var b openerBirth
	word := func(at uintptr) uint32 { return binary.NativeEndian.Uint32(raw[at:]) }
	long := func(at uintptr) uint64 { return binary.NativeEndian.Uint64(raw[at:]) }
	s = Socket{
		Cookie: long(unsafe.Offsetof(b.Cookie)), How: How(word(unsafe.Offsetof(b.How))),
		PID: int32(word(unsafe.Offsetof(b.Pid))), Exec: word(unsafe.Offsetof(b.Exec)),
		Born: time.Duration(long(unsafe.Offsetof(b.Born))), Used: time.Duration(long(unsafe.Offsetof(b.Used))), Uses: long(unsafe.Offsetof(b.Uses)),
		Opened: long(unsafe.Offsetof(b.Opened)), Last: long(unsafe.Offsetof(b.Last)), Transport: long(unsafe.Offsetof(b.Transport)),
		Inode: word(unsafe.Offsetof(b.Inode)),
	}
	for i := range s.Asked {
		s.Asked[i] = long(unsafe.Offsetof(b.Asked) + 8*uintptr(i))
	}
	return s
}

// eachInode reads the records that are kept by inode.
func (s *Sockets) eachInode(take func(*Socket)) error {
	const batch = 4096
	var cursor ebpf.MapBatchCursor
	inodes, births := make([]uint32, batch), make([]openerBirth, batch)
	for {
		n, err := s.loaded.Maps[openerMapInodes].BatchLookup(&cursor, inodes, births, nil)
		for i := range births[:n] {
			var raw [birthSize]byte
			if _, err := binary.Encode(raw[:], binary.NativeEndian, births[i]); err != nil {
				return err
			}
			one := decodeBirth(raw[:])
			take(&one)
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) { // that was the last
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Forget drops what is kept of sockets that are gone, where [Sockets.ByInode].
func (s *Sockets) Forget(gone []Socket) {
	for i := range gone {
		_ = s.loaded.Maps[openerMapInodes].Delete(gone[i].Inode) // it may have been dropped before
	}
}

// Stack returns a stack by its key. It is not there when more than 16,384
// different ones have been seen since, or it was never kept.
func (s *Sockets) Stack(key uint64) (Stack, bool) {
	if key == 0 {
		return Stack{}, false
	}
	var kept openerStack
	if err := s.loaded.Maps[openerMapStacks].Lookup(key, &kept); err != nil {
		stack, found := s.stacks[key]
		return stack, found
	}
	known, found := s.stacks[key]
	if !found {
		n := min(int(kept.Calls), depth)
		known = Stack{Counters: slices.Clone(kept.At[:n]), Logical: kept.Logical != 0, Cut: n == depth}
		if len(s.stacks) >= mostStacks {
			clear(s.stacks)
		}
	}
	known.Opened = kept.Opened
	s.stacks[key] = known
	return known, true
}

// mostStacks bounds the stacks that are remembered after the kernel dropped them.
const mostStacks = 32768
