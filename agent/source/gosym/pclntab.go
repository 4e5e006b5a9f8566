package gosym

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// What a table of functions may have. The largest Go programs have some 300,000.
const (
	mostFuncs   = 1 << 21
	mostInlined = 100     // calls inlined into each other
	mostText    = 1 << 10 // bytes of a name
	mostSteps   = 1 << 20 // of decoding, for one lookup
)

// The beginnings of a pclntab, internal/abi/symtab.go.
const (
	magic118 = 0xfffffff0 // Go 1.18 and 1.19
	magic120 = 0xfffffff1 // Go 1.20 and later
)

// The indexes of tables of a function, internal/abi/symtab.go.
const (
	pcdataInlTreeIndex = 2
	funcdataInlTree    = 3
)

// pclntab is where the parts of the table of functions are, by address. The
// layouts are those of moduledata and _func, runtime/symtab.go and runtime2.go.
type pclntab struct {
	old                            bool // of Go 1.18 or 1.19
	quantum                        uint64
	funcs                          int
	names, units, files, pcs, ftab uint64
	text, etext                    uint64
	gofunc                         uint64 // 0 = not found: inlined calls cannot be told
	wrapper                        uint8  // what kind of function wrappers are; 0 = not known yet
}

const headerSize = 72

func newTable(file io.ReaderAt, size int64) (*Table, error) {
	im, err := newImage(file, size)
	if err != nil {
		return nil, err
	}
	t := &Table{im: im}
	address, found := t.im.findPclntab()
	if !found {
		return nil, fmt.Errorf("%w: no table of functions", ErrNotGo)
	}
	if t.pcln, err = im.readPclntab(address); err != nil {
		return nil, err
	}
	return t, nil
}

// header reports whether b begins with the header of a pclntab.
func header(b []byte) bool {
	if len(b) < headerSize {
		return false
	}
	magic := order.Uint32(b)
	if magic != magic118 && magic != magic120 || b[4] != 0 || b[5] != 0 || b[6] != 1 && b[6] != 4 || b[7] != 8 {
		return false
	}
	n := order.Uint64(b[8:])
	return n > 0 && n < mostFuncs && order.Uint64(b[32:]) < 1<<20
}

// findPclntab looks where linkers put it, then everywhere: an external linker
// leaves it within another section.
func (im *image) findPclntab() (address uint64, found bool) {
	for _, name := range wanted[:2] {
		if s, ok := im.sections[name]; ok && header(im.bytes(s.Addr, headerSize)) {
			return s.Addr, true
		}
	}
	im.scan(headerSize, func(at uint64, piece []byte) bool {
		for i := int(-at & 7); i+headerSize <= len(piece); i += 8 {
			if b := piece[i:]; b[1] == 0xff && b[2] == 0xff && b[3] == 0xff && header(b) {
				address, found = at+uint64(i), true
				return false
			}
		}
		return true
	})
	return address, found
}

func (im *image) readPclntab(address uint64) (p pclntab, err error) {
	b := im.bytes(address, headerSize)
	word := func(i int) uint64 { return order.Uint64(b[8+8*i:]) }
	p.old = order.Uint32(b) == magic118
	p.quantum = uint64(b[6])
	p.funcs = int(word(0))
	p.names, p.units, p.files, p.pcs, p.ftab = address+word(3), address+word(4), address+word(5), address+word(6), address+word(7)
	module := im.findModule(address, p.names)
	if module == nil {
		return p, fmt.Errorf("%w: its module data is not where it should be", ErrNotGo)
	}
	p.text, p.etext = module[22], module[23]
	at := 40
	if p.old {
		at = 38 // before Go 1.20 without the two words of covctrs
	}
	if last := im.bytes(p.ftab+8*uint64(p.funcs), 4); p.text >= p.etext || last == nil {
		return p, fmt.Errorf("%w: its module data makes no sense", ErrNotGo)
	}
	if im.bytes(module[at], 1) != nil {
		p.gofunc = module[at]
	}
	return p, nil
}

// moduleWords is how much of moduledata is read: pcHeader, six slices,
// findfunctab, minpc and maxpc, text and etext at 22, and what follows up to
// gofunc.
const moduleWords = 41

// findModule returns the words of runtime.firstmoduledata: Go 1.26 has a section
// for it, before that it is the place that points at the pclntab and then at its
// names.
func (im *image) findModule(table, names uint64) []uint64 {
	fits := func(address uint64) []uint64 {
		m := im.words(address, moduleWords)
		if m == nil || m[0] != table || m[1] != names {
			return nil
		}
		return m
	}
	if s, ok := im.sections[".go.module"]; ok {
		if m := fits(s.Addr); m != nil {
			return m
		}
	}
	var candidates []uint64
	im.scanWords(func(address, value uint64) bool {
		if value == table {
			candidates = append(candidates, address)
		}
		return len(candidates) < mostAlike
	})
	for _, address := range candidates {
		if m := fits(address); m != nil {
			return m
		}
	}
	return nil
}

// function is the fixed part of a _func.
type function struct {
	entry, end       uint64
	at               uint64 // where its tables begin
	name             uint32
	file, line, unit uint32 // tables by counter, and the compilation unit
	pcdata           uint32 // how many
	funcdata         uint8
	kind             uint8 // 0 = an ordinary function
}

// row returns where a function begins, relative to the text, and where its
// _func is, relative to the ftab.
func (p *pclntab) row(im *image, i int) (pc, at uint32, ok bool) {
	b := im.bytes(p.ftab+8*uint64(i), 8)
	if b == nil {
		return 0, 0, false
	}
	return order.Uint32(b), order.Uint32(b[4:]), true
}

func (p *pclntab) function(im *image, i int) (f function, ok bool) {
	pc, at, ok := p.row(im, i)
	next := im.bytes(p.ftab+8*uint64(i)+8, 4) // the last row is the end of all, without a _func
	if !ok || next == nil {
		return f, false
	}
	size := 44
	if p.old {
		size = 40 // without the line where it starts
	}
	b := im.bytes(p.ftab+uint64(at), size)
	if b == nil {
		return f, false
	}
	return function{
		entry: p.text + uint64(pc), end: p.text + uint64(order.Uint32(next)), at: p.ftab + uint64(at) + uint64(size),
		name: order.Uint32(b[4:]), file: order.Uint32(b[20:]), line: order.Uint32(b[24:]), unit: order.Uint32(b[32:]),
		pcdata: order.Uint32(b[28:]), funcdata: b[size-1], kind: b[size-4],
	}, true
}

// number returns the i-th of the numbers that follow a _func.
func (f *function) number(im *image, i uint64) (uint32, bool) {
	b := im.bytes(f.at+4*i, 4)
	if b == nil {
		return 0, false
	}
	return order.Uint32(b), true
}

// lookup needs an address in the file, and that the kind of wrappers is known.
func (p *pclntab) lookup(im *image, pc uint64) []Frame {
	if pc < p.text || pc >= p.etext || pc-p.text > math.MaxUint32 {
		return nil
	}
	i := sort.Search(p.funcs, func(i int) bool {
		at, _, ok := p.row(im, i)
		return !ok || p.text+uint64(at) > pc
	}) - 1
	if i < 0 {
		return nil
	}
	f, ok := p.function(im, i)
	if !ok || pc < f.entry || pc >= f.end {
		return nil
	}
	steps := mostSteps
	frames, at := p.inlined(im, &f, pc, &steps)
	return append(frames, p.frame(im, &f, call{name: f.name, kind: f.kind, pc: at}, &steps))
}

// inlined returns the calls at pc that were inlined into f, and where in f the
// outermost of them is.
func (p *pclntab) inlined(im *image, f *function, pc uint64, steps *int) (frames []Frame, at uint64) {
	if p.gofunc == 0 || f.funcdata <= funcdataInlTree || f.pcdata <= pcdataInlTreeIndex || f.pcdata > 64 {
		return nil, pc
	}
	tree, ok := f.number(im, uint64(f.pcdata)+funcdataInlTree)
	indexes, ok2 := f.number(im, pcdataInlTreeIndex)
	if !ok || !ok2 || tree == math.MaxUint32 {
		return nil, pc
	}
	size, nameAt, kindAt := uint64(16), 4, 0
	if p.old {
		size, nameAt, kindAt = 20, 12, 2
	}
	for len(frames) < mostInlined {
		i := p.value(im, indexes, f.entry, pc, steps)
		if i < 0 {
			break
		}
		b := im.bytes(p.gofunc+uint64(tree)+uint64(i)*size, int(size))
		if b == nil {
			break
		}
		frames = append(frames, p.frame(im, f, call{order.Uint32(b[nameAt:]), b[kindAt], pc, true}, steps))
		pc = f.entry + uint64(order.Uint32(b[nameAt+4:]))
	}
	return frames, pc
}

// call is one call at a counter, inlined or not.
type call struct {
	name    uint32
	kind    uint8
	pc      uint64
	inlined bool
}

func (p *pclntab) frame(im *image, f *function, c call, steps *int) Frame {
	return Frame{
		Func:    fact.Printable(plain(im.text(p.names+uint64(c.name), mostText))),
		File:    p.path(im, f.unit, p.value(im, f.file, f.entry, c.pc, steps)),
		Line:    int(max(p.value(im, f.line, f.entry, c.pc, steps), 0)),
		Inlined: c.inlined,
		Wrapper: c.kind != 0 && c.kind == p.wrapper,
	}
}

// lastKind returns the largest kind of all functions. The kinds are renumbered
// with each version, but wrappers are always the last of them (FuncIDWrapper of
// internal/abi/symtab.go), and every program has some.
func (p *pclntab) lastKind(im *image) (last uint8) {
	for i := range p.funcs {
		f, ok := p.function(im, i)
		if !ok {
			break
		}
		last = max(last, f.kind)
	}
	return last
}

// plain writes the type arguments of a function as Go's own stack traces do:
// what stands for them in the table says little (runtime.funcNameForPrint).
func plain(name string) string {
	first, last := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']')
	if first < 0 || last <= first {
		return name
	}
	return name[:first] + "[...]" + name[last+1:]
}

// path returns the name of a file by its number in a compilation unit.
func (p *pclntab) path(im *image, unit uint32, number int32) string {
	if number < 0 {
		return ""
	}
	b := im.bytes(p.units+4*(uint64(unit)+uint64(number)), 4)
	if b == nil || order.Uint32(b) == math.MaxUint32 {
		return ""
	}
	return fact.Printable(im.text(p.files+uint64(order.Uint32(b)), mostText))
}

// value reads a table of values by program counter: pairs of differences, each
// a varint, runtime.pcvalue and step. It returns -1 where there is none.
func (p *pclntab) value(im *image, table uint32, entry, pc uint64, steps *int) int32 {
	if table == 0 {
		return -1
	}
	at, here, value := p.pcs+uint64(table), entry, int32(-1)
	var b []byte
	for first := true; *steps > 0; first = false {
		*steps--
		if len(b) < 2*binary.MaxVarintLen32 {
			if b = im.run(at, 512); b == nil {
				return -1
			}
		}
		difference, n := binary.Uvarint(b)
		if n <= 0 || difference == 0 && !first {
			return -1
		}
		length, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return -1
		}
		b, at = b[n+m:], at+uint64(n+m)
		value += int32(-(difference & 1) ^ (difference >> 1))
		if here += length * p.quantum; pc < here {
			return value
		}
	}
	return -1
}

// run returns n bytes at an address, or as many as its segment still has.
func (im *image) run(address uint64, n int) []byte {
	for ; n > 0; n /= 2 {
		if b := im.bytes(address, n); b != nil {
			return b
		}
	}
	return nil
}

// find returns where a function begins and ends. It looks for the name among the
// names first, which takes one pass over them.
func (p *pclntab) find(im *image, name string) (entry, end uint64, ok bool) {
	places := p.places(im, name)
	if len(places) == 0 {
		return 0, 0, false
	}
	for i := range p.funcs {
		_, at, ok := p.row(im, i)
		if !ok {
			return 0, 0, false
		}
		b := im.bytes(p.ftab+uint64(at)+4, 4)
		if b == nil {
			return 0, 0, false
		}
		if slices.Contains(places, order.Uint32(b)) {
			f, ok := p.function(im, i)
			return f.entry, f.end, ok
		}
	}
	return 0, 0, false
}

// places returns where a name is among the names: zero-terminated, between
// names and units.
func (p *pclntab) places(im *image, name string) (offsets []uint32) {
	if name == "" || len(name) > mostText || p.units <= p.names {
		return nil
	}
	want := append(append([]byte{0}, name...), 0)
	for at := p.names; at < p.units; {
		n := int(min(p.units-at, scanSize))
		piece := im.run(at, n)
		if len(piece) < len(want) {
			break
		}
		if at == p.names && bytes.HasPrefix(piece, want[1:]) {
			offsets = append(offsets, 0)
		}
		for i := 0; len(offsets) < 16; {
			found := bytes.Index(piece[i:], want)
			if found < 0 {
				break
			}
			i += found + 1
			offsets = append(offsets, uint32(at-p.names)+uint32(i))
		}
		if at += uint64(len(piece) - len(want)); len(piece) <= len(want) {
			break
		}
	}
	return offsets
}
