package gobin

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/need"
)

// scanned returns the one program that is found at path.
func scanned(t *testing.T, path string) fact.Binary {
	t.Helper()
	found, blind := Scan(t.Context(), []string{path})
	if len(found.Binaries) != 1 || len(blind) != 0 {
		t.Fatalf("%s: %+v, %v", path, found, blind)
	}
	return found.Binaries[0]
}

// Which resolvers are in a Go program is told from its table of functions,
// however it was linked and stripped.
func TestResolversOfGoPrograms(t *testing.T) {
	for _, c := range []struct {
		name              string
		cgo               string
		flags             []string
		strip             bool
		resolver, binding bool
		libc              fact.Libc
	}{
		{"static", "0", nil, false, true, false, fact.LibcUnknown},
		{"without symbols", "0", []string{"-ldflags=-s -w"}, false, true, false, fact.LibcUnknown},
		{"pie", "0", []string{"-buildmode=pie"}, false, true, false, fact.Glibc},
		{"cgo", "1", nil, false, true, true, fact.Glibc},
		{"cgo stripped", "1", nil, true, true, true, fact.Glibc},
		{"cgo pie", "1", []string{"-buildmode=pie"}, false, true, true, fact.Glibc},
		{"cgo netgo", "1", []string{"-tags=netgo"}, false, true, false, fact.LibcUnknown},
		{"static cgo", "1", []string{"-ldflags=-linkmode=external -extldflags=-static -s -w"}, false, true, true, fact.Glibc},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.cgo == "1" {
				need.Program(t, "gcc")
			}
			path := build(t, []string{"CGO_ENABLED=" + c.cgo}, c.flags...)
			if c.strip {
				run(t, "", nil, need.Program(t, "strip"), "--strip-all", path)
			}
			b := scanned(t, path)
			if b.Resolver != fact.Seen(c.resolver) || b.Binding != fact.Seen(c.binding) || b.Libc != c.libc || b.Go == "" || b.Called != "waiter" {
				t.Errorf("%+v", b)
			}
			if direct := slices.Contains(b.Asks, fact.Asking{What: "getaddrinfo"}); direct != c.binding {
				t.Errorf("getaddrinfo is there: %t: %v", direct, b.Asks)
			}
		})
	}
}

// A Go program that resolves nothing has neither.
func TestGoProgramWithoutNames(t *testing.T) {
	if b := scanned(t, filepath.Join(run(t, "", nil, need.Program(t, "go"), "env", "GOROOT"), "bin", "gofmt")); b.Resolver != fact.Seen(false) || b.Binding != fact.Seen(false) {
		t.Errorf("%+v", b)
	}
}

// compile makes a program of C.
func compile(t *testing.T, compiler, text string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.c"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, dir, nil, need.Program(t, compiler), append([]string{"-o", "program", "main.c"}, flags...)...)
	return filepath.Join(dir, "program")
}

const (
	asking = "#include <netdb.h>\nint main(int n, char **a) { struct addrinfo *r; int e = getaddrinfo(a[1], 0, 0, &r); return *gai_strerror(e); }\n"
	silent = "int main(void) { return 0; }\n"
)

func TestResolversOfCPrograms(t *testing.T) {
	asks := []fact.Asking{{What: "getaddrinfo"}}
	for _, c := range []struct {
		name, compiler, text string
		flags                []string
		libc                 fact.Libc
		static               bool
		asks                 []fact.Asking
	}{
		{"glibc", "gcc", asking, nil, fact.Glibc, false, asks},
		{"glibc stripped", "gcc", asking, []string{"-s"}, fact.Glibc, false, asks},
		{"glibc static", "gcc", asking, []string{"-static", "-Wl,--no-warnings"}, fact.Glibc, true, asks},
		{"glibc static stripped", "gcc", asking, []string{"-static", "-s", "-Wl,--no-warnings"}, fact.Glibc, true, asks},
		{"asks nobody", "gcc", silent, nil, fact.Glibc, false, nil},
		{"static, asks nobody", "gcc", silent, []string{"-static"}, fact.LibcUnknown, true, nil},
		{"musl", "musl-gcc", asking, nil, fact.Musl, false, asks},
		{"musl static", "musl-gcc", asking, []string{"-static", "-s"}, fact.Musl, true, asks},
		{"musl static, asks nobody", "musl-gcc", silent, []string{"-static", "-s"}, fact.LibcUnknown, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := scanned(t, compile(t, c.compiler, c.text, c.flags...))
			if b.Go != "" || b.Libc != c.libc || b.Static != c.static || !slices.Equal(b.Asks[:min(len(b.Asks), 1)], c.asks) || b.Part || b.Loads {
				t.Errorf("%+v", b)
			}
		})
	}
}

// A program that resolves names by a library that needs another that does, and
// that is where only the program's own RUNPATH says.
func TestResolverOfALibrary(t *testing.T) {
	gcc := need.Program(t, "gcc")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"deep.c": "#include <netdb.h>\nint deep(char *n) { struct addrinfo *r; return getaddrinfo(n, 0, 0, &r); }\n",
		"near.c": "int deep(char *);\nint near(char *n) { return deep(n); }\n",
		"main.c": "int near(char *);\nint main(int n, char **a) { return near(a[1]); }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, nil, gcc, "-shared", "-fPIC", "-o", "libdeep.so.1", "-Wl,-soname,libdeep.so.1", "deep.c")
	run(t, dir, nil, gcc, "-shared", "-fPIC", "-o", "libnear.so", "near.c", "-L.", "-l:libdeep.so.1", "-Wl,-rpath,$ORIGIN")
	run(t, dir, nil, gcc, "-o", "program", "main.c", "-L.", "-lnear", "-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined")
	path := filepath.Join(dir, "program")
	if b := scanned(t, path); !slices.Equal(b.Asks, []fact.Asking{{What: "getaddrinfo", In: "libdeep.so.1"}}) || b.Part {
		t.Errorf("%+v", b)
	}
	if err := os.Remove(filepath.Join(dir, "libdeep.so.1")); err != nil {
		t.Fatal(err)
	}
	if b := scanned(t, path); b.Asks != nil || !b.Part {
		t.Errorf("without the library: %+v", b)
	}
}

// Each file is looked at once, by its own name where it has several; scripts are
// counted, and what is not executable is passed over.
func TestScan(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"script": "#!/bin/sh\n", "data": "text", "a-link": "", "broken": ""} {
		path := filepath.Join(dir, name)
		switch name {
		case "a-link":
			err = os.Symlink(self, path)
		case "broken":
			err = os.Symlink("nowhere", path)
		default:
			err = os.WriteFile(path, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	found, blind := Scan(t.Context(), []string{dir, dir, filepath.Dir(self), filepath.Join(dir, "missing")})
	if len(blind) != 0 || found.Scripts != 1 || found.Cut || found.Files != len(found.Binaries)+1 {
		t.Errorf("%+v, %v", found, blind)
	}
	at := slices.IndexFunc(found.Binaries, func(b fact.Binary) bool { return b.Path == self })
	if at < 0 || found.Binaries[at].Called != "a-link" {
		t.Errorf("%+v", found.Binaries)
	}
	found, _ = Scan(t.Context(), []string{filepath.Join(dir, "data")})
	if len(found.Binaries) != 1 || found.Binaries[0].Unreadable == "" {
		t.Errorf("what was asked for by name is left out: %+v", found)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found, _ = Scan(ctx, []string{dir}); !found.Cut || found.Files != 0 {
		t.Errorf("after its context ended: %+v", found)
	}
}

// Sections that claim what the file does not have, and files of 10 GiB.
func TestHostileNames(t *testing.T) {
	const size = 10 << 30
	for _, head := range [][]byte{
		nil, tiny{filesz: size, memsz: size}.bytes(), tiny{named: true, filesz: size, memsz: size, interp: true}.bytes(),
		tiny{named: true, filesz: size, memsz: size, infoSize: 9 << 30}.bytes(),
	} {
		path := filepath.Join(t.TempDir(), "huge")
		if err := errors.Join(os.WriteFile(path, head, 0o755), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		begin, before := time.Now(), allocated()
		found, _ := Scan(t.Context(), []string{path})
		if took, spent := time.Since(begin), allocated()-before; took > 10*time.Second || spent > 128<<20 {
			t.Errorf("took %v and %d MiB: %+v", took, spent>>20, found)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, e := range []tiny{{}, {named: true}, {narrow: true}, {named: true, narrow: true, big: true}, {interp: true}, {named: true, interp: true}} {
		f.Add(e.bytes())
	}
	if gcc, err := exec.LookPath("gcc"); err == nil {
		dir := f.TempDir()
		source, program := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
		if err := os.WriteFile(source, []byte(asking), 0o644); err != nil {
			f.Fatal(err)
		}
		if out, err := exec.Command(gcc, "-s", "-o", program, source).CombinedOutput(); err != nil {
			f.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(program)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s scan
		before, begin := allocated(), time.Now()
		b, err := s.namesOf(&image{file: bytes.NewReader(data), size: int64(len(data)), left: mostRead + 3*mostSymbols}, "/nowhere/program")
		if took, spent := time.Since(begin), allocated()-before; took > 10*time.Second || spent > 128<<20 {
			t.Errorf("took %v and %d MiB", took, spent>>20)
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without text")
		}
		for _, a := range append(b.Asks, b.Own...) {
			if a.What != fact.Printable(a.What) || a.In != fact.Printable(a.In) {
				t.Errorf("not printable: %q", a)
			}
		}
	})
}

func BenchmarkScanPath(b *testing.B) {
	places := filepath.SplitList(os.Getenv("PATH"))
	for b.Loop() {
		if found, _ := Scan(b.Context(), places); found.Files == 0 {
			b.Fatal("nothing found")
		}
	}
}
