package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/lifeline-go/lifeline/internal/need"
)

// TestRelocatedAsLoader holds the fast way to what the loader's own makes of
// the same program for the kernel that runs.
func TestRelocatedAsLoader(t *testing.T) {
	raw, release, err := kernelTypes()
	need.Feature(t, "the kernel's BTF", err)
	defer release()
	fast, target, err := relocated(raw)
	if err != nil {
		t.Fatal(err)
	}

	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := loadOwners()
	if err != nil {
		t.Fatal(err)
	}
	slow := spec.Programs[ownersProgOwners]
	if err := relocate(slow.Instructions, slow.ByteOrder, kernel); err != nil {
		t.Fatal(err)
	}
	if got, want := code(t, fast), code(t, slow); !bytes.Equal(got, want) {
		t.Errorf("instructions differ:\n%v\nwant\n%v", fast.Instructions, slow.Instructions)
	}

	var iterator *btf.Func
	if err := kernel.TypeByName(function, &iterator); err != nil {
		t.Fatal(err)
	}
	if want, err := kernel.TypeID(iterator); err != nil || target != uint32(want) {
		t.Errorf("attaches to type %d, want %d, %v", target, want, err)
	}
}

func code(t *testing.T, program *ebpf.ProgramSpec) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := program.Instructions.Marshal(&b, program.ByteOrder); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// kernelLike returns the BTF of a kernel whose types are those of the object,
// after change.
func kernelLike(t testing.TB, change func(types map[string]btf.Type)) []byte {
	t.Helper()
	spec, err := loadOwners()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]btf.Type{function: &btf.Func{Name: function, Type: &btf.FuncProto{Return: &btf.Void{}}}}
	for typ, err := range spec.Types.All() {
		if err != nil {
			t.Fatal(err)
		}
		switch typ.(type) {
		case *btf.Struct, *btf.Enum:
			if typ.TypeName() != "" {
				types[typ.TypeName()] = typ
			}
		}
	}
	change(types)
	var all []btf.Type
	for _, typ := range types {
		all = append(all, typ)
	}
	b, err := btf.NewBuilder(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, &btf.MarshalOptions{Order: binary.NativeEndian})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func member(t testing.TB, types map[string]btf.Type, in, name string) *btf.Member {
	t.Helper()
	s := types[in].(*btf.Struct)
	for i := range s.Members {
		if s.Members[i].Name == name {
			return &s.Members[i]
		}
	}
	t.Fatalf("no %s.%s", in, name)
	return nil
}

// TestRelocatedMoves moves members in the ways that kernels do, and expects
// what the loader makes of it.
func TestRelocatedMoves(t *testing.T) {
	for name, change := range map[string]func(types map[string]btf.Type){
		"as it is": func(map[string]btf.Type) {},
		"elsewhere": func(types map[string]btf.Type) {
			member(t, types, "tcp_sock", "keepalive_time").Offset = 1000 * 8
			member(t, types, "sock", "__sk_common").Offset = 16 * 8
			types["tcp_sock"].(*btf.Struct).Size, types["sock"].(*btf.Struct).Size = 2000, 500
		},
		"in unnamed union behind typedefs": func(types map[string]btf.Type) {
			flags := member(t, types, "sock_common", "skc_flags")
			inner := &btf.Union{Size: 8, Members: []btf.Member{{Name: "other", Type: &btf.Pointer{Target: &btf.Void{}}}, {Name: flags.Name, Type: &btf.Const{Type: &btf.Typedef{Name: "word", Type: flags.Type}}}}}
			outer := &btf.Struct{Size: 24, Members: []btf.Member{{Name: "before", Type: flags.Type}, {Type: &btf.Volatile{Type: inner}, Offset: 128}}}
			*flags = btf.Member{Type: outer, Offset: 64 * 8}
			types["sock_common"].(*btf.Struct).Size = 256
		},
		"beside bit fields": func(types map[string]btf.Type) {
			s := types["socket"].(*btf.Struct)
			s.Members = append([]btf.Member{{Name: "bits", Type: &btf.Int{Name: "int", Size: 4}, Offset: 3, BitfieldSize: 5}}, s.Members...)
		},
		"narrower": func(types map[string]btf.Type) {
			member(t, types, "inode", "i_ino").Type = &btf.Int{Name: "unsigned int", Size: 4}
		},
		"other bit": func(types map[string]btf.Type) {
			types["sock_flags"].(*btf.Enum).Values = []btf.EnumValue{{Name: "SOCK_DEAD", Value: 0}, {Name: "SOCK_KEEPOPEN", Value: 7}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw := kernelLike(t, change)
			fast, _, err := relocated(raw)
			if err != nil {
				t.Fatal(err)
			}
			kernel, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			spec, err := loadOwners()
			if err != nil {
				t.Fatal(err)
			}
			slow := spec.Programs[ownersProgOwners]
			if err := relocate(slow.Instructions, slow.ByteOrder, kernel); err != nil {
				t.Fatal(err)
			}
			if got, want := code(t, fast), code(t, slow); !bytes.Equal(got, want) {
				t.Errorf("instructions differ:\n%v\nwant\n%v", fast.Instructions, slow.Instructions)
			}
		})
	}
}

// TestRelocatedRefuses has kernels that the fast way must leave to the loader.
func TestRelocatedRefuses(t *testing.T) {
	for name, change := range map[string]func(types map[string]btf.Type){
		"tcp_sock is not in":             func(types map[string]btf.Type) { delete(types, "tcp_sock") },
		function + " is not in":          func(types map[string]btf.Type) { delete(types, function) },
		"SOCK_KEEPOPEN is not in":        func(types map[string]btf.Type) { types["sock_flags"].(*btf.Enum).Values[0].Name = "X" },
		"tcp_sock.keepalive_time is not": func(types map[string]btf.Type) { member(t, types, "tcp_sock", "keepalive_time").Name = "x" },
		"inode.i_ino is no such integer": func(types map[string]btf.Type) {
			member(t, types, "inode", "i_ino").Type = &btf.Pointer{Target: &btf.Void{}}
		},
		"sock.__sk_common is no struct": func(types map[string]btf.Type) {
			member(t, types, "sock", "__sk_common").Type = &btf.Int{Name: "int", Size: 4}
		},
		"socket is twice": func(types map[string]btf.Type) {
			types["again"] = &btf.Struct{Name: "socket", Size: 4}
		},
		"socket.type is not": func(types map[string]btf.Type) { member(t, types, "socket", "type").BitfieldSize = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := relocated(kernelLike(t, change)); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v, want one that says: %s", err, name)
			}
		})
	}
}

func TestParseMalformed(t *testing.T) {
	good := kernelLike(t, func(map[string]btf.Type) {})
	for name, raw := range map[string][]byte{
		"empty":       nil,
		"no BTF":      make([]byte, 100),
		"cut header":  good[:20],
		"cut strings": good[:len(good)-1],
		"cut types":   good[:40],
	} {
		if _, err := parse(raw, nil, function); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
	if _, err := parse(good, nil, function); err != nil {
		t.Error(err)
	}
}

func FuzzRelocated(f *testing.F) {
	good := kernelLike(f, func(map[string]btf.Type) {})
	f.Add(good)
	f.Add(good[:24])
	f.Fuzz(func(t *testing.T, raw []byte) {
		program, target, err := relocated(raw)
		if err == nil && (program == nil || target == 0) {
			t.Fatal("neither program nor error")
		}
		if errors.Is(err, btf.ErrNotFound) {
			t.Fatalf("a type got lost on the way: %v", err)
		}
	})
}

func BenchmarkRelocated(b *testing.B) {
	raw, release, err := kernelTypes()
	need.Feature(b, "the kernel's BTF", err)
	defer release()
	for b.Loop() {
		if _, _, err := relocated(raw); err != nil {
			b.Fatal(err)
		}
	}
}
