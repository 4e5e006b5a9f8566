package goroutines

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

// The states of a goroutine, runtime/runtime2.go.
const (
	inSyscall = 3
	waiting   = 4
	dead      = 6

	scanned = 0x1000 // the garbage collector looks at its stack
)

// offsets are where the fields of runtime.g are.
type offsets struct {
	stack, sp, pc, bp    uint64
	syscallSP, syscallPC uint64
	status, id           uint64
	since, times         uint64
	created, start       uint64
	size                 uint64 // up to the last of them
}

func offsetsOf(g, buf gosym.Layout) (o offsets, err error) {
	field := func(l gosym.Layout, name string) uint64 {
		f, ok := l[name]
		if !ok && err == nil {
			err = fmt.Errorf("%w: its goroutines have no field %s", ErrNotFound, name)
		}
		o.size = max(o.size, f.Offset+16)
		return f.Offset
	}
	sched := field(g, "sched")
	o = offsets{
		stack: field(g, "stack"), sp: sched + field(buf, "sp"), pc: sched + field(buf, "pc"), bp: sched + field(buf, "bp"),
		syscallSP: field(g, "syscallsp"), syscallPC: field(g, "syscallpc"),
		status: field(g, "atomicstatus"), id: field(g, "goid"), since: field(g, "waitsince"), times: field(g, "trackingSeq"),
		created: field(g, "gopc"), start: field(g, "startpc"), size: o.size,
	}
	if o.size > 4096 {
		return o, fmt.Errorf("%w: a goroutine of %d bytes", ErrNotFound, o.size)
	}
	return o, err
}

// record is what is kept of a goroutine between looks. The zero record is one
// that does not wait.
type record struct {
	g              uint64 // its address
	id             uint64
	lo, hi         uint64 // its stack
	sp, pc, bp     uint64 // where it stopped
	since          int64  // by the clock of its process; 0 = the collector has not seen it wait
	created, start uint64
	status         uint8
	times          uint8 // it was scheduled out, modulo 256
}

// same reports whether a goroutine has not run between two looks. Its stack may
// have been moved meanwhile, so what is compared is how deep it is.
func (r *record) same(later *record) bool {
	return r.id != 0 && r.id == later.id && r.status == later.status && r.times == later.times && r.pc == later.pc &&
		r.hi-r.sp == later.hi-later.sp && (r.since == 0 || r.since == later.since)
}

// list reads all goroutines; those that do not wait are empty records.
func (t *Target) list() ([]record, error) {
	pointers, total, err := t.pointers(t.allgs, most)
	if err != nil {
		return nil, err
	}
	if len(pointers) == 0 {
		return nil, ErrNotFound
	}
	t.total = 0
	all := make([]record, 0, len(pointers))
	for len(pointers) > 0 {
		n := min(len(pointers), batch)
		records, err := t.records(pointers[:n])
		if err != nil {
			return nil, err
		}
		for i := range records {
			r := &records[i]
			if r.status != dead && r.id != 0 {
				t.total++
			}
			if !r.waits() {
				*r = record{}
			}
		}
		all = append(all, records...)
		pointers = pointers[n:]
	}
	if total > most {
		t.total = total
	}
	return all, nil
}

// waits reports a goroutine that waits. Of one that is in a system call it is
// known only when the collector has seen it there: it can leave and come back
// without being counted.
func (r *record) waits() bool {
	return r.id != 0 && r.sp >= r.lo && r.sp < r.hi && (r.status == waiting || r.status == inSyscall && r.since != 0)
}

// batch is how many goroutines are read by one system call, IOV_MAX at most.
const batch = 512

// records reads goroutines by their addresses.
func (t *Target) records(pointers []uint64) ([]record, error) {
	size := int(t.at.size)
	buf := make([]byte, size*len(pointers))
	if err := t.read(buf, pointers, size); err != nil {
		return nil, err
	}
	all := make([]record, len(pointers))
	for i := range all {
		b := buf[i*size:]
		word := func(at uint64) uint64 { return order.Uint64(b[at:]) }
		r := &all[i]
		*r = record{
			g: pointers[i], id: word(t.at.id), lo: word(t.at.stack), hi: word(t.at.stack + 8),
			sp: word(t.at.sp), pc: word(t.at.pc), bp: word(t.at.bp), since: int64(word(t.at.since)),
			created: word(t.at.created), start: word(t.at.start),
			status: uint8(min(order.Uint32(b[t.at.status:])&^scanned, 255)), times: b[t.at.times],
		}
		if r.status == inSyscall {
			r.sp, r.pc, r.bp = word(t.at.syscallSP), word(t.at.syscallPC), 0
		}
	}
	return all, nil
}

// words reads n words of the process.
func (t *Target) words(address uint64, n int) ([]uint64, error) {
	list := make([]uint64, n)
	if n == 0 {
		return list, nil
	}
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&list[0])), 8*n)
	return list, t.read(buf, []uint64{address}, 8*n)
}

// read fills buf with pieces of the memory of the process, of size bytes each.
func (t *Target) read(buf []byte, addresses []uint64, size int) error {
	remote := make([]unix.RemoteIovec, len(addresses))
	for i, address := range addresses {
		remote[i] = unix.RemoteIovec{Base: uintptr(address), Len: size}
	}
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	n, err := unix.ProcessVMReadv(int(t.pid), local, remote, 0)
	if err == nil && n != len(buf) {
		err = unix.EFAULT
	}
	return err
}
