package sftp

import (
	"testing"
	"unicode/utf8"
)

// FuzzAnswer takes any bytes for an answer: what comes out is no more than went
// in, and an end that comes early is seen.
func FuzzAnswer(f *testing.F) {
	f.Add(byte(kindStatus), []byte{0, 0, 0, 4, 0, 0, 0, 1, 'x'})
	f.Add(byte(kindAttrs), newPacket(nil, 0, 0).attrs(attrs{flags: attrPerm | attrTimes | attrSize, mode: 0o100644})[9:].bytes())
	f.Add(byte(kindName), packet(nil).uint32(1).string("name").string("long").attrs(attrs{}).bytes())
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		a := answer{kind: kind, body: body}
		for _, want := range []byte{kindStatus, kindHandle, kindName, kindAttrs} {
			r, err := a.expect(want)
			if err != nil {
				if text := err.Error(); len(text) > 1200 || !utf8.ValidString(text) {
					t.Errorf("an error of %d bytes", len(text))
				}
				continue
			}
			size := 0
			for _, e := range r.entries() {
				size += len(e.name)
			}
			r.attrs()
			if size > len(body) || len(r.rest) > len(body) || r.short && len(r.rest) > 0 {
				t.Errorf("%d bytes of names in %d", size, len(body))
			}
		}
	})
}

func (p packet) bytes() []byte { return p }

func TestLeadsOut(t *testing.T) {
	for _, test := range []struct {
		target string
		depth  int
		out    bool
	}{
		{"x", 0, false}, {"./x/y", 0, false}, {"../x", 1, false}, {"../../x", 2, false}, {".", 0, false},
		{"", 0, true}, {"/x", 9, true}, {"..", 0, true}, {"../../x", 1, true}, {"x/..", 5, true}, {"x/../../y", 5, true}, {"./../x", 0, true},
	} {
		if leadsOut(test.target, test.depth) != test.out {
			t.Errorf("%q at depth %d", test.target, test.depth)
		}
	}
}

func TestPartName(t *testing.T) {
	long := make([]byte, 255)
	for i := range long {
		long[i] = 'x'
	}
	for _, name := range []string{"a", "/d/a", "/d/" + string(long)} {
		part := partName(name)
		if len(part) > len("/d/")+255 || partName(name) != part || part == name {
			t.Errorf("%q", part)
		}
	}
	if partName("/d/"+string(long)) == partName("/d/"+string(long[1:])) {
		t.Error("the same for two names")
	}
}
