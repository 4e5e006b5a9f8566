package history_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/history"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/internal/need"
)

const childEnv = "LIFELINE_HISTORY_CHILD"

// child writes records until it is killed, and says of each that it is written.
// It goes on from the last one that is there.
func child(path string) {
	s, err := history.Open(path, history.Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	ctx := context.Background()
	span, err := s.Span(ctx)
	i := 0
	if err == nil && span.Records > 0 {
		i = int(span.Last.Sub(noon)/(10*time.Second)) + 1
	}
	for ; ; i++ {
		groups := []state.Group{group("number", i)}
		for j := range 50 {
			groups = append(groups, group(fmt.Sprint("peer", (i+j)%200), i*j%97))
		}
		if err := s.Add(ctx, history.Record{Time: noon.Add(time.Duration(i) * 10 * time.Second), Groups: groups}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

// rounds is how often it is killed; make soak has more.
var rounds = flag.Int("rounds", 6, "how often TestKilledAtAnyMoment kills who writes")

// A process that is killed at any moment loses nothing that Add has returned for.
func TestKilledAtAnyMoment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	last := -1
	for range *rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, more := bufio.NewScanner(out), 1+rand.IntN(40)
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				t.Fatal(lines.Text())
			}
			if more--; more == 0 {
				time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		s := open(t, path, history.Options{})
		if s.Aside() != "" {
			t.Fatal("the file was damaged")
		}
		for _, i := range []int{0, last / 2, last} {
			past, err := s.At(t.Context(), noon.Add(time.Duration(i)*10*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			found := -1
			for _, g := range past.Groups {
				if g.Peer == "number" {
					found = g.Count
				}
			}
			if found != i || len(past.Groups) != 51 {
				t.Fatalf("record %d of %d reads as %d with %d groups", i, last, found, len(past.Groups))
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records, %d times killed", last+1, *rounds)
}

// A full disk takes nothing away, is told of, and forgotten when there is room.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "history.db")
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // what it wrote is looked at before
	record := func(i int) history.Record {
		var groups []state.Group
		for j := range 200 {
			groups = append(groups, group(fmt.Sprintf("10.%d.%d.%d", i/256, i%256, j), i))
		}
		return history.Record{Time: noon.Add(time.Duration(i) * 10 * time.Second), Groups: groups}
	}
	for i := range 10 {
		add(t, s, record(i))
	}
	ballast := filepath.Join(dir, "ballast")
	full, n := error(nil), 10
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for ; full == nil && n < 1000; n++ {
		full = s.Add(t.Context(), record(n))
	}
	n-- // was not written
	if full == nil || !strings.Contains(full.Error(), "1 records from ") || !strings.Contains(full.Error(), "of 200 groups") || !strings.Contains(full.Error(), "full") {
		t.Fatalf("a full disk: %v", full)
	}
	for i := range 5 {
		if err := s.Add(t.Context(), record(n+i)); err == nil {
			t.Fatal("the disk is still full")
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	add(t, s, record(n+100))
	for _, i := range []int{0, n / 2, n - 1, n + 100} {
		past, err := s.At(t.Context(), noon.Add(time.Duration(i)*10*time.Second))
		if err != nil || len(past.Groups) != 200 || past.Groups[0].Count != i {
			t.Errorf("record %d of %d: %d groups, %v", i, n, len(past.Groups), err)
		}
	}
	past, err := s.At(t.Context(), noon.Add(time.Duration(n+50)*10*time.Second))
	if err != nil || !past.Gap || !strings.Contains(past.Note, "6 records from") {
		t.Errorf("while the disk was full: gap %v, %q, %v", past.Gap, past.Note, err)
	}
}

func TestDamagedFile(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"pages":  func(b []byte) []byte { copy(b[8192:], strings.Repeat("rot", 20_000)); return b },
		"header": func(b []byte) []byte { copy(b, "nothing of the kind"); return b },
		"half":   func(b []byte) []byte { return b[:len(b)/2+100] },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			if err := story(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, path, history.Options{})
			if s.Aside() != path+".damaged" {
				t.Fatalf("moved to %q", s.Aside())
			}
			if _, err := os.Stat(s.Aside()); err != nil {
				t.Error(err)
			}
			add(t, s, history.Record{Time: noon, Groups: []state.Group{group("10.0.0.1", 7)}})
			if past, err := s.At(t.Context(), noon); err != nil || counts(past.Groups) != "10.0.0.1=7" {
				t.Errorf("%v, %v", past.Groups, err)
			}
		})
	}
}

// A file that goes bad or goes away under the agent, and cannot be made anew at
// once, is made anew when that can be done; what could be read then can be read.
func TestFileGoesUnderTheAgent(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) { remove(t, path) },
		"removed with all beside it": func(t *testing.T, path string) {
			for _, end := range []string{"", "-wal", "-shm"} {
				remove(t, path+end)
			}
		},
		"replaced": func(t *testing.T, path string) {
			if err := os.WriteFile(path+".new", []byte(strings.Repeat("rot", 9000)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "lifeline")
			path := filepath.Join(folder, "history.db")
			s := open(t, path, history.Options{})
			at := func(i int) time.Time { return noon.Add(time.Duration(i) * 10 * time.Second) }
			add(t, s, history.Record{Time: at(0), Groups: []state.Group{group("10.0.0.1", 1)}})
			harm(t, path)
			add(t, s, history.Record{Time: at(1), Groups: []state.Group{group("10.0.0.1", 2)}})
			// Then even the folder goes, and a file is in its place for a while.
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(folder, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for i := 2; i < 5; i++ {
				if err := s.Add(t.Context(), history.Record{Time: at(i)}); err == nil {
					t.Fatal("no error where no file can be")
				}
			}
			remove(t, folder)
			add(t, s, history.Record{Time: at(5), Groups: []state.Group{group("10.0.0.1", 6)}})
			r, err := history.Read(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close() //nolint:errcheck // it was read only
			for _, from := range []*history.Reader{r, s.Reader} {
				if past, err := from.At(t.Context(), at(5)); err != nil || counts(past.Groups) != "10.0.0.1=6" {
					t.Errorf("%v, %v", past.Groups, err)
				}
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// What a wrong path names is not touched.
func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(path, []byte("root:x:0:0:root:/root:/bin/bash\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := history.Open(path, history.Options{}); err == nil || !strings.Contains(err.Error(), "it is something else") {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), "root:") {
		t.Errorf("the file is now %q, %v", data, err)
	}
	if _, err := os.Stat(path + ".lock"); err == nil {
		t.Error("a file is left beside it")
	}
	for _, of := range []string{path, filepath.Dir(path), os.DevNull} {
		if _, err := history.Read(t.Context(), of); err == nil || !strings.Contains(err.Error(), "it is something else") {
			t.Errorf("read: %v", err)
		}
	}
}
