package gobin

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// What an executable may have. Packages debug/elf and debug/buildinfo are not
// made for hostile files: they hold a record for each of up to 2³² sections,
// unpack a section of names that claims to be compressed to any size, and
// search a whole data segment. Real programs have some 10 segments, 40 sections
// and under 100 KiB of build information, of which only the last is read whole.
const (
	mostRead     = 4 << 20
	mostSegments = 1024
	mostSections = 4096
	mostNames    = 1 << 20
)

var errTooMuch = fmt.Errorf("its build information is not in the first %d MiB to look at", mostRead>>20)

// image is an executable file, of which only so much can be read.
type image struct {
	file io.ReaderAt
	size int64
	left int // bytes that may still be read

	// failed is the first error other than [io.EOF]. The ELF packages do not
	// pass on all they get.
	failed error

	// checked is what check has seen. It is read from here ever after, so that
	// what was checked is what is used when somebody writes to the file
	// meanwhile.
	checked []span
}

type span struct {
	start int64
	data  []byte
}

// ReadAt reads from the file until as much was read as may be, then fails.
func (m *image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= m.size {
		return 0, io.EOF
	}
	want := len(p)
	if int64(want) > m.size-off {
		p = p[:m.size-off]
	}
	if m.failed == nil && len(p) > m.left {
		m.failed = errTooMuch
	}
	if m.failed != nil {
		return 0, m.failed
	}
	m.left -= len(p)
	n, err := m.file.ReadAt(p, off)
	if err != nil && err != io.EOF {
		m.failed = err
	}
	for _, s := range m.checked {
		if lo, hi := max(s.start, off), min(s.start+int64(len(s.data)), off+int64(n)); lo < hi {
			copy(p[lo-off:hi-off], s.data[lo-s.start:])
		}
	}
	if err == nil && n < want {
		err = io.EOF
	}
	return n, err
}

// see reads and keeps n bytes for check.
func (m *image) see(off int64, n int) ([]byte, error) {
	data := make([]byte, n)
	if _, err := m.ReadAt(data, off); err != nil {
		return nil, err
	}
	m.checked = append(m.checked, span{off, data})
	return data, nil
}

// check reads as much of the ELF headers as it takes to tell that the file has
// no more of anything than an executable may have.
func (m *image) check() error {
	ident, err := m.see(0, elf.EI_NIDENT)
	if err != nil || string(ident[:len(elf.ELFMAG)]) != elf.ELFMAG {
		return m.notProgram("no ELF header")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(ident[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	narrow := elf.Class(ident[elf.EI_CLASS]) == elf.ELFCLASS32

	var h elf.Header64
	if narrow {
		var n elf.Header32
		err = m.decode(0, order, &n)
		h.Phnum, h.Shoff, h.Shentsize, h.Shnum, h.Shstrndx = n.Phnum, uint64(n.Shoff), n.Shentsize, n.Shnum, n.Shstrndx
	} else {
		err = m.decode(0, order, &h)
	}
	switch {
	case err != nil:
		return m.notProgram("it ends within its header")
	case h.Phnum > mostSegments || h.Shnum > mostSections || h.Shnum == 0 && h.Shoff != 0: // 0 = more than 16 bits can say
		return m.notProgram("more segments or sections than an executable has")
	case h.Shnum == 0 || h.Shstrndx == 0:
		return nil // its sections, if any, have no names
	}

	var names elf.Section64
	at := int64(h.Shoff) + int64(h.Shstrndx)*int64(h.Shentsize)
	if narrow {
		var n elf.Section32
		err = m.decode(at, order, &n)
		names.Flags, names.Size = uint64(n.Flags), uint64(n.Size)
	} else {
		err = m.decode(at, order, &names)
	}
	switch {
	case err != nil:
		return m.notProgram("it ends within its section headers")
	case elf.SectionFlag(names.Flags)&elf.SHF_COMPRESSED != 0 || names.Size > mostNames:
		return m.notProgram("it hides the names of its sections")
	}
	return nil
}

// decode reads and keeps a header.
func (m *image) decode(off int64, order binary.ByteOrder, header any) error {
	data, err := m.see(off, binary.Size(header))
	if err == nil {
		_, err = binary.Decode(data, order, header)
	}
	return err
}

// notProgram returns an [ErrNotProgram], or why the file could not be read when
// that is the cause.
func (m *image) notProgram(why string) error {
	if m.failed != nil {
		return m.failed
	}
	return fmt.Errorf("%w: %s", ErrNotProgram, why)
}
