package gosym

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

var order = binary.LittleEndian

// What an executable may have; see package gobin. Package debug/elf is not made
// for hostile files, and this needs little of what it does.
const (
	mostSegments = 1024
	mostSections = 4096
	mostNames    = 1 << 20
	mostPiece    = 1 << 20 // bytes asked for at once

	mostRelocations = 256 << 20 // bytes of them

	blockSize  = 16 << 10
	mostBlocks = 1024 // kept: 16 MiB
	scanSize   = 256 << 10
)

// image is an executable: bytes by the address they are loaded at.
type image struct {
	file     io.ReaderAt
	size     int64
	machine  string // GOARCH
	relative uint64 // type of the relocation that adds the load address
	dynamic  bool   // loaded at any address
	entry    uint64
	segments []elf.Prog64
	sections map[string]elf.Section64 // the few that are of use, by name
	rela     elf.Prog64               // relocations: Vaddr and Filesz
	blocks   map[int64][]byte
	failed   bool // not all could be read
}

// wanted are the sections that are of use where there are any.
var wanted = []string{".gopclntab", ".data.rel.ro.gopclntab", ".go.module"}

func newImage(file io.ReaderAt, size int64) (*image, error) {
	im := &image{file: file, size: size, sections: make(map[string]elf.Section64), blocks: make(map[int64][]byte)}
	var h elf.Header64
	head := im.at(0, 64)
	if head == nil || string(head[:4]) != elf.ELFMAG {
		return nil, fmt.Errorf("%w: not an ELF program", ErrNotGo)
	}
	if elf.Class(head[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(head[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%w: not a 64-bit little-endian one", ErrNotGo)
	}
	if _, err := binary.Decode(head, order, &h); err != nil {
		return nil, err
	}
	switch elf.Machine(h.Machine) {
	case elf.EM_X86_64:
		im.machine, im.relative = "amd64", uint64(elf.R_X86_64_RELATIVE)
	case elf.EM_AARCH64:
		im.machine, im.relative = "arm64", uint64(elf.R_AARCH64_RELATIVE)
	default:
		return nil, fmt.Errorf("%w: for %v, neither amd64 nor arm64", ErrNotGo, elf.Machine(h.Machine))
	}
	im.dynamic, im.entry = elf.Type(h.Type) == elf.ET_DYN, h.Entry
	if h.Phnum > mostSegments || h.Phentsize != 56 {
		return nil, fmt.Errorf("%w: more segments than an executable has", ErrNotGo)
	}
	im.readSegments(&h)
	im.readSections(&h)
	return im, nil
}

func (im *image) readSegments(h *elf.Header64) {
	for i := range int64(h.Phnum) {
		var p elf.Prog64
		b := im.at(int64(h.Phoff)+i*56, 56)
		if b == nil {
			return
		}
		if _, err := binary.Decode(b, order, &p); err != nil {
			return
		}
		switch elf.ProgType(p.Type) {
		case elf.PT_LOAD:
			if p.Filesz > p.Memsz || p.Vaddr+p.Memsz < p.Vaddr || p.Off > uint64(im.size) {
				continue
			}
			p.Filesz = min(p.Filesz, uint64(im.size)-p.Off)
			im.segments = append(im.segments, p)
		case elf.PT_DYNAMIC:
			im.readDynamic(p)
		}
	}
}

// readDynamic finds the relocations.
func (im *image) readDynamic(p elf.Prog64) {
	b := im.at(int64(p.Off), int(min(p.Filesz, 64<<10)))
	for ; len(b) >= 16; b = b[16:] {
		value := order.Uint64(b[8:])
		switch elf.DynTag(order.Uint64(b)) {
		case elf.DT_RELA:
			im.rela.Vaddr = value
		case elf.DT_RELASZ:
			im.rela.Filesz = min(value, mostRelocations)
		case elf.DT_NULL:
			return
		}
	}
}

// readSections finds the sections that are of use. A file without any, or with
// bad ones, is searched instead.
func (im *image) readSections(h *elf.Header64) {
	if h.Shnum == 0 || h.Shnum > mostSections || h.Shentsize != 64 || h.Shstrndx >= h.Shnum {
		return
	}
	section := func(i uint16) (s elf.Section64, ok bool) {
		b := im.at(int64(h.Shoff)+int64(i)*64, 64)
		if b == nil {
			return s, false
		}
		_, err := binary.Decode(b, order, &s)
		return s, err == nil
	}
	table, ok := section(h.Shstrndx)
	if !ok || table.Size > mostNames {
		return
	}
	names := im.at(int64(table.Off), int(table.Size))
	for i := range h.Shnum {
		s, ok := section(i)
		if !ok || uint64(s.Name) >= uint64(len(names)) {
			continue
		}
		for _, name := range wanted {
			if bytes.HasPrefix(names[s.Name:], []byte(name+"\x00")) {
				im.sections[name] = s
			}
		}
	}
}

// at returns n bytes of the file, nil when it has not that many there.
func (im *image) at(off int64, n int) []byte {
	if off < 0 || n < 0 || off > im.size || int64(n) > im.size-off {
		return nil
	}
	first, last := off/blockSize, (off+int64(n)-1)/blockSize
	if n == 0 || first == last {
		b := im.block(first)
		from := int(off - first*blockSize)
		if len(b) < from+n {
			return nil
		}
		return b[from : from+n : from+n]
	}
	whole := make([]byte, 0, n)
	for i := first; i <= last; i++ {
		b := im.block(i)
		lo, hi := max(off-i*blockSize, 0), min(off+int64(n)-i*blockSize, blockSize)
		if int64(len(b)) < hi {
			return nil
		}
		whole = append(whole, b[lo:hi]...)
	}
	return whole
}

// block returns one block of the file, as far as it could be read.
func (im *image) block(i int64) []byte {
	if b, found := im.blocks[i]; found {
		return b
	}
	if len(im.blocks) >= mostBlocks {
		clear(im.blocks)
	}
	b := make([]byte, min(blockSize, im.size-i*blockSize))
	n, err := im.file.ReadAt(b, i*blockSize)
	if err != nil && err != io.EOF {
		im.failed = true
		return nil // not kept: it may be read the next time
	}
	im.blocks[i] = b[:n]
	return b[:n]
}

// bytes returns n bytes at an address, nil when they are not all in the file.
func (im *image) bytes(address uint64, n int) []byte {
	for i := range im.segments {
		s := &im.segments[i]
		if address >= s.Vaddr && address-s.Vaddr <= s.Filesz && uint64(n) <= s.Filesz-(address-s.Vaddr) {
			return im.at(int64(s.Off+(address-s.Vaddr)), n)
		}
	}
	return nil
}

// text returns the zero-terminated string at an address, cut off at most bytes.
func (im *image) text(address uint64, most int) string {
	for n := 64; ; n *= 4 {
		n = min(n, most)
		b := im.bytes(address, n)
		if b == nil { // near the end of the segment
			for b == nil && n > 0 {
				n /= 2
				b = im.bytes(address, n)
			}
			most = n
		}
		if end := bytes.IndexByte(b, 0); end >= 0 {
			return string(b[:end])
		}
		if n >= most {
			return string(b)
		}
	}
}

// offset returns where in the file an address is.
func (im *image) offset(address uint64) (uint64, bool) {
	for i := range im.segments {
		if s := &im.segments[i]; address >= s.Vaddr && address-s.Vaddr < s.Filesz {
			return s.Off + address - s.Vaddr, true
		}
	}
	return 0, false
}

func (im *image) writable(address uint64) bool {
	for i := range im.segments {
		s := &im.segments[i]
		if elf.ProgFlag(s.Flags)&elf.PF_W != 0 && address >= s.Vaddr && address-s.Vaddr < s.Memsz {
			return true
		}
	}
	return false
}

// scan calls visit with all that is loaded and is not code, piece by piece, each
// piece beginning with the last overlap bytes of the one before, until it
// returns false. The pieces are not kept.
func (im *image) scan(overlap int, visit func(address uint64, piece []byte) bool) {
	buf := make([]byte, scanSize)
	for i := range im.segments {
		s := &im.segments[i]
		if elf.ProgFlag(s.Flags)&elf.PF_X != 0 {
			continue
		}
		for at := uint64(0); at < s.Filesz; {
			n, err := im.file.ReadAt(buf[:min(uint64(len(buf)), s.Filesz-at)], int64(s.Off+at))
			if n > 0 && !visit(s.Vaddr+at, buf[:n]) {
				return
			}
			im.failed = im.failed || err != nil && err != io.EOF
			if err != nil || n <= overlap || at+uint64(n) >= s.Filesz {
				break
			}
			at += uint64(n - overlap)
		}
	}
}

// scanWords calls visit with every aligned word that may be an address, as it
// is after relocation, until it returns false.
func (im *image) scanWords(visit func(address, value uint64) bool) {
	more := true
	im.relocations(func(address, value uint64) bool {
		more = visit(address, value)
		return more
	})
	if !more {
		return
	}
	im.scan(0, func(address uint64, piece []byte) bool {
		for i := int(-address & 7); i+8 <= len(piece); i += 8 {
			if v := order.Uint64(piece[i:]); v != 0 && !visit(address+uint64(i), v) {
				return false
			}
		}
		return true
	})
}

// relocations calls visit with every word that the loader fills in with an
// address of the program itself, until it returns false.
func (im *image) relocations(visit func(address, value uint64) bool) {
	const entry = 24 // Elf64_Rela
	for at := uint64(0); at+entry <= im.rela.Filesz; {
		n := min(im.rela.Filesz-at, scanSize/entry*entry)
		b := im.bytes(im.rela.Vaddr+at, int(n))
		if b == nil {
			return
		}
		for ; len(b) >= entry; b = b[entry:] {
			if order.Uint64(b[8:]) == im.relative && !visit(order.Uint64(b), order.Uint64(b[16:])) {
				return
			}
		}
		at += n
	}
}

// words returns n words at an address as they are after relocation, nil when
// they are not all in the file.
func (im *image) words(address uint64, n int) []uint64 {
	b := im.bytes(address, 8*n)
	if b == nil {
		return nil
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = order.Uint64(b[8*i:])
	}
	im.relocations(func(at, value uint64) bool {
		if at >= address && (at-address)/8 < uint64(n) && (at-address)%8 == 0 {
			list[(at-address)/8] = value
		}
		return true
	})
	return list
}
