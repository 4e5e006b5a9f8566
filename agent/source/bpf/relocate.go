package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// wanted are the types of the object that the kernel has too.
func wanted(types *btf.Spec) ([]typeName, error) {
	var names []typeName
	for t, err := range types.All() {
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case *btf.Struct:
			if t.Name != "" && t.Name != "record" && len(t.Members) > 0 {
				names = append(names, typeName{kindStruct, t.Name})
			}
		case *btf.Enum:
			names = append(names, typeName{kindEnum, t.Name})
		}
	}
	return names, nil
}

// lay returns the types of the object as this kernel lays them out: with the
// same members, at the offsets and of the sizes that v gives. It changes the
// types it is given.
func lay(v *vmlinux, types *btf.Spec) (*btf.Spec, error) {
	var laid []btf.Type
	for t, err := range types.All() {
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case *btf.Struct:
			id, ok := v.named[typeName{kindStruct, t.Name}]
			if !ok {
				continue
			}
			if err := layStruct(v, t, id); err != nil {
				return nil, err
			}
			laid = append(laid, t)
		case *btf.Enum:
			if err := layEnum(v, t); err != nil {
				return nil, err
			}
			laid = append(laid, t)
		}
	}
	b, err := btf.NewBuilder(laid, nil)
	if err != nil {
		return nil, err
	}
	return b.Spec()
}

func layStruct(v *vmlinux, s *btf.Struct, id uint32) error {
	s.Size = v.size(id)
	for i := range s.Members {
		m := &s.Members[i]
		offset, typ, found, err := v.member(id, m.Name, 4)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("%s.%s is not in the kernel's BTF", s.Name, m.Name)
		}
		m.Offset = btf.Bits(offset)
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Int:
			size := v.size(typ)
			if v.kind(typ) != kindInt || size > 8 {
				return fmt.Errorf("%s.%s is no such integer in the kernel's BTF", s.Name, m.Name)
			}
			m.Type = &btf.Int{Name: t.Name, Size: size, Encoding: t.Encoding}
		case *btf.Struct:
			if v.kind(typ) != kindStruct {
				return fmt.Errorf("%s.%s is no struct in the kernel's BTF", s.Name, m.Name)
			}
			if err := layStruct(v, t, typ); err != nil {
				return err
			}
		}
	}
	return nil
}

func layEnum(v *vmlinux, e *btf.Enum) error {
	for i := range e.Values {
		value, ok := v.enumValue(v.named[typeName{kindEnum, e.Name}], e.Values[i].Name)
		if !ok {
			return fmt.Errorf("%s is not in the kernel's BTF", e.Values[i].Name)
		}
		e.Values[i].Value = uint64(value)
	}
	return nil
}

// relocate applies CO-RE relocations to instructions.
func relocate(instructions asm.Instructions, order binary.ByteOrder, types *btf.Spec) error {
	var relocations []*btf.CORERelocation
	var at []*asm.Instruction
	for i := range instructions {
		if r := btf.CORERelocationMetadata(&instructions[i]); r != nil {
			relocations, at = append(relocations, r), append(at, &instructions[i])
		}
	}
	local := func(btf.Type) (btf.TypeID, error) { return 0, btf.ErrNotFound } // none is asked for
	fixups, err := btf.CORERelocate(relocations, []*btf.Spec{types}, order, local)
	if err != nil {
		return err
	}
	for i := range fixups {
		if err := fixups[i].Apply(at[i]); err != nil {
			return err
		}
	}
	return nil
}
