package gobin

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// source is a program that waits until its standard input ends. It resolves a
// name, so that with cgo it needs a dynamic loader.
const source = `package main

import (
	"net"
	"os"
)

func main() {
	if len(os.Args) > 1 {
		net.LookupHost(os.Args[1])
	}
	os.Stdin.Read(make([]byte, 1))
}
`

// build builds source with the go command and returns the executable.
func build(t testing.TB, env []string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":  "module example.org/waiter\n\ngo 1.21\n",
		"main.go": source,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, append(env, "GOFLAGS=", "GOWORK=off"), need.Program(t, "go"), append([]string{"build", "-o", "waiter"}, flags...)...)
	return filepath.Join(dir, "waiter")
}

func run(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

func TestGoPrograms(t *testing.T) {
	base := fact.Program{Go: runtime.Version(), Module: "example.org/waiter", Version: "(devel)"}
	with := func(cgo, static bool, tags ...string) fact.Program {
		p := base
		p.CGO, p.Static, p.Tags = fact.Seen(cgo), static, tags
		return p
	}
	for _, c := range []struct {
		name  string
		cgo   string
		flags []string
		strip string
		want  fact.Program
	}{
		{"static", "0", nil, "", with(false, true)},
		{"tags", "0", []string{"-tags=netgo,osusergo"}, "", with(false, true, "netgo", "osusergo")},
		{"no symbols", "0", []string{"-ldflags=-s -w"}, "", with(false, true)},
		{"pie", "0", []string{"-buildmode=pie"}, "", with(false, false)},
		{"cgo", "1", nil, "", with(true, false)},
		{"cgo stripped", "1", nil, "--strip-all", with(true, false)},
		{"cgo netgo", "1", []string{"-tags", "netgo osusergo"}, "", with(true, true, "netgo", "osusergo")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cgo == "1" {
				need.Program(t, "gcc")
			}
			path := build(t, []string{"CGO_ENABLED=" + c.cgo}, c.flags...)
			if c.strip != "" {
				run(t, "", nil, need.Program(t, "strip"), c.strip, path)
			}
			got, err := Read(path)
			if c.want.Path = path; err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%v\ngot  %+v\nwant %+v", err, got, c.want)
			}
		})
	}
}

// Bazel and its like run compiler and linker themselves, so there are no
// settings and there is no module.
func TestBuiltWithoutGoCommand(t *testing.T) {
	dir, gocmd := t.TempDir(), need.Program(t, "go")
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"CGO_ENABLED=0", "GOFLAGS="}
	packages := run(t, dir, env, gocmd, "list", "-export", "-deps", "-f", "{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}", "runtime")
	if err := os.WriteFile(filepath.Join(dir, "importcfg"), []byte(packages), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, dir, env, gocmd, "tool", "compile", "-p", "main", "-importcfg", "importcfg", "-o", "main.o", "main.go")
	run(t, dir, env, gocmd, "tool", "link", "-importcfg", "importcfg", "-o", "main", "main.o")
	p, err := Read(filepath.Join(dir, "main"))
	if err != nil || p.Go != runtime.Version() || p.CGO.OK || p.Module != "" || p.Tags != nil || !p.Static {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestNotGo(t *testing.T) {
	path := need.Program(t, "true")
	p, err := Read(path)
	if err != nil || p.Go != "" || p.CGO.OK || p.Static || p.Path != path {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestNotPrograms(t *testing.T) {
	program, err := os.ReadFile(need.Program(t, "true"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		file("script", []byte("#!/bin/sh\nexit 0\n")),
		file("empty", nil),
		file("one byte", []byte{0x7f}),
		file("ident", program[:16]),
		file("half a header", program[:40]),
		file("header", program[:64]),
		file("truncated", program[:len(program)/2]),
		file("windows", append([]byte("MZ"), make([]byte, 1000)...)),
		fifo, dir, os.DevNull, "/dev/zero", filepath.Join(dir),
	} {
		p, err := Read(path)
		if !errors.Is(err, ErrNotProgram) || !strings.Contains(err.Error(), path) || !reflect.DeepEqual(p, fact.Program{}) {
			t.Errorf("%s: %+v, %v", path, p, err)
		}
		t.Log(err)
	}
	if _, err := Read(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Read(file("script", nil) + "/below"); err == nil || errors.Is(err, ErrNotProgram) {
		t.Errorf("a path through a file: %v", err)
	}
	if _, err := Read("a\x00b"); err == nil {
		t.Error("a NUL in the path: no error")
	}
	if _, err := Read("\x1b[2J"); err == nil || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("a control character reached the error: %q", err)
	}
}

// start starts the program at path and returns it once it runs.
func start(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil { // returns after execve
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return cmd
}

func TestProcesses(t *testing.T) {
	path := build(t, []string{"CGO_ENABLED=0"})
	cmd := start(t, path)
	want := fact.Program{
		Path: path, Go: runtime.Version(), Module: "example.org/waiter", Version: "(devel)",
		CGO: fact.Seen(false), Static: true,
	}
	pid := int32(cmd.Process.Pid)
	if got, err := OfProcess(pid); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want.Path += " (deleted)"
	if got, err := OfProcess(pid); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("deleted: %v\ngot  %+v\nwant %+v", err, got, want)
	}

	cmd.Process.Kill()
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := OfProcess(pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a zombie: %v", err)
	}
	cmd.Wait()
	if _, err := OfProcess(pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is gone: %v", err)
	}
	if p, err := OfProcess(int32(os.Getpid())); err != nil || p.Go != runtime.Version() || !strings.HasSuffix(p.Module, "/agent") {
		t.Errorf("the test itself: %+v, %v", p, err)
	}
}

func TestCache(t *testing.T) {
	var c Cache
	path := build(t, []string{"CGO_ENABLED=0"}, "-tags=one")
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, name := range []string{path, link, path, link} {
		all.Go(func() {
			p, err := c.Read(name)
			if err != nil || p.Path != name || len(p.Tags) != 1 {
				t.Errorf("%+v, %v", p, err)
				return
			}
			p.Tags[0] = "changed by its owner"
		})
	}
	all.Wait()
	if len(c.seen) != 1 {
		t.Errorf("one file has %d entries", len(c.seen))
	}
	if p, err := c.Read(path); err != nil || p.Tags[0] != "one" {
		t.Errorf("%+v, %v", p, err)
	}

	// The same file with another content of the same size and time.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("#!/bin/sh")); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(path); !errors.Is(err, ErrNotProgram) {
		t.Errorf("after it was written to: %v", err)
	}
	if _, err := c.Read(path); !errors.Is(err, ErrNotProgram) || len(c.seen) != 2 {
		t.Errorf("what is no program is not remembered: %v, %d entries", err, len(c.seen))
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c Cache
	for i := range 2 * mostRemembered {
		c.remember(identity{inode: uint64(i)}, outcome{})
	}
	if len(c.seen) != mostRemembered {
		t.Errorf("%d entries", len(c.seen))
	}
	if _, ok := c.recall(identity{inode: 2*mostRemembered - 1}); !ok {
		t.Error("the newest is not remembered")
	}
}

// A sparse file of 10 GiB, whatever its headers say, takes no time and memory.
func TestHuge(t *testing.T) {
	const size = 10 << 30
	for _, c := range []struct {
		name  string
		head  []byte
		found bool // the build information is where a linker puts it
	}{
		{"zeros", nil, false},
		{"segment of 10 GiB", tiny{filesz: size, memsz: size}.bytes(), true},
		{"searched in 10 GiB", tiny{filesz: size, memsz: size, skip: 8 << 20}.bytes(), false},
		{"section of 9 GiB", tiny{named: true, filesz: size, memsz: size, infoSize: 9 << 30}.bytes(), true},
		{"string of 1 GiB", tiny{named: true, filesz: size, memsz: size, info: inline("go1.26", 1<<30)}.bytes(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "huge")
			if err := errors.Join(os.WriteFile(path, c.head, 0o755), os.Truncate(path, size)); err != nil {
				t.Fatal(err)
			}
			begin, before := time.Now(), allocated()
			p, err := Read(path)
			took, spent := time.Since(begin), allocated()-before
			if (err == nil) != c.found || (p.Go != "") != c.found {
				t.Errorf("%+v, %v", p, err)
			}
			if took > 5*time.Second || spent > 64<<20 {
				t.Errorf("took %v and %d MiB", took, spent>>20)
			}
			t.Logf("%v, %d KiB: %v", took, spent>>10, err)
		})
	}
}

func BenchmarkCache(b *testing.B) {
	var c Cache
	for b.Loop() {
		if _, err := c.OfProcess(int32(os.Getpid())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOfProcess(b *testing.B) {
	for b.Loop() {
		if _, err := OfProcess(int32(os.Getpid())); err != nil {
			b.Fatal(err)
		}
	}
}
