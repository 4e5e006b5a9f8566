package sftp_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/ssh"
	"github.com/lifeline-go/lifeline/ssh/sftp"
)

// ways are both directions, which on one machine are the same paths.
var ways = map[string]func(c *sftp.Client, ctx context.Context, from, to string, how sftp.Copy) (sftp.Result, error){
	"put": (*sftp.Client).Put,
	"get": (*sftp.Client).Get,
}

func bothWays(t *testing.T, test func(t *testing.T, copy func(ctx context.Context, c *sftp.Client, from, to string, how sftp.Copy) (sftp.Result, error))) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, func(ctx context.Context, c *sftp.Client, from, to string, how sftp.Copy) (sftp.Result, error) {
				return way(c, ctx, from, to, how)
			})
		})
	}
}

type copyFunc = func(ctx context.Context, c *sftp.Client, from, to string, how sftp.Copy) (sftp.Result, error)

func equal(t *testing.T, a, b string) {
	t.Helper()
	one, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Errorf("%s has %d bytes, %s has %d, and they differ", a, len(one), b, len(two))
	}
}

// alone checks that nothing else is in the directory of a file.
func alone(t *testing.T, dir string, want ...string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("there are %q, not %q", names, want)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		c, _ := files(t, sftp.Options{})
		for _, size := range []int64{0, 1, 32 << 10, 128<<10 - 1, 128 << 10, 128<<10 + 1, 9<<20 + 7} {
			from, into := t.TempDir(), t.TempDir()
			source, target := filepath.Join(from, "source"), filepath.Join(into, "target")
			random(t, source, size)
			var last sftp.Progress
			result, err := copy(t.Context(), c, source, target, sftp.Copy{Sync: true, Progress: func(p sftp.Progress) {
				if p.Done < last.Done {
					t.Errorf("%d after %d", p.Done, last.Done)
				}
				last = p
			}})
			if err != nil || result.Files != 1 || result.Bytes != size || last.Done != size || last.Size != size || last.Name != source {
				t.Errorf("%+v, %+v, %v", result, last, err)
			}
			equal(t, source, target)
			alone(t, into, "target")
		}
	})
}

func TestReplaceAndPreserve(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		c, _ := files(t, sftp.Options{})
		dir := t.TempDir()
		source, into := filepath.Join(dir, "source"), filepath.Join(dir, "into")
		write(t, source, []byte("new"))
		when := time.Unix(1_000_000_000, 0)
		if err := errors.Join(os.Chmod(source, 0o451), os.Chtimes(source, when, when), os.Mkdir(into, 0o755)); err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(into, "source")
		write(t, target, []byte("older, and longer"))
		if _, err := copy(t.Context(), c, source, into, sftp.Copy{}); err != nil { // into the directory
			t.Fatal(err)
		}
		equal(t, source, target)
		if info, err := os.Stat(target); err != nil || info.Mode() != 0o451&^0o022 || info.ModTime().Equal(when) {
			t.Errorf("%v, %v", info, err)
		}
		if _, err := copy(t.Context(), c, source, target, sftp.Copy{Preserve: true}); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(target); err != nil || info.Mode() != 0o451 || !info.ModTime().Equal(when) {
			t.Errorf("%v, %v", info, err)
		}
		alone(t, into, "source")

		for _, wrong := range [][2]string{{filepath.Join(dir, "none"), target}, {into, filepath.Join(dir, "tree")}, {"/dev/null", target}, {source, filepath.Join(dir, "none", "x")}} {
			_, err := copy(t.Context(), c, wrong[0], wrong[1], sftp.Copy{})
			var e *ssh.Error
			if !errors.As(err, &e) || e.Phase != sftp.Copying {
				t.Errorf("%q: %v", wrong, err)
			}
			t.Log(err)
		}
		if _, err := copy(t.Context(), c, filepath.Join(dir, "none"), target, sftp.Copy{}); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestTree(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		c, _ := files(t, sftp.Options{})
		source, target := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "target")
		long := strings.Repeat("n", 255)
		when := time.Unix(1_200_000_000, 0)
		err := errors.Join(os.MkdirAll(filepath.Join(source, "a/b/c"), 0o755), os.Mkdir(filepath.Join(source, "empty"), 0o755),
			os.Symlink("../b/x y", filepath.Join(source, "a/b/inside")), os.Symlink("nowhere", filepath.Join(source, "dangling")),
			os.Symlink("/etc/passwd", filepath.Join(source, "absolute")), os.Symlink("../..", filepath.Join(source, "a/out")),
			syscall.Mkfifo(filepath.Join(source, "fifo"), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		names := []string{"a/b/x y", "a/b/c/" + long, "new\nline", "-rf", "ünï", ".hidden"}
		for _, name := range names {
			random(t, filepath.Join(source, name), 1000)
		}
		if err := errors.Join(os.Chmod(filepath.Join(source, "a/b"), 0o500), os.Chtimes(filepath.Join(source, "a/b"), when, when)); err != nil {
			t.Fatal(err)
		}
		outside := t.Name() == "TestTree/put"
		for range 2 { // the second time over the first
			result, err := copy(t.Context(), c, source, target, sftp.Copy{Tree: true, Preserve: true})
			links, skipped := 2, 3
			if outside { // which for a server is its own affair
				links, skipped = 4, 1
			}
			if err != nil || result.Files != len(names) || result.Links != links || result.Directories != 5 || len(result.Skipped) != skipped {
				t.Errorf("%+v, %v", result, err)
			}
		}
		for _, name := range names {
			equal(t, filepath.Join(source, name), filepath.Join(target, name))
		}
		if to, err := os.Readlink(filepath.Join(target, "a/b/inside")); err != nil || to != "../b/x y" {
			t.Error(to, err)
		}
		if _, err := os.Lstat(filepath.Join(target, "absolute")); (err == nil) != outside {
			t.Error(err)
		}
		if info, err := os.Stat(filepath.Join(target, "a/b")); err != nil || info.Mode().Perm() != 0o500 || !info.ModTime().Equal(when) {
			t.Errorf("%v, %v", info, err)
		}
		if _, err := copy(t.Context(), c, source, target, sftp.Copy{Tree: true, OutsideLinks: true}); err != nil {
			t.Error(err)
		}
		if to, err := os.Readlink(filepath.Join(target, "absolute")); err != nil || to != "/etc/passwd" {
			t.Error(to, err)
		}
	})
}

// interrupted copies until the half is there.
func interrupted(t *testing.T, c *sftp.Client, copy copyFunc, source, target string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := errors.New("the user has had enough")
	ctx, because := context.WithCancelCause(ctx)
	_, err := copy(ctx, c, source, target, sftp.Copy{Resume: true, Progress: func(p sftp.Progress) {
		if p.Done > 0 {
			because(stop)
		}
		time.Sleep(5 * time.Millisecond)
	}})
	if !errors.Is(err, stop) {
		t.Fatalf("it was not interrupted: %v", err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Fatal("the target is there before it is complete")
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		c, client := files(t, sftp.Options{})
		from, into := t.TempDir(), t.TempDir()
		source, target := filepath.Join(from, "source"), filepath.Join(into, "target")
		part := filepath.Join(into, ".target.lifeline-part")
		random(t, source, 40<<20)
		before := time.Now().Add(-time.Hour)
		if err := os.Chtimes(source, before, before); err != nil {
			t.Fatal(err)
		}
		again := func(what string, resumes bool) {
			t.Helper()
			result, err := copy(t.Context(), c, source, target, sftp.Copy{Resume: true})
			if err != nil || (result.Resumed > 0) != resumes || result.Resumed+result.Bytes != 40<<20 {
				t.Errorf("%s: %+v, %v", what, result, err)
			}
			t.Logf("%s: %d MiB were there", what, result.Resumed>>20)
			equal(t, source, target)
			alone(t, into, "target")
		}
		interrupted(t, c, copy, source, target)
		again("continued", true)
		if result, err := copy(t.Context(), c, source, target, sftp.Copy{Resume: true}); err != nil || result.Bytes != 0 {
			t.Errorf("of a complete copy %+v, %v", result, err)
		}

		os.Remove(target)
		interrupted(t, c, copy, source, target)
		f, err := os.OpenFile(part, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err == nil && info.Size() > 5 {
			_, err = f.WriteAt([]byte("other"), info.Size()-5)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		again("of another beginning", false)

		os.Remove(target)
		interrupted(t, c, copy, source, target)
		if later := time.Now().Add(time.Hour); os.Chtimes(source, later, later) != nil {
			t.Fatal()
		}
		again("of a source that was changed since", false)

		os.Remove(target)
		if err := os.Symlink(source, part); err != nil {
			t.Fatal(err)
		}
		again("of a link in its place", false)
		if err := client.Command("true").Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Without Resume an interrupted copy leaves nothing.
func TestInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, copy copyFunc) {
		c, _ := files(t, sftp.Options{})
		from, into := t.TempDir(), t.TempDir()
		random(t, filepath.Join(from, "source"), 40<<20)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := copy(ctx, c, filepath.Join(from, "source"), filepath.Join(into, "target"), sftp.Copy{Progress: func(sftp.Progress) { cancel() }})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		alone(t, into)
		if _, err := copy(t.Context(), c, filepath.Join(from, "source"), filepath.Join(into, "target"), sftp.Copy{}); err != nil {
			t.Errorf("the next copy: %v", err)
		}
	})
}

func TestClosed(t *testing.T) {
	t.Parallel()
	c, client := files(t, sftp.Options{})
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(t.Context(), "/etc/passwd", t.TempDir(), sftp.Copy{}); !errors.Is(err, ssh.ErrClosed) {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sftp.New(over, client, sftp.Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c = open(t, client, sftp.Options{})
	if _, err := c.Put(over, "/etc/passwd", filepath.Join(t.TempDir(), "x"), sftp.Copy{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = client.Close()
	if _, err := c.Get(t.Context(), "/etc/passwd", t.TempDir(), sftp.Copy{}); !errors.Is(err, ssh.ErrClosed) {
		t.Error(err)
	}
	if _, err := sftp.New(t.Context(), client, sftp.Options{}); !errors.Is(err, ssh.ErrClosed) {
		t.Error(err)
	}
}
