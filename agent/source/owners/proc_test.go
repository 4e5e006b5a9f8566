package owners

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// dirent lays an entry out as getdents64 does.
func dirent(name string) []byte {
	b := make([]byte, (19+len(name)+1+7)&^7)
	binary.NativeEndian.PutUint16(b[16:], uint16(len(b)))
	copy(b[19:], name)
	return b
}

func TestEntries(t *testing.T) {
	whole := slices.Concat(dirent("."), dirent("0"), dirent("4294967295"), dirent(""))
	short := dirent("7")
	binary.NativeEndian.PutUint16(short[16:], 8)
	long := dirent("7")
	binary.NativeEndian.PutUint16(long[16:], 4096)
	endless := dirent("1234")
	for i := 19; i < len(endless); i++ {
		endless[i] = '1'
	}
	for _, c := range []struct {
		name string
		buf  []byte
		want []string
	}{
		{"whole", whole, []string{".", "0", "4294967295", ""}},
		{"cut", whole[:len(whole)-1], []string{".", "0", "4294967295"}},
		{"empty", nil, nil},
		{"too short", short, nil},
		{"too long", long, nil},
		{"without end", endless, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			entries(c.buf, func(name []byte) bool {
				got = append(got, string(bytes.TrimSuffix(name, []byte{0})))
				return true
			})
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	calls := 0
	entries(whole, func([]byte) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("%d calls after false", calls)
	}
}

func TestSocketInode(t *testing.T) {
	for link, want := range map[string]uint32{
		"socket:[1]":           1,
		"socket:[4294967295]":  4294967295,
		"socket:[4294967296]":  0,
		"socket:[]":            0,
		"socket:[12":           0,
		"socket:[-1]":          0,
		"socket:[1]]":          0,
		"pipe:[1]":             0,
		"/tmp/socket:[1]":      0,
		"socket:[12 (deleted)": 0,
		"":                     0,
	} {
		if got, ok := socketInode([]byte(link)); got != want || ok != (want != 0) {
			t.Errorf("%q: %d %v, want %d", link, got, ok, want)
		}
	}
}

func TestWithoutFiles(t *testing.T) {
	for stat, want := range map[string]bool{
		"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0":            true,
		"1 (systemd) S 0 1 1 0 -1 4194560 10 20":           false,
		"7 (sh) Z 1 7 7 0 -1 4227084 0 0":                  true,
		"7 (a) Z 2 (b) S 1 7 7 0 -1 4194560 0 0":           false,
		"7 (2097152 2097152 2097152 2097152) S 1 7 7 0 -1": false,
		"7 (x":                      false,
		"":                          false,
		"7 (x) S 1 7 7 0 -1 y 0 0 ": false,
	} {
		if got := withoutFiles([]byte(stat)); got != want {
			t.Errorf("%q: %v, want %v", stat, got, want)
		}
	}
}

func FuzzEntries(f *testing.F) {
	f.Add(slices.Concat(dirent("."), dirent("17"), dirent("socket")))
	f.Add(dirent("4294967296")[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, buf []byte) {
		entries(buf, func(name []byte) bool {
			if i := bytes.IndexByte(name, 0); i != len(name)-1 {
				t.Fatalf("name %q does not end in its only NUL", name)
			}
			number(name[:len(name)-1])
			return true
		})
	})
}

func FuzzTexts(f *testing.F) {
	f.Add([]byte("socket:[4711]"))
	f.Add([]byte("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		socketInode(text)
		withoutFiles(text)
	})
}
