package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// vmlinux is the kernel's description of its own types, BTF, as the bytes of
// /sys/kernel/btf/vmlinux; Documentation/bpf/btf.rst has the format.
//
// The loader's own reader makes an index of all hundred thousand types of the
// kernel and of those of each of its modules, and follows every pointer of
// those it is asked for. That takes longer than the pass over all sockets that
// the program is loaded for. The program needs twenty members of fifteen types,
// so this one goes over the bytes once and looks at nothing else.
type vmlinux struct {
	types    []byte
	strings  []byte
	at       []uint32            // by type ID, where in types it is; 0 is void
	named    map[typeName]uint32 // the wanted structs and enums
	function uint32              // the wanted function
	budget   int                 // members that may still be looked at
}

// typeName is what a type is looked up by: one name may stand for several
// kinds.
type typeName struct {
	kind uint8
	name string
}

// The kinds of types, BTF_KIND_* of include/uapi/linux/btf.h.
const (
	kindInt      = 1
	kindArray    = 3
	kindStruct   = 4
	kindUnion    = 5
	kindEnum     = 6
	kindTypedef  = 8
	kindVolatile = 9
	kindConst    = 10
	kindRestrict = 11
	kindFunc     = 12
	kindTypeTag  = 18
	kinds        = 20
)

// extra is what follows the twelve bytes of a type: always, and for each of
// its members.
var extra = [kinds]struct{ once, each uint32 }{
	kindInt: {once: 4}, kindArray: {once: 12}, 14: {once: 4}, 17: {once: 4},
	kindStruct: {each: 12}, kindUnion: {each: 12}, kindEnum: {each: 8},
	13: {each: 8}, 15: {each: 12}, 19: {each: 12},
}

var errMalformed = errors.New("malformed BTF")

// parse finds the wanted structs and enums, and a function. Each must be there
// exactly once.
func parse(raw []byte, wanted []typeName, function string) (*vmlinux, error) {
	const headerLength = 24
	if len(raw) < headerLength || binary.NativeEndian.Uint16(raw) != 0xeb9f {
		return nil, errMalformed
	}
	var header [5]uint32 // hdr_len, type_off, type_len, str_off, str_len
	for i := range header {
		header[i] = binary.NativeEndian.Uint32(raw[4+4*i:])
	}
	section := func(offset, length uint32) []byte {
		from := uint64(header[0]) + uint64(offset)
		if from+uint64(length) > uint64(len(raw)) {
			return nil
		}
		return raw[from : from+uint64(length)]
	}
	v := &vmlinux{
		types:   section(header[1], header[2]),
		strings: section(header[3], header[4]),
		named:   make(map[typeName]uint32, len(wanted)),
		budget:  1 << 20,
	}
	v.at = make([]uint32, 1, 1+len(v.types)/24)
	for _, w := range wanted {
		v.named[w] = 0
	}
	if err := v.index([]byte(function + "\x00")); err != nil {
		return nil, err
	}
	if v.function == 0 {
		return nil, fmt.Errorf("%s is not in the kernel's BTF", function)
	}
	for w, id := range v.named {
		if id == 0 {
			return nil, fmt.Errorf("%s is not in the kernel's BTF", w.name)
		}
	}
	return v, nil
}

// index notes where each type is, and which are the wanted.
func (v *vmlinux) index(function []byte) error {
	for at := uint32(0); at < uint32(len(v.types)); {
		if len(v.types)-int(at) < 12 {
			return errMalformed
		}
		id := uint32(len(v.at))
		v.at = append(v.at, at)
		kind := v.kind(id)
		if kind == 0 || kind >= kinds {
			return fmt.Errorf("BTF of unknown kind %d", kind)
		}
		switch kind {
		case kindStruct, kindEnum:
			if err := v.note(id, kind); err != nil {
				return err
			}
		case kindFunc:
			// Half of all types are functions, and their names are long.
			if name := v.u32(at); name < uint32(len(v.strings)) && bytes.HasPrefix(v.strings[name:], function) {
				v.function = id
			}
		}
		length := 12 + uint64(extra[kind].once) + uint64(v.members(id))*uint64(extra[kind].each)
		if uint64(at)+length > uint64(len(v.types)) {
			return errMalformed
		}
		at += uint32(length)
	}
	return nil
}

// note remembers a struct or an enum that is wanted.
func (v *vmlinux) note(id uint32, kind uint8) error {
	name := v.name(v.u32(v.at[id]))
	old, wanted := v.named[typeName{kind, string(name)}]
	if !wanted {
		return nil
	}
	if old != 0 {
		return fmt.Errorf("%s is twice in the kernel's BTF", name)
	}
	v.named[typeName{kind, string(name)}] = id
	return nil
}

func (v *vmlinux) u32(at uint32) uint32 { return binary.NativeEndian.Uint32(v.types[at:]) }

func (v *vmlinux) kind(id uint32) uint8 { return uint8(v.u32(v.at[id]+4) >> 24 & 0x1f) }

func (v *vmlinux) members(id uint32) uint32 { return v.u32(v.at[id]+4) & 0xffff }

// size returns the size of a struct, an integer or an enum.
func (v *vmlinux) size(id uint32) uint32 { return v.u32(v.at[id] + 8) }

// name returns a text of the string section.
func (v *vmlinux) name(offset uint32) []byte {
	if offset >= uint32(len(v.strings)) {
		return nil
	}
	text := v.strings[offset:]
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	return text
}

// plain follows typedefs and qualifiers to the type behind them.
func (v *vmlinux) plain(id uint32) (uint32, error) {
	for range 32 {
		if id == 0 || id >= uint32(len(v.at)) {
			return 0, errMalformed
		}
		switch v.kind(id) {
		case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag:
			id = v.size(id)
		default:
			return id, nil
		}
	}
	return 0, errMalformed
}

// member returns where a member of a struct is, in bits, and its plain type.
// It looks into members without a name, as C does, depth levels down.
func (v *vmlinux) member(id uint32, name string, depth int) (offset, typ uint32, found bool, err error) {
	kind := v.kind(id)
	if kind != kindStruct && kind != kindUnion {
		return 0, 0, false, nil
	}
	bitfields := v.u32(v.at[id]+4)>>31 == 1
	for i := range v.members(id) {
		at := v.at[id] + 12 + 12*i
		if v.budget--; v.budget < 0 {
			return 0, 0, false, errMalformed
		}
		text, offset := v.name(v.u32(at)), v.u32(at+8)
		if len(text) > 0 && string(text) != name || len(text) == 0 && depth == 0 {
			continue
		}
		if bitfields {
			if offset>>24 != 0 {
				continue // a bit field; what is looked for would be missed
			}
			offset &= 0xffffff
		}
		typ, err := v.plain(v.u32(at + 4))
		if err != nil {
			return 0, 0, false, err
		}
		if len(text) > 0 {
			return offset, typ, true, nil
		}
		inner, typ, found, err := v.member(typ, name, depth-1)
		if found || err != nil {
			return offset + inner, typ, found, err
		}
	}
	return 0, 0, false, nil
}

// enumValue returns the value of a name in an enum.
func (v *vmlinux) enumValue(id uint32, name string) (uint32, bool) {
	for i := range v.members(id) {
		at := v.at[id] + 12 + 8*i
		if string(v.name(v.u32(at))) == name {
			return v.u32(at + 4), true
		}
	}
	return 0, false
}
