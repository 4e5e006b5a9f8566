package gosym

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Field is one field of a struct.
type Field struct {
	Offset uint64 // from the beginning of the struct, in bytes
	kind   uint64 // address of the descriptor of its type, in the file
}

// Layout is a struct's fields by name.
type Layout map[string]Field

// ErrNoLayout is the error of a struct that no descriptor was found for: the
// program was built without it.
var ErrNoLayout = errors.New("the program has no description of the struct")

const (
	mostFields = 512
	fieldWords = 3 // of abi.StructField: name, type, offset
	mostName   = 127
	mostAlike  = 8 // places that look like what is looked for; real programs have one or two

	// typeSize is the size of abi.Type, internal/abi/type.go. In a struct's
	// descriptor the path of its package follows, then a slice of fields.
	typeSize = 48
)

// G returns the layout of runtime.g, the runtime's record of a goroutine.
func (t *Table) G() (Layout, error) {
	l, err := t.Struct("stack", "stackguard0", "stackguard1", "_panic")
	if err != nil {
		return nil, fmt.Errorf("runtime.g: %w", err)
	}
	return l, nil
}

// Struct returns the layout of the struct whose first fields have these names;
// they must tell it from all others that the program has a descriptor of. It
// takes two passes over the program's data; what came of it is remembered for the
// next Table of the same file. Nobody may change the Layout.
func (t *Table) Struct(first ...string) (Layout, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, err := remember(t, "struct "+strings.Join(first, " "), func() (Layout, error) { return t.search(first) })
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (t *Table) search(first []string) (Layout, error) {
	if len(first) == 0 {
		return nil, ErrNoLayout
	}
	rare := 0 // the longest name has the fewest look-alikes
	for i := range first {
		if len(first[i]) > len(first[rare]) {
			rare = i
		}
	}
	for _, name := range t.im.findNames(first[rare]) {
		for _, at := range t.im.findWords(name) {
			if l := t.im.layout(at-uint64(rare)*fieldWords*8, mostFields, first); l != nil {
				return l, nil
			}
		}
	}
	return nil, ErrNoLayout
}

// StructOf returns the layout of a field that is a struct itself.
func (t *Table) StructOf(f Field) (Layout, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	head := t.im.words(f.kind+typeSize, 4) // path of the package, fields, how many, capacity
	if head == nil || head[2] == 0 || head[2] > mostFields {
		return nil, ErrNoLayout
	}
	l := t.im.layout(head[1], int(head[2]), nil)
	if l == nil {
		return nil, ErrNoLayout
	}
	return l, nil
}

// findNames returns the addresses of a name as descriptors have it: a byte of
// flags, 0 for what is not exported, its length, and the name (abi.Name).
func (im *image) findNames(name string) (list []uint64) {
	if name == "" || len(name) > mostName {
		return nil
	}
	want := append([]byte{0, byte(len(name))}, name...)
	im.scan(len(want), func(address uint64, piece []byte) bool {
		for i := 0; ; i++ {
			found := bytes.Index(piece[i:], want)
			if found < 0 {
				return true
			}
			i += found
			if at := address + uint64(i); !slices.Contains(list, at) {
				list = append(list, at)
			}
			if len(list) >= mostAlike {
				return false
			}
		}
	})
	return list
}

// findWords returns the addresses of the words that have a value.
func (im *image) findWords(want uint64) (list []uint64) {
	im.scanWords(func(address, value uint64) bool {
		if value == want {
			list = append(list, address)
		}
		return len(list) < mostAlike
	})
	return list
}

// layout reads an array of abi.StructField. It ends with the first that cannot
// be one, or at most fields; nil where it does not begin with the given names.
func (im *image) layout(address uint64, most int, first []string) Layout {
	words := im.words(address, fieldWords*most)
	for words == nil && most > len(first) { // near the end of its segment
		most /= 2
		words = im.words(address, fieldWords*most)
	}
	if words == nil {
		return nil
	}
	l := make(Layout)
	last := uint64(0)
	for i := 0; i+fieldWords <= len(words); i += fieldWords {
		name, offset := im.name(words[i]), words[i+2]
		if n := i / fieldWords; n < len(first) && name != first[n] {
			return nil
		}
		if _, twice := l[name]; name == "" || twice && name != "_" || offset < last || offset > 1<<20 {
			break
		}
		last = offset
		l[name] = Field{offset, words[i+1]}
	}
	if len(l) < len(first) {
		return nil
	}
	return l
}

// name reads an abi.Name, "" where there can be none.
func (im *image) name(address uint64) string {
	head := im.bytes(address, 2)
	if head == nil || head[1] == 0 || head[1] > mostName {
		return ""
	}
	b := im.bytes(address+2, int(head[1]))
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return ""
		}
	}
	return string(b)
}
