package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func place(t *testing.T) string { return filepath.Join(t.TempDir(), "lifeline", "audit.jsonl") }

func open(t *testing.T, path string) *Log {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func begun(id string) state.Act {
	return state.Act{ID: id, Time: time.Unix(1_800_000_000, 0).UTC(), Act: "cut", By: "policy", Why: "S001 peer=10.77.1.2", Target: "10.77.1.2", Left: 4224, Outcome: "under way"}
}

func done(id string) state.Act {
	a, end := begun(id), time.Unix(1_800_000_009, 0).UTC()
	a.Ended, a.Done, a.Left, a.Outcome = &end, 4224, 0, "4,224 cut"
	return a
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []state.Act {
	t.Helper()
	acts, err := Read(path)
	must(t, err)
	return acts
}

func TestActs(t *testing.T) {
	path := place(t)
	if acts := read(t, path); acts == nil || len(acts) != 0 {
		t.Errorf("no log has %v", acts)
	}
	l := open(t, path)
	must(t, l.Begin(begun("one")), l.Begin(begun("two")), l.End(done("one")))
	acts := read(t, path)
	if len(acts) != 2 || acts[0].ID != "two" || acts[0].Ended != nil || acts[0].Outcome != Interrupted || acts[1].Done != 4224 || acts[1].Ended == nil {
		t.Errorf("%+v", acts)
	}
	text, err := os.ReadFile(path)
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var first map[string]any
	if len(lines) != 3 || json.Unmarshal([]byte(lines[0]), &first) != nil || first["phase"] != "begins" || first["act"] != "cut" || first["outcome"] != "under way" {
		t.Errorf("%s", text)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// Who is killed in the middle of a line leaves the lines before it, and those
// after it, as they are.
func TestTorn(t *testing.T) {
	path := place(t)
	l := open(t, path)
	must(t, l.Begin(begun("one")), l.Close())
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteString(`{"phase":"ended","id":"one","ti`)
	must(t, err, file.Close())
	l = open(t, path)
	must(t, l.Begin(begun("two")), l.End(done("two")))
	if acts := read(t, path); len(acts) != 2 || acts[0].ID != "two" || acts[0].Done != 4224 || acts[1].Outcome != Interrupted {
		t.Errorf("%+v", acts)
	}
}

func TestBounded(t *testing.T) {
	path := place(t)
	l := open(t, path)
	l.most = 8 << 10
	const acts = 100
	for i := range acts {
		must(t, l.Begin(begun(fmt.Sprint(i))), l.End(done(fmt.Sprint(i))))
	}
	sum := int64(0)
	files, err := filepath.Glob(path + "*")
	must(t, err)
	for _, name := range files {
		info, err := os.Stat(name)
		must(t, err)
		sum += info.Size()
	}
	if sum > 2*l.most || len(files) != 2 {
		t.Errorf("%d bytes in %v", sum, files)
	}
	got := read(t, path)
	for i := range got[:10] {
		if got[i].ID != fmt.Sprint(acts-1-i) || got[i].Done != 4224 {
			t.Fatalf("%d: %+v", i, got[i])
		}
	}
	if last := got[len(got)-1]; last.Ended == nil { // its beginning may be gone, but not its end
		t.Errorf("%+v", last)
	}
}

func TestNobodyElse(t *testing.T) {
	path := place(t)
	l := open(t, path)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second: %v", err)
	}
	must(t, l.Begin(begun("one")), l.Close(), os.Chmod(path, 0o644))
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("readable by others: %v", err)
	}
	must(t, os.Chmod(path, 0o600), os.Chmod(filepath.Dir(path), 0o777))
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "chmod 755") {
		t.Errorf("in a directory of everybody: %v", err)
	}
	must(t, os.Chmod(filepath.Dir(path), 0o700), os.Rename(path, path+"x"), os.Symlink(path+"x", path))
	if _, err := Open(path); err == nil {
		t.Error("a symbolic link is followed")
	}
	must(t, os.Remove(path), unix.Mkfifo(path, 0o600))
	if _, err := Open(path); err == nil {
		t.Error("a pipe is written to")
	}
}

// What is closed is not written any more: another agent may write it by now. And a
// new file that could not be begun is begun later, whoever made it meanwhile.
func TestClosed(t *testing.T) {
	path := place(t)
	l := open(t, path)
	must(t, l.Begin(begun("one")), l.Close())
	other := open(t, path)
	if err := l.Begin(begun("two")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
	must(t, other.End(done("one")))
	if acts := read(t, path); len(acts) != 1 || acts[0].Done != 4224 {
		t.Errorf("%+v", acts)
	}
	must(t, other.file.Close())
	other.file = nil // as when there was no room for another file
	must(t, other.Begin(begun("three")))
	if acts := read(t, path); len(acts) != 2 || acts[0].ID != "three" {
		t.Errorf("%+v", acts)
	}
}

// The folder may be a link to another disk.
func TestLinkedFolder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "large"), 0o700), os.Symlink("large", filepath.Join(dir, "lifeline")))
	l := open(t, filepath.Join(dir, "lifeline", "audit.jsonl"))
	must(t, l.Begin(begun("one")))
	if acts := read(t, filepath.Join(dir, "large", "audit.jsonl")); len(acts) != 1 {
		t.Errorf("%+v", acts)
	}
}

// On a disk that is full nothing may be done, what was written stays, and what is
// owed comes first when there is room again.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	must(t, unix.Mount("none", dir, "tmpfs", 0, "size=64k,mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	path := filepath.Join(dir, "audit.jsonl")
	l := open(t, path)
	must(t, l.Begin(begun("one")))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, 1<<20), 0o600); err == nil {
		t.Fatal("there is no full disk")
	}
	failed := 0
	for i := range 100 { // its last block has room for some
		if err := l.Begin(begun(fmt.Sprint("more", i))); errors.Is(err, unix.ENOSPC) {
			failed++
		}
	}
	if failed == 0 {
		t.Fatal("a full disk is no error")
	}
	if err := l.End(done("one")); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	must(t, os.Remove(ballast), l.Begin(begun("two")))
	text, err := os.ReadFile(path)
	must(t, err)
	for one := range bytes.Lines(text) {
		if !json.Valid(one) {
			t.Errorf("a line is torn: %s", one)
		}
	}
	acts := read(t, path)
	if first := acts[len(acts)-1]; first.ID != "one" || first.Done != 4224 || acts[0].ID != "two" {
		t.Errorf("%+v", acts)
	}
	if l.End(done("two")) != nil || l.Begin(begun("three")) != nil {
		t.Error("it does not go on")
	}
}
