package goroutines

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

var order = binary.LittleEndian // of both architectures

const (
	mostCode  = 8 << 10 // bytes of a function
	mostGs    = 1 << 24
	sliceSize = 24
)

// find finds runtime.allgs, the slice of all goroutines there ever were. No
// symbol names it in a stripped program, but the function that appends to it has
// a name, and its code the addresses of the slice's three words.
func (t *Target) find() error {
	entry, end, ok := t.table.Extent("runtime.allgadd")
	if !ok || end <= entry {
		return fmt.Errorf("%w: there is no function runtime.allgadd", ErrNotFound)
	}
	code := t.table.Read(entry, int(min(end-entry, mostCode)))
	for _, address := range triples(referenced(t.table, entry, code)) {
		fits, err := t.plausible(address)
		if err != nil {
			return err
		}
		if fits {
			t.allgs = address
			return nil
		}
	}
	return fmt.Errorf("%w: the program has not begun, or its Go is newer than what Lifeline knows", ErrNotFound)
}

// referenced returns the variables that code speaks of.
func referenced(table *gosym.Table, entry uint64, code []byte) []uint64 {
	var all []uint64
	switch table.Machine() {
	case "amd64":
		all = relative(entry, code)
	case "arm64":
		all = paged(entry, code)
	}
	all = slices.DeleteFunc(all, func(a uint64) bool { return a%8 != 0 || !table.Writable(a) })
	slices.Sort(all)
	return slices.Compact(all)
}

// relative takes every four bytes for the distance of a variable from the end of
// an instruction that ends with them. Most are none, and end up elsewhere than
// in the program's variables.
func relative(entry uint64, code []byte) (all []uint64) {
	for i := 0; i+4 <= len(code); i++ {
		distance := int64(int32(order.Uint32(code[i:])))
		all = append(all, entry+uint64(i)+4+uint64(distance))
	}
	return all
}

// paged follows the instructions that compute addresses: ADRP for the page, then
// ADD or the offset of a load or store (Arm Architecture Reference Manual, C6.2).
func paged(entry uint64, code []byte) (all []uint64) {
	var register [32]uint64
	for i := 0; i+4 <= len(code); i += 4 {
		op := order.Uint32(code[i:])
		rd, rn, imm := op&31, op>>5&31, uint64(op>>10&0xfff)
		switch {
		case op&0x9f000000 == 0x90000000: // ADRP
			pages := int64(int32(op<<8)) >> 13 << 2 // immhi, sign-extended
			pages |= int64(op >> 29 & 3)
			register[rd] = (entry+uint64(i))&^0xfff + uint64(pages<<12)
		case op&0xffc00000 == 0x91000000: // ADD (immediate), 64 bits
			register[rd] = register[rn] + imm
			all = append(all, register[rd])
		case op&0xff800000 == 0xf9000000: // LDR and STR (immediate, unsigned offset), 64 bits
			all = append(all, register[rn]+imm*8)
		case op&0xff800000 == 0xa9000000: // LDP and STP (signed offset), 64 bits
			pair := register[rn] + uint64(int64(int32(op<<10))>>25<<3)
			all = append(all, pair, pair+8)
		}
	}
	return all
}

// triples returns the addresses whose two next words are referenced too.
func triples(all []uint64) (found []uint64) {
	for i := 0; i+2 < len(all); i++ {
		if _, third := slices.BinarySearch(all, all[i]+16); third && all[i+1] == all[i]+8 {
			found = append(found, all[i])
		}
	}
	return found
}

// plausible reports whether a slice of goroutines is at an address now.
func (t *Target) plausible(address uint64) (bool, error) {
	list, _, err := t.pointers(address, 16)
	if err != nil || len(list) == 0 {
		return false, err
	}
	records, err := t.records(list)
	if err != nil {
		return false, nil // a pointer to nowhere
	}
	named := 0
	for i := range records {
		r := &records[i]
		if r.hi < r.lo || r.hi-r.lo > 1<<32 || r.status > 16 {
			return false, nil
		}
		if r.id != 0 {
			named++
		}
	}
	return named > 0, nil
}

// pointers reads the first goroutines of the slice at an address, and how many
// there are. Nothing at all is returned for what is no such slice.
func (t *Target) pointers(address uint64, atMost int) (list []uint64, total int, err error) {
	// The slice is read before and after its array. Where the program replaced it
	// meanwhile, it is read again.
	for range 5 {
		before, err := t.words(address, 3)
		if err != nil {
			return nil, 0, err
		}
		array, length, room := before[0], before[1], before[2]
		if array == 0 || array%8 != 0 || length == 0 || length > room || room > mostGs {
			return nil, 0, nil
		}
		list, err := t.words(array, int(min(length, uint64(atMost))))
		if err != nil {
			return nil, 0, nil
		}
		after, err := t.words(address, 3)
		if err != nil {
			return nil, 0, err
		}
		if after[0] == array && after[1] >= length && !slices.ContainsFunc(list, func(g uint64) bool { return g == 0 || g%8 != 0 }) {
			return list, int(length), nil
		}
	}
	return nil, 0, nil
}
