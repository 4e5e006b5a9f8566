package gosym

import (
	"bytes"
	"context"
	"debug/dwarf"
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// toolchains are the oldest Go that the go command can fetch and one of each
// layout of runtime.g between it and the local one, which "" is.
var toolchains = []string{"", "go1.21.13", "go1.23.12"}

// builds are ways to build that lay a program out differently.
var builds = []struct {
	name  string
	cgo   string
	flags []string
	local bool // with the local Go only: each way compiles the standard library anew
}{
	{name: "dwarf"},
	{name: "stripped", flags: []string{"-ldflags=-s -w"}},
	{name: "trimpath", flags: []string{"-ldflags=-s -w", "-trimpath"}, local: true},
	{name: "pie", flags: []string{"-buildmode=pie", "-ldflags=-s -w"}},
	{name: "external pie", cgo: "1", flags: []string{"-buildmode=pie", "-ldflags=-s -w -linkmode=external"}, local: true},
}

// fetched reports whether the go command has a toolchain or can get it.
func fetched(t *testing.T, toolchain string) bool {
	if toolchain == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, need.Program(t, "go"), "version")
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+toolchain, "GOFLAGS=-buildvcs=false")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("not tested with %s, which cannot be had here: %v: %s", toolchain, err, out)
	}
	return err == nil
}

func build(t *testing.T, toolchain, arch, cgo string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "answers")
	cmd := exec.Command(need.Program(t, "go"), append([]string{"build", "-o", path}, flags...)...)
	cmd.Dir = filepath.Join("testdata", "answers")
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "GOARCH="+arch, "CGO_ENABLED="+cgo)
	if toolchain != "" {
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+toolchain)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// child runs a program that ends when its standard input does.
func child(t *testing.T, path string) (pid int32, ask func(question string) string) {
	t.Helper()
	cmd := exec.Command(path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, out.Bytes())
			}
		}
	}
	t.Cleanup(end)
	return int32(cmd.Process.Pid), func(question string) string {
		if _, err := in.Write([]byte(question)); err != nil {
			t.Error(err)
		}
		end()
		return out.String()
	}
}

// TestAgainstRuntime asks running programs what they take thousands of their
// own program counters for.
func TestAgainstRuntime(t *testing.T) {
	for _, toolchain := range toolchains {
		t.Run("go "+toolchain, func(t *testing.T) {
			if !fetched(t, toolchain) {
				return
			}
			var layout Layout
			for _, b := range builds {
				t.Run(b.name, func(t *testing.T) {
					if b.local && toolchain != "" {
						return
					}
					if b.cgo == "1" {
						need.Program(t, "gcc")
					}
					path := build(t, toolchain, runtime.GOARCH, b.cgo+"0"[:1-len(b.cgo)], b.flags...)
					compareCounters(t, path, b.name == "dwarf")
					layout = compareLayout(t, path, layout)
				})
			}
		})
	}
}

func compareCounters(t *testing.T, path string, symbols bool) {
	pid, ask := child(t, path)
	begin := time.Now()
	table, err := OfProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	opened := time.Since(begin)
	entry, ok := table.Func("main.main")
	if found := table.Lookup(entry); !ok || len(found) == 0 || found[len(found)-1].Func != "main.main" {
		t.Fatalf("main.main is at %#x: %v", entry, found)
	}
	if _, ok := table.Func("main.mai"); ok {
		t.Error("found a function that is none")
	}

	const step = 313
	var question strings.Builder
	var counters []uint64
	for pc := table.pcln.text + step; pc < table.pcln.etext; pc += step {
		// The runtime is asked about a return address. Where that is the first of
		// a function it is not one, and the runtime takes it as it is.
		if (pc+1)%16 == 0 {
			continue
		}
		counters = append(counters, pc+table.bias)
		fmt.Fprintf(&question, "%x\n", pc+table.bias)
	}
	answers := strings.Split(ask(question.String()), "\n")
	outer := func(uint64) string { return "" }
	if symbols {
		outer = standardLibrary(t, path)
	}
	begin = time.Now()
	inlined, wrong := 0, 0
	for i, pc := range counters {
		frames := table.Lookup(pc)
		got := "\t\t0"
		if len(frames) > 0 {
			got = fmt.Sprintf("%s\t%s\t%d", frames[0].Func, frames[0].File, frames[0].Line)
			if want := outer(pc); want != "" && plain(want) != frames[len(frames)-1].Func {
				t.Errorf("%#x: the function is %s, not %s", pc, want, frames[len(frames)-1].Func)
			}
		}
		if len(frames) > 1 {
			inlined++
		}
		if want := strings.ReplaceAll(answers[i], "\t?\t", "\t\t"); want != got && wrong < 10 {
			wrong++
			t.Errorf("%#x:\n got %s\nwant %s", pc, got, want)
		}
	}
	t.Logf("%d counters, %d of them inlined; opened in %v, %v each", len(counters), inlined, opened, time.Since(begin)/time.Duration(len(counters)))
	if inlined < len(counters)/30 {
		t.Errorf("only %d of %d counters are in inlined calls", inlined, len(counters))
	}
}

// standardLibrary is what package debug/gosym says of the same file: it knows
// nothing of inlining, and so gives the outermost function.
func standardLibrary(t *testing.T, path string) func(uint64) string {
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := f.Section(".gopclntab").Data()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(lines, f.Section(".text").Addr))
	if err != nil {
		t.Fatal(err)
	}
	return func(pc uint64) string {
		if f := table.PCToFunc(pc); f != nil {
			return f.Name
		}
		return ""
	}
}

// compareLayout compares the layout of runtime.g with that of DWARF where there
// is one, and otherwise with that of another build by the same Go.
func compareLayout(t *testing.T, path string, same Layout) Layout {
	table, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	begin := time.Now()
	g, err := table.G()
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	buf, err := table.StructOf(g["sched"])
	if err != nil || buf["sp"].Offset >= buf["pc"].Offset || buf["bp"].Offset == 0 {
		t.Errorf("gobuf: %v, %v", buf, err)
	}
	t.Logf("%d fields in %v: goid %d, parentGoid %d, gopc %d, ancestors %d, labels %d", len(g), took, g["goid"].Offset, g["parentGoid"].Offset,
		g["gopc"].Offset, g["ancestors"].Offset, g["labels"].Offset)
	want := offsets(same)
	if want == nil {
		want = dwarfOffsets(t, path, "runtime.g")
	}
	for name, offset := range want {
		if got, ok := g[name]; !ok || got.Offset != offset {
			t.Errorf("runtime.g.%s is at %d, not %d (there: %v)", name, offset, got.Offset, ok)
		}
	}
	return g
}

func offsets(l Layout) map[string]uint64 {
	if l == nil {
		return nil
	}
	m := make(map[string]uint64)
	for name, f := range l {
		m[name] = f.Offset
	}
	return m
}

func dwarfOffsets(t *testing.T, path, name string) map[string]uint64 {
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	r := d.Reader()
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			t.Fatalf("no %s: %v", name, err)
		}
		if e.Tag == dwarf.TagSubprogram {
			r.SkipChildren()
		}
		if e.Tag != dwarf.TagStructType || e.Val(dwarf.AttrName) != name {
			continue
		}
		kind, err := d.Type(e.Offset)
		if err != nil {
			t.Fatal(err)
		}
		m := make(map[string]uint64)
		for _, f := range kind.(*dwarf.StructType).Field {
			m[f.Name] = uint64(f.ByteOffset)
		}
		return m
	}
}

// TestOtherMachine reads a program for the architecture that this is not.
func TestOtherMachine(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for _, flags := range [][]string{{"-ldflags=-s -w"}, {"-ldflags=-s -w", "-buildmode=pie"}} {
		table, err := Open(build(t, "", other, "0", flags...))
		if err != nil {
			t.Fatal(err)
		}
		g, err := table.G()
		entry, ok := table.Func("main.main")
		frames := table.Lookup(entry)
		if err != nil || g["goid"].Offset == 0 || !ok || len(frames) != 1 || frames[0].Line == 0 || table.Machine() != other {
			t.Errorf("%v: %v, %#x, %v", flags, err, entry, frames)
		}
		if code := table.Read(entry, 16); len(code) != 16 {
			t.Errorf("%v: no code at %#x", flags, entry)
		}
		table.Close()
	}
}

func TestNotGo(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		script: ErrNotGo, need.Program(t, "true"): ErrNotGo, filepath.Join(dir, "none"): os.ErrNotExist,
	} {
		if table, err := Open(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v", path, table, err)
		}
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "a directory") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := OfProcess(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}

// TestSelf looks at the program that runs: a test binary is the largest there
// is here, and its names are known.
func TestSelf(t *testing.T) {
	table, err := OfProcess(int32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	pc, file, line, _ := runtime.Caller(0)
	frames := table.Lookup(uint64(pc) - 1)
	if len(frames) == 0 || !strings.HasSuffix(frames[0].Func, "gosym.TestSelf") || frames[0].File != file || frames[0].Line != line {
		t.Errorf("%v, want %s:%d", frames, file, line)
	}
	if frames := table.Lookup(1); frames != nil {
		t.Errorf("at address 1: %v", frames)
	}
}

// FuzzTable reads what is nearly a program: the parts of a real one, with bytes
// changed. The corpus is of positions and what to write there.
func FuzzTable(f *testing.F) {
	path, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	genuine := cut(f, path)
	f.Add(uint32(16), []byte{2})
	f.Add(uint32(len(genuine)), bytes.Repeat([]byte{0xff}, 8))
	for i := range uint32(40) {
		f.Add(i*4, []byte{0xff, 0xff, 0xff, 0x7f})
	}
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		data := bytes.Clone(genuine)
		copy(data[min(int(at), len(data)):], change)
		table, err := newTable(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		begin := time.Now()
		for pc := uint64(0); pc < 64; pc++ {
			table.Lookup(table.pcln.text + pc*97)
		}
		table.Func("main.main")
		if g, err := table.G(); err == nil {
			table.StructOf(g["sched"])
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// cut makes a small program of a large one: an ELF header and segments of its
// own, with the first functions of a real table.
func cut(f testing.TB, path string) []byte {
	table, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer table.Close()
	const piece = 64 << 10
	p := table.pcln
	header, found := table.im.findPclntab()
	if !found {
		f.Fatal("no table")
	}
	var module uint64
	table.im.scanWords(func(address, value uint64) bool {
		if value == header {
			module = address
		}
		return module == 0
	})
	starts := []uint64{header, p.units, p.files, p.pcs, p.ftab, p.gofunc, module}
	var out bytes.Buffer
	h := make([]byte, 64+56*len(starts))
	copy(h, table.im.at(0, 64))
	order.PutUint64(h[32:], 64)
	order.PutUint16(h[56:], uint16(len(starts)))
	order.PutUint16(h[60:], 0)
	out.Write(h)
	for i, start := range starts {
		data := table.im.run(start, piece)
		s := h[64+56*i:]
		order.PutUint32(s, uint32(elf.PT_LOAD))
		order.PutUint32(s[4:], uint32(elf.PF_R|elf.PF_W))
		order.PutUint64(s[8:], uint64(out.Len()))
		order.PutUint64(s[16:], start)
		order.PutUint64(s[32:], uint64(len(data)))
		order.PutUint64(s[40:], uint64(len(data)))
		out.Write(data)
	}
	data := out.Bytes()
	copy(data, h)
	return data
}
