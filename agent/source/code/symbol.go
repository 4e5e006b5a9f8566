package code

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"

	"github.com/lifeline-go/lifeline/agent/source/gobin"
)

const (
	mostSections = 4096
	mostSymbols  = 4 << 20
	mostSegments = 1024
	mostName     = 512
	symbolSize   = 24 // Elf64_Sym
)

// symbol returns the function that has the code at an offset of an executable or
// library, and how far into it that is.
func symbol(path string, offset uint64) (name string, into uint64, ok bool) {
	file, _, err := gobin.Open(path)
	if err != nil {
		return "", 0, false
	}
	defer file.Close()
	return symbolIn(file, offset)
}

func symbolIn(file io.ReaderAt, offset uint64) (name string, into uint64, ok bool) {
	var h elf.Header64
	if !read(file, 0, &h) || string(h.Ident[:4]) != elf.ELFMAG || elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64 ||
		elf.Data(h.Ident[elf.EI_DATA]) != elf.ELFDATA2LSB || h.Shnum > mostSections || h.Phnum > mostSegments {
		return "", 0, false
	}
	address, ok := addressOf(file, &h, offset)
	if !ok {
		return "", 0, false
	}
	for i := range int64(h.Shnum) {
		var table, names elf.Section64
		if !read(file, int64(h.Shoff)+i*64, &table) || elf.SectionType(table.Type) != elf.SHT_SYMTAB && elf.SectionType(table.Type) != elf.SHT_DYNSYM {
			continue
		}
		if table.Link >= uint32(h.Shnum) || !read(file, int64(h.Shoff)+int64(table.Link)*64, &names) {
			continue
		}
		if name, into, ok := within(file, &table, &names, address); ok {
			return name, into, true
		}
	}
	return "", 0, false
}

// addressOf is where an offset of the file is loaded, by the file itself.
func addressOf(file io.ReaderAt, h *elf.Header64, offset uint64) (uint64, bool) {
	for i := range int64(h.Phnum) {
		var p elf.Prog64
		if read(file, int64(h.Phoff)+i*56, &p) && elf.ProgType(p.Type) == elf.PT_LOAD && offset >= p.Off && offset-p.Off < p.Filesz {
			return p.Vaddr + offset - p.Off, true
		}
	}
	return 0, false
}

// within looks for the function that an address is in.
func within(file io.ReaderAt, table, names *elf.Section64, address uint64) (name string, into uint64, ok bool) {
	buf := make([]byte, 4096*symbolSize)
	for at, end := uint64(0), min(table.Size, mostSymbols*symbolSize); at < end; {
		n, err := file.ReadAt(buf[:min(uint64(len(buf)), end-at)], int64(table.Off+at))
		for b := buf[:n]; len(b) >= symbolSize; b = b[symbolSize:] {
			start, size := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
			if elf.ST_TYPE(b[4]) != elf.STT_FUNC || address < start || address-start >= size {
				continue
			}
			text := make([]byte, mostName)
			n, _ := file.ReadAt(text, int64(names.Off)+int64(binary.LittleEndian.Uint32(b)))
			if end := bytes.IndexByte(text[:max(n, 0)], 0); end > 0 {
				return string(text[:end]), address - start, true
			}
		}
		if at += uint64(n - n%symbolSize); err != nil || n < symbolSize {
			return "", 0, false
		}
	}
	return "", 0, false
}

// read reads a structure of an ELF file.
func read(file io.ReaderAt, at int64, into any) bool {
	if at < 0 {
		return false
	}
	size := binary.Size(into)
	buf := make([]byte, size)
	if _, err := file.ReadAt(buf, at); err != nil {
		return false
	}
	_, err := binary.Decode(buf, binary.LittleEndian, into)
	return err == nil
}
