package tune

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/agent/fact"
)

func sample(n int) *kept {
	k := &kept{Schema: schema, Boot: "b", Sockets: []entry{}}
	for i := range n {
		k.Sockets = append(k.Sockets, entry{Netns: 4026531840, Cookie: uint64(i + 1), At: 1700000000, Was: values{0, 7200, 75, 9, 0}, Last: values{1, 15, 15, 9, 0}, Now: values{1, 2, 1, 3, 30000}})
	}
	k.reindex()
	return k
}

// What is written is JSON, and reads as it was.
func TestKeptText(t *testing.T) {
	for n := range 3 {
		k := sample(n)
		got, err := parseKept(k.text())
		if err != nil || !reflect.DeepEqual(got, k) {
			t.Errorf("%v: %+v became %+v", err, k, got)
		}
		if !json.Valid(k.text()) {
			t.Errorf("no JSON: %s", k.text())
		}
	}
}

// A file that was cut or changed is an error that says what to do, and is left
// where it is.
func TestKeptIsDamaged(t *testing.T) {
	whole := string(sample(2).text())
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	for _, text := range []string{
		"", "{", whole[:len(whole)/2], strings.Replace(whole, schema, "lifeline/tune/9", 1), strings.Replace(whole, "7200", "99999", 1),
		strings.ReplaceAll(whole, `"cookie": 2`, `"cookie": 1`), strings.ReplaceAll(whole, `"cookie": 2`, `"cookie": 0`),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Undo(t.Context(), &fact.Machine{}, UndoOptions{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move the file away") {
			t.Errorf("%q: got %v", text, err)
		}
		if !keeps(t, dir) {
			t.Fatalf("%q: it is gone", text)
		}
	}
	if err := os.WriteFile(path, []byte(whole), 0o600); err != nil { // of another boot
		t.Fatal(err)
	}
	if u, err := Undo(t.Context(), &fact.Machine{}, UndoOptions{Dir: dir}); err != nil || u.Gone != 0 || keeps(t, dir) {
		t.Errorf("%v: %+v", err, u)
	}
}

func FuzzKept(f *testing.F) {
	f.Add(sample(2).text())
	f.Add([]byte(`{"schema": "lifeline/tune/1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseKept(text)
		if err != nil {
			return
		}
		for i := range k.Sockets {
			if e := &k.Sockets[i]; k.find(e.Cookie) != e {
				t.Fatalf("%d is not found", e.Cookie)
			}
		}
		if again, err := parseKept(k.text()); err != nil || len(again.Sockets) != len(k.Sockets) {
			t.Fatalf("%v: %s", err, k.text())
		}
	})
}
