package ledger

import (
	"fmt"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lifeline-go/lifeline/internal/callers"
)

// Frame is one function of a stack, and where it was.
type Frame struct {
	Function string `json:"function"` // with its package path
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// String returns the function and the place, without the path of either.
func (f Frame) String() string {
	if f.Function == "" {
		return "an unknown function"
	}
	return fmt.Sprintf("%s %s:%d", path.Base(f.Function), path.Base(f.File), f.Line)
}

// mostStacks is how many different stacks are known at a time, which bounds
// their memory to some megabytes. Beyond that each ticket has one of its own.
const mostStacks = 8192

// A stack is where something was opened. All that was opened there share it.
type stack struct {
	key     callers.Key
	length  int       // of the key
	pcs     []uintptr // of runtime.Callers
	own     int       // so many of the innermost frames are of this library
	open    int       // so many are open; guarded by book.mu, as is dropped
	dropped int
	other   *stack // with the same hash
	shown   atomic.Pointer[[]Frame]
}

// stacks are those that are known, by hash. Its user holds book.mu.
type stacks struct {
	byHash map[uint64]*stack
	known  int
}

// A trace is a stack as it is found.
type trace struct {
	key    callers.Key
	length int
	hash   uint64
}

// capture takes the stack of its caller.
func (t *trace) capture() {
	t.length = t.key.Fill()
	for _, pc := range t.key[:t.length] {
		t.hash = (t.hash ^ uint64(pc)) * 0x9e3779b97f4a7c15
		t.hash ^= t.hash >> 29
	}
}

// of returns the stack of a trace that was taken by a caller of the caller.
func (s *stacks) of(t *trace) *stack {
	for known := s.byHash[t.hash]; known != nil && t.length > 0; known = known.other {
		if slices.Equal(known.key[:known.length], t.key[:t.length]) {
			return known
		}
	}
	pcs := make([]uintptr, callers.Most)
	found := &stack{key: t.key, length: t.length, pcs: slices.Clip(pcs[:runtime.Callers(3, pcs)])}
	found.own = len(framesOf(found.pcs)) - len(found.frames())
	if t.length == 0 || s.known == mostStacks {
		return found
	}
	if s.byHash == nil {
		s.byHash = make(map[uint64]*stack)
	}
	s.known++
	found.other = s.byHash[t.hash]
	s.byHash[t.hash] = found
	return found
}

// frames returns the frames outside of this library.
func (s *stack) frames() []Frame {
	if shown := s.shown.Load(); shown != nil {
		return *shown
	}
	all := framesOf(s.pcs)
	outside := slices.IndexFunc(all, func(f Frame) bool { return !f.own() })
	all = all[max(outside, 0):]
	s.shown.Store(&all)
	return all
}

// own reports whether the function is of this library.
func (f Frame) own() bool {
	rest, of := strings.CutPrefix(f.Function, "github.com/lifeline-go/lifeline")
	return of && slices.ContainsFunc([]string{".", "/ledger.", "/ssh."}, func(next string) bool { return strings.HasPrefix(rest, next) })
}

func framesOf(pcs []uintptr) (all []Frame) {
	for frames := runtime.CallersFrames(pcs); ; {
		f, more := frames.Next()
		if f.Function != "runtime.goexit" {
			all = append(all, Frame{f.Function, f.File, f.Line})
		}
		if !more {
			return all
		}
	}
}

// Site returns the frame of a stack that says most: the innermost of the
// program's own module, or that outside of libraries, or of all.
func Site(stack []Frame) Frame {
	outside := func(f Frame) bool { return !f.OfLibrary() }
	inside := func(f Frame) bool { return f.ofProgram() && outside(f) }
	for _, says := range []func(Frame) bool{inside, outside, func(Frame) bool { return true }} {
		if i := slices.IndexFunc(stack, says); i >= 0 {
			return stack[i]
		}
	}
	return Frame{}
}

// program is the path of the main module; "" = it is not known.
var program = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Path
	}
	return ""
})

// ofProgram reports whether the function is of the program's own module.
func (f Frame) ofProgram() bool {
	rest, of := strings.CutPrefix(f.Function, program())
	return strings.HasPrefix(f.Function, "main.") || of && program() != "" && strings.IndexAny(rest, "./_") == 0
}

// OfLibrary reports whether the function is of the standard library or of this
// one, which says little about who opened something.
func (f Frame) OfLibrary() bool {
	if f.own() {
		return true
	}
	first, _, deep := strings.Cut(f.Function, "/")
	if host := strings.Contains(first, "."); host && deep {
		return false
	}
	first, _, _ = strings.Cut(first, ".")
	return slices.Contains(standard, first)
}

// standard is the first parts of the package paths of the standard library.
var standard = []string{
	"archive", "bufio", "bytes", "cmp", "compress", "container", "context", "crypto", "database", "debug", "embed", "encoding", "errors",
	"expvar", "flag", "fmt", "go", "hash", "html", "image", "index", "internal", "io", "iter", "log", "maps", "math", "mime", "net", "os", "path",
	"plugin", "reflect", "regexp", "runtime", "slices", "sort", "strconv", "strings", "structs", "sync", "syscall", "testing", "text", "time",
	"unicode", "unique", "vendor", "weak",
}
