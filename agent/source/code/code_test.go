package code

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

//go:noinline
func counters() []uint64 {
	pcs := make([]uintptr, 32)
	pcs = pcs[:runtime.Callers(1, pcs)]
	list := make([]uint64, len(pcs))
	for i, pc := range pcs {
		list[i] = uint64(pc)
	}
	return list
}

// The calls of this process are those that Go itself names.
func TestOwnCalls(t *testing.T) {
	p, err := Open(int32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	trace := p.Trace(counters(), true, false)
	want := []string{"code.counters", "code.TestOwnCalls", "testing.tRunner"}
	if len(trace.Calls) != len(want) || trace.Unknown != "" {
		t.Fatalf("got %+v", trace)
	}
	for i, c := range trace.Calls {
		if !strings.HasSuffix(c.Func, want[i]) || c.Line == 0 {
			t.Errorf("got %+v, want %s", c, want[i])
		}
	}
	if p.Enters(trace) {
		t.Error("this is no stack of a system call")
	}
	if trace := p.Trace([]uint64{1, 2, 3}, false, false); len(trace.Calls) > 0 || trace.Unknown == "" {
		t.Errorf("of no code: %+v", trace)
	}
}

// Of a program that is not Go it says so, and names the symbol of a library or of
// the program.
func TestNotGo(t *testing.T) {
	cmd := exec.Command(need.Program(t, "sleep"), "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var p *Program
	loaded := func() bool {
		return slices.ContainsFunc(p.modules, func(m module) bool { return strings.Contains(m.path, "libc") })
	}
	for p == nil || !loaded() {
		if p != nil {
			p.Close()
		}
		var err error
		if p, err = Open(int32(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	defer p.Close()
	var where uint64
	for _, m := range p.modules {
		if !strings.Contains(m.path, "libc") {
			continue
		}
		for offset := m.offset; offset < m.offset+m.to-m.from; offset += 64 { // some function of it
			if path, ok := p.file(&m); ok {
				if _, into, ok := symbol(path, offset); ok && into > 0 {
					where = m.from + offset - m.offset
					break
				}
			}
		}
	}
	trace := p.Trace([]uint64{where, where + 1, 12}, false, true)
	if len(trace.Calls) != 2 || !strings.Contains(trace.Calls[0].Func, "+0x") || !strings.Contains(trace.Calls[0].Func, "(libc") ||
		!strings.Contains(trace.Calls[0].File, "/libc") || !strings.HasPrefix(trace.Unknown, "not a Go program") {
		t.Errorf("at %#x: %+v", where, trace)
	}
}

func TestGone(t *testing.T) {
	cmd := exec.Command(need.Program(t, "true"))
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(int32(cmd.Process.Pid)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseModule(f *testing.F) {
	f.Add("7f1c2a028000-7f1c2a1bd000 r-xp 00028000 fe:01 1234                       /usr/lib/x86_64-linux-gnu/libc.so.6 (deleted)")
	f.Add("7ffd-7ffe r-xp 0 0:0 0 [vdso]")
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := parseModule(line); ok && !strings.HasPrefix(m.path, "/") {
			t.Errorf("got %+v", m)
		}
	})
}

func FuzzSymbol(f *testing.F) {
	if image, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(image[:min(len(image), 8192)], uint64(0x1000))
		f.Add(image, uint64(len(image)/2))
	}
	f.Fuzz(func(t *testing.T, image []byte, offset uint64) {
		if name, _, ok := symbolIn(bytes.NewReader(image), offset); ok && name == "" {
			t.Error("a function without a name")
		}
	})
}
