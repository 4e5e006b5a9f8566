package gobin

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime/metrics"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// tiny describes an ELF file of a few hundred bytes that tells what the test
// wants it to, true or not. The zero tiny has one data segment, which holds
// build information, and no sections.
type tiny struct {
	narrow, big   bool // 32 bits; big-endian
	named         bool // has sections with names
	filesz, memsz uint64
	skip          int    // zeros before the build information
	info          []byte // nil = that of a module
	infoSize      uint64
	interp        bool
	segments      uint16 // claimed
	sections      uint16 // claimed
	nameFlags     uint64
	nameSize      uint64
	names         []byte
}

// inline is build information as linkers write it since Go 1.18, cmd/link/internal/ld/data.go.
func inline(version string, claimed uint64) []byte {
	head := append([]byte("\xff Go buildinf:"), 8, 2)
	head = append(head, make([]byte, 16)...)
	head = binary.AppendUvarint(head, uint64(len(version)))
	head = append(head, version...)
	return binary.AppendUvarint(head, claimed)
}

// module is build information with text as that of its module.
func module(text string) []byte {
	text = strings.Repeat("s", 16) + text + strings.Repeat("e", 16)
	return append(inline("go1.26.8", uint64(len(text))), text...)
}

func (e tiny) bytes() []byte {
	const base, address = 0x200, 0x10000
	var order binary.ByteOrder = binary.LittleEndian
	if e.big {
		order = binary.BigEndian
	}
	info := e.info
	if info == nil {
		info = module("path\tx\nmod\texample.org/x\tv1.0.0\t\nbuild\tCGO_ENABLED=0\nbuild\t-tags=a,b\n")
	}
	data := append(make([]byte, e.skip), info...)
	or := func(a, b uint64) uint64 {
		if a == 0 {
			return b
		}
		return a
	}
	segments := []elf.Prog64{{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Off: base, Vaddr: address,
		Filesz: or(e.filesz, uint64(len(data))), Memsz: or(e.memsz, uint64(len(data))),
	}}
	if e.interp {
		segments = append(segments, elf.Prog64{Type: uint32(elf.PT_INTERP)})
	}
	names := e.names
	if names == nil {
		names = []byte("\x00.go.buildinfo\x00.shstrtab\x00")
	}
	var sections []elf.Section64
	if e.named {
		sections = []elf.Section64{
			{},
			{Name: 1, Type: uint32(elf.SHT_PROGBITS), Addr: address + uint64(e.skip), Off: base + uint64(e.skip), Size: or(e.infoSize, uint64(len(info)))},
			{Name: 15, Type: uint32(elf.SHT_STRTAB), Flags: e.nameFlags, Off: uint64(base + len(data)), Size: or(e.nameSize, uint64(len(names)))},
		}
	}
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Phoff: 64,
		Phentsize: 56, Phnum: uint16(or(uint64(e.segments), uint64(len(segments)))),
		Shentsize: 64, Shnum: uint16(or(uint64(e.sections), uint64(len(sections)))),
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	if e.big {
		h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	if e.named {
		h.Shoff, h.Shstrndx = uint64(base+len(data)+len(names)), 2
	}
	var b bytes.Buffer
	put := func(v any) { binary.Write(&b, order, v) }
	if e.narrow {
		h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS32)
		put(elf.Header32{
			Ident: h.Ident, Type: h.Type, Machine: h.Machine, Version: 1, Phoff: 64, Shoff: uint32(h.Shoff),
			Phentsize: 32, Phnum: h.Phnum, Shentsize: 40, Shnum: h.Shnum, Shstrndx: h.Shstrndx,
		})
		b.Write(make([]byte, 64-b.Len()))
		for _, s := range segments {
			put(elf.Prog32{Type: s.Type, Flags: s.Flags, Off: uint32(s.Off), Vaddr: uint32(s.Vaddr), Filesz: uint32(s.Filesz), Memsz: uint32(s.Memsz)})
		}
	} else {
		put(h)
		put(segments)
	}
	b.Write(make([]byte, base-b.Len()))
	b.Write(data)
	b.Write(names)
	for _, s := range sections {
		if e.narrow {
			put(elf.Section32{Name: s.Name, Type: s.Type, Flags: uint32(s.Flags), Addr: uint32(s.Addr), Off: uint32(s.Off), Size: uint32(s.Size)})
		} else {
			put(s)
		}
	}
	return b.Bytes()
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func inspectBytes(data []byte) (*image, error) {
	m := &image{file: bytes.NewReader(data), size: int64(len(data)), left: mostRead}
	_, err := inspect(m)
	return m, err
}

func TestTiny(t *testing.T) {
	for name, e := range map[string]tiny{
		"64":            {named: true},
		"64 big-endian": {named: true, big: true},
		"32":            {named: true, narrow: true},
		"32 big-endian": {named: true, narrow: true, big: true},
		"no sections":   {},
		"skipped":       {skip: 1 << 20, interp: true},
	} {
		data := e.bytes()
		p, err := inspect(&image{file: bytes.NewReader(data), size: int64(len(data)), left: mostRead})
		if err != nil || p.Go != "go1.26.8" || p.Module != "example.org/x" || p.Version != "v1.0.0" || len(p.Tags) != 2 || !p.CGO.OK || p.Static == e.interp {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestForeignText(t *testing.T) {
	data := tiny{named: true, info: module("mod\texample.org/\x1b[2J" + strings.Repeat("x", 2000) + "\tv1\xff\t\nbuild\tCGO_ENABLED=maybe\nbuild\t\"-tags\"=\"a\\x1b,b\"\n")}.bytes()
	p, err := inspect(&image{file: bytes.NewReader(data), size: int64(len(data)), left: mostRead})
	if err != nil || !strings.HasPrefix(p.Module, `example.org/\x1b[2Jxx`) || len(p.Module) > 1100 || p.Version != `v1\xff` || p.CGO.OK || len(p.Tags) != 2 || p.Tags[0] != `a\x1b` {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestHostile(t *testing.T) {
	bomb := make([]byte, 24)
	binary.LittleEndian.PutUint32(bomb, uint32(elf.COMPRESS_ZLIB))
	binary.LittleEndian.PutUint64(bomb[8:], 1<<40)
	for name, e := range map[string]tiny{
		"no build information": {named: true, names: []byte("\x00.gopclntab\x00\x00\x00\x00.shstrtab\x00")},
		"damaged information":  {named: true, info: []byte("\xff Go buildinf:\x09\x02")},
		"compressed names":     {named: true, names: bomb, nameFlags: uint64(elf.SHF_COMPRESSED)},
		"names of 1 TiB":       {named: true, nameSize: 1 << 40},
		"65535 segments":       {segments: 65535},
		"65535 sections":       {named: true, sections: 65535},
		"4096 sections":        {named: true, sections: 4096},
		"380,000 modules":      {named: true, info: module(strings.Repeat("dep\ta\tb\n", 380_000))},
	} {
		t.Run(name, func(t *testing.T) {
			data := e.bytes()
			before, begin := allocated(), time.Now()
			_, err := inspectBytes(data)
			spent, took := allocated()-before, time.Since(begin)
			if err == nil && name != "380,000 modules" {
				t.Error("no error")
			}
			if spent > mostSpent {
				t.Errorf("allocated %d MiB", spent>>20)
			}
			t.Logf("%v, %d KiB: %v", took, spent>>10, err)
		})
	}
}

// mostSpent is what may be allocated for one file, most of it garbage at once.
const mostSpent = 256 << 20

// rewritten is a file that becomes another as soon as it was looked at.
type rewritten struct {
	first, then io.ReaderAt
	reads       int
}

func (r *rewritten) ReadAt(p []byte, off int64) (int, error) {
	if r.reads++; r.reads <= 3 { // of check: ident, header, section of names
		return r.first.ReadAt(p, off)
	}
	return r.then.ReadAt(p, off)
}

func TestRewrittenMeanwhile(t *testing.T) {
	good := tiny{named: true}.bytes()
	for name, bad := range map[string][]byte{
		"more sections":    tiny{named: true, sections: 65535}.bytes(),
		"compressed names": tiny{named: true, nameFlags: uint64(elf.SHF_COMPRESSED)}.bytes(),
	} {
		p, err := inspect(&image{
			file: &rewritten{first: bytes.NewReader(good), then: bytes.NewReader(bad)},
			size: int64(len(good)), left: mostRead,
		})
		if err != nil || p.Go == "" {
			t.Errorf("%s: what was checked is not what was used: %+v, %v", name, p, err)
		}
	}
}

type broken struct{}

var errDisk = errors.New("input/output error")

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestUnreadable(t *testing.T) {
	if _, err := inspect(&image{file: broken{}, size: 100, left: mostRead}); !errors.Is(err, errDisk) || errors.Is(err, ErrNotProgram) {
		t.Errorf("got %v", err)
	}
}

func FuzzInspect(f *testing.F) {
	for _, e := range []tiny{
		{}, {named: true}, {narrow: true}, {named: true, narrow: true, big: true}, {interp: true, skip: 100},
		{named: true, infoSize: 1 << 40}, {filesz: 1 << 62, memsz: 1 << 63}, {named: true, sections: 4096},
		{named: true, nameFlags: uint64(elf.SHF_COMPRESSED)}, {named: true, info: inline("go1", 1<<40)},
		{info: append([]byte("\xff Go buildinf:\x08\x00"), make([]byte, 64)...)},
	} {
		f.Add(e.bytes())
	}
	if program, err := os.ReadFile("/bin/true"); err == nil && len(program) < 64<<10 {
		f.Add(program)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before, begin := allocated(), time.Now()
		p, err := inspect(&image{file: bytes.NewReader(data), size: int64(len(data)), left: mostRead})
		if spent := allocated() - before; spent > mostSpent {
			t.Errorf("allocated %d MiB", spent>>20)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without text")
		}
		for _, s := range append(p.Tags, p.Go, p.Module, p.Version) {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("not printable: %q", s)
			}
		}
	})
}
