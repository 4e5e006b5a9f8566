package bpf

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"
	"unsafe"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/bound"
)

const recordSize = int(unsafe.Sizeof(ownersRecord{}))

// record reads one record; raw must hold recordSize bytes. The layout is that
// of the type which bpf2go made from the C.
func record(raw []byte) ownersRecord {
	var r ownersRecord
	raw = raw[:recordSize]
	u32 := binary.NativeEndian.Uint32
	r.Pid = u32(raw[unsafe.Offsetof(r.Pid):])
	r.Fd = u32(raw[unsafe.Offsetof(r.Fd):])
	r.Inode = u32(raw[unsafe.Offsetof(r.Inode):])
	r.Netns = u32(raw[unsafe.Offsetof(r.Netns):])
	r.KeepaliveTime = u32(raw[unsafe.Offsetof(r.KeepaliveTime):])
	r.KeepaliveIntvl = u32(raw[unsafe.Offsetof(r.KeepaliveIntvl):])
	r.UserTimeout = u32(raw[unsafe.Offsetof(r.UserTimeout):])
	r.KeepaliveProbes = raw[unsafe.Offsetof(r.KeepaliveProbes)]
	r.Tcp = raw[unsafe.Offsetof(r.Tcp)]
	r.Keepalive = raw[unsafe.Offsetof(r.Keepalive)]
	r.Thread = raw[unsafe.Offsetof(r.Thread)]
	return r
}

// decode appends the records of raw to dst, but for the one of the canary.
func decode(dst []fact.Owned, raw []byte, hz uint32, canary uint32) []fact.Owned {
	dst = slices.Grow(dst, len(raw)/recordSize)
	first, threads := len(dst), false
	for ; len(raw) >= recordSize; raw = raw[recordSize:] {
		r := record(raw)
		if r.Inode == canary {
			continue
		}
		threads = threads || r.Thread != 0
		owned := fact.Owned{
			Owner: fact.Owner{PID: int32(r.Pid), FD: int32(r.Fd)},
			Inode: r.Inode,
			Netns: r.Netns,
		}
		if r.Tcp != 0 {
			owned.Options = fact.Seen(r.options(hz))
		}
		dst = append(dst, owned)
	}
	if threads {
		// A thread's file table repeats what it had in common with that of
		// its process; without a leader every thread repeats the same table.
		slices.SortFunc(dst[first:], compare)
		dst = dst[:first+len(slices.CompactFunc(dst[first:], same))]
	}
	return dst
}

func (r *ownersRecord) options(hz uint32) bound.Options {
	return bound.Options{
		KeepAlive:   r.Keepalive != 0,
		Idle:        jiffies(r.KeepaliveTime, hz),
		Interval:    jiffies(r.KeepaliveIntvl, hz),
		Count:       int(r.KeepaliveProbes),
		UserTimeout: time.Duration(r.UserTimeout) * time.Millisecond,
	}
}

func jiffies(n, hz uint32) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(hz)
}

func compare(a, b fact.Owned) int {
	return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.FD, b.FD), cmp.Compare(a.Inode, b.Inode))
}

func same(a, b fact.Owned) bool { return compare(a, b) == 0 }
