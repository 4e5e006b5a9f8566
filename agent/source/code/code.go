// Package code tells which functions the program counters of a running process
// belong to: function, file and line of Go programs, stripped ones too (package
// gosym); of others the function, where the executable or the library has
// symbols, and the offset in it.
//
// Rights: CAP_SYS_PTRACE for processes of other users.
//
// Bound: files are foreign. Nothing in them is executed or trusted; of each 4
// million symbols are looked at, and none is kept. Opening a Go program takes
// some 20 ms, a stack some microseconds; a module that is not Go takes some
// milliseconds for each stack.
package code

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/gosym"
)

// Program is what one process runs. Use [Open]; Close it. One goroutine may use
// it at a time.
type Program struct {
	pid     int32
	table   *gosym.Table // nil: not Go
	modules []module
}

// module is a file that is mapped into the process to be run.
type module struct {
	from, to, offset uint64
	inode            uint64
	path             string
}

// mostModules bounds the mappings that are read; programs have some hundred.
const mostModules = 8192

// Open looks at what a process runs. The error is [os.ErrNotExist] when it is
// gone, [os.ErrPermission] when it may not be looked at.
func Open(pid int32) (*Program, error) {
	p := &Program{pid: pid}
	var err error
	p.table, err = gosym.OfProcess(pid)
	if err != nil && !errors.Is(err, gosym.ErrNotGo) {
		return nil, err
	}
	if p.modules, err = modules(pid); err != nil {
		p.Close()
		return nil, fmt.Errorf("what process %d runs: %w", pid, err)
	}
	return p, nil
}

// Rest gives back what was read of the files, see [gosym.Table.Rest].
func (p *Program) Rest() {
	if p.table != nil {
		p.table.Rest()
	}
}

// Close gives back the files.
func (p *Program) Close() error {
	if p.table == nil {
		return nil
	}
	return p.table.Close()
}

// Table returns the symbols of a Go program, nil for others.
func (p *Program) Table() *gosym.Table { return p.table }

// modules reads which files are mapped to be run.
func modules(pid int32) (list []module, err error) {
	file, err := os.Open("/proc/" + strconv.Itoa(int(pid)) + "/maps")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, 16<<20))
	for lines.Scan() && len(list) < mostModules {
		if m, ok := parseModule(lines.Text()); ok {
			list = append(list, m)
		}
	}
	if errors.Is(lines.Err(), unix.ESRCH) {
		return nil, os.ErrNotExist
	}
	return list, lines.Err()
}

// parseModule reads a line of maps:
// 7f1c2a028000-7f1c2a1bd000 r-xp 00028000 fe:01 1234  /usr/lib/x86_64-linux-gnu/libc.so.6
func parseModule(line string) (m module, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || !strings.Contains(f[1], "x") || !strings.HasPrefix(f[5], "/") {
		return m, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	var errs [4]error
	m.from, errs[0] = strconv.ParseUint(from, 16, 64)
	m.to, errs[1] = strconv.ParseUint(to, 16, 64)
	m.offset, errs[2] = strconv.ParseUint(f[2], 16, 64)
	m.inode, errs[3] = strconv.ParseUint(f[4], 10, 64)
	_, path, _ := strings.Cut(line, " /")
	m.path = "/" + path
	return m, errors.Join(errs[:]...) == nil
}

// Trace tells the calls of a stack of counters, innermost first. The first is
// where the program was, the others are return addresses, unless they are logical:
// then each is the return address of one call, inlined or not, as the Go runtime
// keeps them.
func (p *Program) Trace(counters []uint64, logical, cut bool) *fact.Trace {
	t := &fact.Trace{Cut: cut}
	if p.table == nil {
		p.foreign(t, counters)
		return t
	}
	outside := 0
	for i, pc := range counters {
		if i > 0 || logical {
			pc--
		}
		frames := p.table.Lookup(pc)
		if len(frames) == 0 {
			outside++
		}
		for _, f := range frames {
			if !f.Wrapper && !hidden(f.Func, logical) {
				t.Calls = append(t.Calls, fact.Call{Func: f.Func, File: f.File, Line: f.Line})
			}
			if logical {
				break
			}
		}
	}
	if len(t.Calls) == 0 || outside > 1+len(t.Calls) {
		*t = fact.Trace{Unknown: "the code is none of this Go program: C that it called, or another program that the process ran before"}
	}
	return t
}

// hidden are functions of the runtime that begin every goroutine and, in what it
// keeps of those that started others, every go statement.
func hidden(function string, kept bool) bool {
	return function == "runtime.goexit" || function == "runtime.main" || kept && strings.HasPrefix(function, "runtime.")
}

// Enters reports whether a stack can be that of a system call: its innermost
// call is one from which programs enter the kernel. A stack that was taken while a
// process ran another program, and looks like one of this, ends anywhere.
func (p *Program) Enters(t *fact.Trace) bool {
	if p.table == nil || len(t.Calls) == 0 {
		return true
	}
	f := t.Calls[0].Func
	return strings.Contains(f, "syscall") || strings.HasPrefix(f, "golang.org/x/sys/unix.") || strings.HasPrefix(f, "runtime.")
}

// foreign fills in the calls of a program that is not Go.
func (p *Program) foreign(t *fact.Trace, counters []uint64) {
	t.Unknown = "not a Go program: functions and offsets as its symbols have them, and as far as its frame pointers lead"
	for i, pc := range counters {
		if i > 0 {
			pc--
		}
		at := p.module(pc)
		if at < 0 && i == 0 { // it may have been loaded since
			if now, err := modules(p.pid); err == nil {
				p.modules = now
				at = p.module(pc)
			}
		}
		if at < 0 {
			if i > 0 {
				break // no frame pointer: it led nowhere
			}
			continue
		}
		m := &p.modules[at]
		t.Calls = append(t.Calls, fact.Call{Func: p.named(m, pc-m.from+m.offset), File: fact.Printable(m.path)})
	}
}

// module is which of the modules has a counter, -1 for none.
func (p *Program) module(pc uint64) int {
	return slices.IndexFunc(p.modules, func(m module) bool { return pc >= m.from && pc < m.to })
}

// named is a place in a module: function+offset (module), or module+offset.
func (p *Program) named(m *module, offset uint64) string {
	base := fact.Printable(filepath.Base(strings.TrimSuffix(m.path, " (deleted)")))
	if path, ok := p.file(m); ok {
		if name, into, ok := symbol(path, offset); ok {
			return fmt.Sprintf("%s+%#x (%s)", fact.Printable(name), into, base)
		}
	}
	return fmt.Sprintf("%s+%#x", base, offset)
}

// file returns where the module can be read, unless another file has its name by
// now.
func (p *Program) file(m *module) (path string, ok bool) {
	dir := "/proc/" + strconv.Itoa(int(p.pid))
	for _, path := range []string{dir + "/exe", dir + "/root" + m.path} {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Ino == m.inode {
			return path, true
		}
	}
	return "", false
}
