package gobin

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"iter"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// What is looked at to tell how a program resolves names. The largest programs
// and libraries have some 10 MiB of dynamic symbols, the largest Go programs
// some 10 MiB of names of functions.
const (
	mostSymbols  = 16 << 20
	mostSearched = 64 << 20
	mostNeeded   = 512
	searchPiece  = 256 << 10
)

// askLibc are the functions of a C library that look hosts up, askDNS those that
// put a question to the nameservers of resolv.conf and nothing else, resolver(3).
var (
	askLibc = []string{"getaddrinfo", "getaddrinfo_a", "gethostbyname", "gethostbyname2", "gethostbyname_r", "gethostbyname2_r"}
	askDNS  = []string{"res_query", "__res_query", "res_search", "__res_search", "res_nquery", "__res_nquery", "res_nsearch", "__res_nsearch",
		"res_send", "__res_send", "res_nsend", "__res_nsend"}
)

// ownClients are libraries that are DNS clients of their own, by how their names
// begin.
var ownClients = []string{"libcares.so", "libldns.so", "libunbound.so", "libgetdns.so", "libdns-", "libdns.so", "libadns.so", "libudns.so", "libknot.so"}

// systemLibraries are the C library and what belongs to it: that they call their
// own functions says nothing of who uses them.
var systemLibraries = []string{"libc.so", "libc.musl-", "ld-", "libresolv.so", "libanl.so", "libnss_", "libnsl.so", "libpthread.so", "libm.so", "libdl.so", "librt.so"}

func begins(name string, with []string) bool {
	return slices.ContainsFunc(with, func(w string) bool { return strings.HasPrefix(name, w) })
}

// linked is what the dynamic section of a program or library says.
type linked struct {
	needed  []string
	search  []string // of DT_RUNPATH or DT_RPATH
	asks    []string // functions of libc
	own     []string
	loads   bool // calls dlopen
	class   elf.Class
	machine elf.Machine
	part    bool // not all could be read
}

// readLinked reads what a program or library takes from others.
func readLinked(m *image, f *elf.File) linked {
	l := linked{class: f.Class, machine: f.Machine}
	symbols, names := table(m, f, elf.SHT_DYNSYM)
	entries, texts := table(m, f, elf.SHT_DYNAMIC)
	l.part = entries == nil || symbols == nil
	for tag, value := range dynamicEntries(f, entries) {
		text := textAt(texts, value)
		switch {
		case text == "":
		case tag == elf.DT_NEEDED && len(l.needed) < mostNeeded:
			l.needed = append(l.needed, text)
		case tag == elf.DT_RUNPATH, tag == elf.DT_RPATH:
			l.search = strings.Split(text, ":")
		}
	}
	l.asks = imported(f, symbols, names, askLibc)
	l.own = imported(f, symbols, names, askDNS)
	l.loads = imported(f, symbols, names, []string{"dlopen"}) != nil
	for _, lib := range l.needed {
		if begins(lib, ownClients) {
			l.own = append(l.own, lib)
		}
	}
	return l
}

// dynamicEntries yields the tags and values of a dynamic section up to its end.
func dynamicEntries(f *elf.File, entries []byte) iter.Seq2[elf.DynTag, uint64] {
	return func(yield func(elf.DynTag, uint64) bool) {
		for {
			var tag, value uint64
			switch {
			case f.Class == elf.ELFCLASS64 && len(entries) >= 16:
				tag, value, entries = f.ByteOrder.Uint64(entries), f.ByteOrder.Uint64(entries[8:]), entries[16:]
			case f.Class == elf.ELFCLASS32 && len(entries) >= 8:
				tag, value, entries = uint64(f.ByteOrder.Uint32(entries)), uint64(f.ByteOrder.Uint32(entries[4:])), entries[8:]
			default:
				return
			}
			if elf.DynTag(tag) == elf.DT_NULL || !yield(elf.DynTag(tag), value) {
				return
			}
		}
	}
}

// textAt returns the zero-terminated text that begins there, "" when it is
// longer than a path.
func textAt(texts []byte, at uint64) string {
	if at >= uint64(len(texts)) {
		return ""
	}
	rest := texts[at:]
	end := bytes.IndexByte(rest[:min(len(rest), unix.PathMax)], 0)
	return string(rest[:max(end, 0)])
}

// table returns the bytes of a section of that kind, and of its texts; nil when
// there is none or either is larger than any should be.
func table(m *image, f *elf.File, kind elf.SectionType) (entries, texts []byte) {
	for _, s := range f.Sections {
		if s.Type != kind || int64(s.Link) >= int64(len(f.Sections)) || s.Flags&elf.SHF_COMPRESSED != 0 {
			continue
		}
		text := f.Sections[s.Link]
		if s.FileSize > mostSymbols || text.FileSize > mostSymbols || text.Flags&elf.SHF_COMPRESSED != 0 {
			return nil, nil
		}
		return section(m, s), section(m, text)
	}
	return nil, nil
}

// section reads the bytes of a section that is not too large.
func section(m *image, s *elf.Section) []byte {
	if s.Type == elf.SHT_NOBITS || int64(s.Offset) < 0 || int64(s.Offset) >= m.size || int64(s.FileSize) > m.size-int64(s.Offset) {
		return nil
	}
	b := make([]byte, s.FileSize)
	if _, err := m.ReadAt(b, int64(s.Offset)); err != nil {
		return nil
	}
	return b
}

// imported returns which of the functions a table of symbols speaks of, defined
// or not.
func imported(f *elf.File, symbols, names []byte, functions []string) (found []string) {
	size := elf.Sym64Size
	if f.Class == elf.ELFCLASS32 {
		size = elf.Sym32Size
	}
	for ; len(symbols) >= size; symbols = symbols[size:] {
		at := f.ByteOrder.Uint32(symbols)
		if at == 0 || uint64(at) >= uint64(len(names)) {
			continue
		}
		switch names[at] {
		case 'g', 'r', '_', 'd': // all that is asked for begins so
		default:
			continue
		}
		rest := names[at:]
		end := bytes.IndexByte(rest[:min(len(rest), 32)], 0)
		if end < 0 {
			continue
		}
		if name := string(rest[:end]); slices.Contains(functions, name) && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	slices.SortFunc(found, func(a, b string) int { return slices.Index(functions, a) - slices.Index(functions, b) })
	return found
}

// Words that only one C library has: the texts of EAI_NONAME.
var (
	muslWords  = []byte("Name does not resolve\x00")
	glibcWords = []byte("Name or service not known\x00")
	resolvConf = []byte("/etc/resolv.conf\x00")
)

// readStatic fills in what a program without dynamic loader resolves names with,
// other than Go's resolver.
func readStatic(m *image, f *elf.File, b *fact.Binary) {
	symbols, names := table(m, f, elf.SHT_SYMTAB)
	for _, name := range imported(f, symbols, names, askLibc) {
		b.Asks = append(b.Asks, fact.Asking{What: name})
	}
	for _, name := range imported(f, symbols, names, askDNS) {
		b.Own = append(b.Own, fact.Asking{What: name})
	}
	found := search(m, f, muslWords, glibcWords, resolvConf)
	switch {
	case found[0]:
		b.Libc = fact.Musl
	case found[1]:
		b.Libc = fact.Glibc
	}
	head := make([]byte, 4<<10)
	n, _ := m.file.ReadAt(head, 0) // what cannot be read is not packed
	b.Packed = b.Go == "" && bytes.Contains(head[:n], []byte("UPX!"))
	known := symbols != nil || b.Go != "" // by symbols, or by Go's table of functions
	switch {
	case b.Binding.Value:
		b.Asks = []fact.Asking{{What: "getaddrinfo"}} // and what that calls is not the program's own doing
		b.Own = nil
	case b.Asks != nil || known:
	case b.Libc != fact.LibcUnknown:
		b.Asks = []fact.Asking{{What: "getaddrinfo"}}
	case found[2]:
		b.Own = append(b.Own, fact.Asking{What: "resolv.conf"})
	}
}

// search reports which of the texts are in the data of a program: in its
// sections that are loaded and are not code, or, where it has no sections, its
// segments.
func search(m *image, f *elf.File, texts ...[]byte) []bool {
	found := make([]bool, len(texts))
	left, buf := uint64(mostSearched), make([]byte, searchPiece)
	look := func(off, size uint64) {
		size = min(size, left)
		left -= size
		m.search(buf, int64(off), int64(size), texts, found)
	}
	sections := false
	for _, s := range f.Sections {
		if s.Type == elf.SHT_PROGBITS && s.Flags&elf.SHF_ALLOC != 0 && s.Flags&(elf.SHF_EXECINSTR|elf.SHF_COMPRESSED) == 0 && !pclntab(s.Name) {
			sections = true
			look(s.Offset, s.FileSize)
		}
	}
	for _, p := range f.Progs {
		if !sections && p.Type == elf.PT_LOAD && p.Flags&elf.PF_X == 0 {
			look(p.Off, p.Filesz)
		}
	}
	return found
}

// search marks the texts that are within size bytes of the file. It reads past
// what else may be read, and is bounded by its caller.
func (m *image) search(buf []byte, off, size int64, texts [][]byte, found []bool) {
	overlap := 0
	for _, t := range texts {
		overlap = max(overlap, len(t))
	}
	if off < 0 || off > m.size {
		return
	}
	end := off + min(size, m.size-off)
	for off < end && slices.Contains(found, false) {
		n, err := m.file.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		for i, t := range texts {
			found[i] = found[i] || bytes.Contains(buf[:n], t)
		}
		if err != nil || n <= overlap || off+int64(n) >= end {
			return
		}
		off += int64(n - overlap)
	}
}

// pclntab reports a section of Go's table of functions.
func pclntab(name string) bool { return name == ".gopclntab" || name == ".data.rel.ro.gopclntab" }

// The functions that tell which resolvers a Go program has, net/dnsclient_unix.go
// and what cgo makes of net/cgo_unix_cgo.go. The first is in every program that
// can look a host up or dial by name, since Go 1.5; neither is ever inlined.
var (
	goResolver = []byte("goLookupIPCNAMEOrder")
	cgoBinding = []byte("net._C2func_getaddrinfo\x00")
)

// readResolvers looks in the table of functions, which every Go program has,
// also one without symbols, for those of the two resolvers.
func readResolvers(m *image, f *elf.File, b *fact.Binary) {
	texts, found := [][]byte{goResolver, cgoBinding}, make([]bool, 2)
	for _, s := range f.Sections {
		if !pclntab(s.Name) || s.Flags&elf.SHF_COMPRESSED != 0 {
			continue
		}
		off, size := functionNames(m, f, s)
		m.search(make([]byte, searchPiece), int64(off), int64(min(size, mostSearched)), texts, found)
		b.Resolver, b.Binding = fact.Seen(found[0]), fact.Seen(found[1])
		return
	}
	// Without sections, or by another linker: it may be anywhere in the data.
	found = search(m, f, texts...)
	b.Resolver = fact.Known[bool]{Value: found[0], OK: found[0]}
	b.Binding = fact.Known[bool]{Value: found[1], OK: found[0]}
}

// functionNames returns which part of the table are the names: all of it before
// Go 1.16, whose header said less, runtime/symtab.go.
func functionNames(m *image, f *elf.File, s *elf.Section) (off, size uint64) {
	const magic116, magic118, magic120 = 0xfffffffa, 0xfffffff0, 0xfffffff1
	head := make([]byte, 72)
	if n, err := m.file.ReadAt(head, int64(s.Offset)); err != nil && err != io.EOF || n < len(head) || head[7] != 8 {
		return s.Offset, s.FileSize
	}
	first := 24 // after magic, sizes, nfunc and nfiles
	switch f.ByteOrder.Uint32(head) {
	case magic116:
	case magic118, magic120:
		first = 32 // and textStart
	default:
		return s.Offset, s.FileSize
	}
	from, to := f.ByteOrder.Uint64(head[first:]), f.ByteOrder.Uint64(head[first+8:])
	if from > to || to > s.FileSize {
		return s.Offset, s.FileSize
	}
	return s.Offset + from, to - from
}

// namesOf says what in an image resolves names.
func (s *scan) namesOf(m *image, file string) (fact.Binary, error) {
	var b fact.Binary
	err := m.check()
	if err != nil {
		return b, err
	}
	f, err := elf.NewFile(m)
	if err != nil {
		return b, m.notProgram(err.Error())
	}
	var info *debug.BuildInfo
	switch b.Program, info, err = identify(m, f); {
	case errors.Is(err, errNoInfo):
		b.Go = "of unknown version"
	case err != nil:
		return b, err
	}
	b.NetDNS = netDNS(info)
	b.Loader = loader(m, f)
	if b.Go != "" {
		readResolvers(m, f, &b)
	}
	switch {
	case !b.Static && b.Loader != "":
		if b.Libc = fact.Glibc; strings.Contains(b.Loader, "musl") {
			b.Libc = fact.Musl
		}
		s.closure(&b, readLinked(m, f), path.Dir(file))
	case b.Go == "" || b.Binding.Value || !b.Resolver.OK:
		readStatic(m, f, &b)
	}
	return b, m.failed
}

// netDNS returns what a line //go:debug netdns= of the main package says, or one
// of go.mod.
func netDNS(info *debug.BuildInfo) string {
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key != "DefaultGODEBUG" {
			continue
		}
		for setting := range strings.SplitSeq(text(s.Value), ",") {
			if value, ok := strings.CutPrefix(setting, "netdns="); ok {
				return value
			}
		}
	}
	return ""
}

func loader(m *image, f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz == 0 || p.Filesz > unix.PathMax {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := m.ReadAt(b, int64(p.Off)); err == nil {
			b, _, _ = bytes.Cut(b, []byte{0})
			return text(string(b))
		}
	}
	return ""
}
