package gosym

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A file is searched once for all tables of it, and again when it changes or could
// not be read.
func TestRemember(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	table := func() *Table {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return &Table{im: &image{}, file: file, id: identityOf(file)}
	}
	searched, none := 0, errors.New("none")
	ask := func(of *Table, question string) {
		t.Helper()
		got, err := remember(of, question, func() (int, error) { searched++; return 7, none })
		if got != 7 || err != none {
			t.Errorf("%d, %v", got, err)
		}
	}
	ask(table(), "a")
	ask(table(), "a")
	if searched != 1 {
		t.Errorf("%d searches for the same", searched)
	}
	ask(table(), "b")
	bad := table()
	bad.im.failed = true
	ask(bad, "c")
	ask(table(), "c")
	if searched != 4 {
		t.Errorf("%d searches for three, one of which failed", searched)
	}
	if err := os.WriteFile(path, []byte("22"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(table(), "a")
	ask(&Table{im: &image{}}, "a")
	ask(&Table{im: &image{}}, "a")
	if searched != 7 {
		t.Errorf("%d searches: another file, and two that are none, are searched", searched)
	}
}
