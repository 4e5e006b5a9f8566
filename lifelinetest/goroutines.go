package lifelinetest

import (
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/ledger"
)

// A goroutine as the runtime prints it.
type goroutine struct {
	id      int
	parent  int    // that started it; 0 = not known
	test    string // value of label
	state   string // running, select, IO wait, …
	frames  []frame
	created frame
	askers  [][]frame // stacks of those before it, as the runtime remembers them
	text    string    // all of that
}

type frame = ledger.Frame

// most is how much of what the runtime prints is looked at: some 50,000
// goroutines.
const most = 64 << 20

var asking sync.Mutex

// stacks returns what the runtime prints of this goroutine, or of all, with
// their labels, which it shows only to those who ask for it by GODEBUG.
func stacks(all bool) string {
	asking.Lock()
	defer asking.Unlock()
	const key, labels = "GODEBUG", "tracebacklabels=1"
	if was, set := os.LookupEnv(key); !strings.Contains(was, labels) {
		_ = os.Setenv(key, strings.TrimPrefix(was+","+labels, ","))
		defer func() {
			if set {
				_ = os.Setenv(key, was)
			} else {
				_ = os.Unsetenv(key)
			}
		}()
	}
	size := 16 << 10
	if all {
		size = 256 << 10
	}
	for ; ; size *= 4 {
		buffer := make([]byte, size)
		if n := runtime.Stack(buffer, all); n < size || size >= most {
			return string(buffer[:n])
		}
	}
}

// look returns all goroutines of the program, and which of them called.
func look() (all []*goroutine, self int) {
	for text := range strings.SplitSeq(stacks(true), "\n\n") {
		if g := parse(text); g != nil {
			all = append(all, g)
		}
	}
	if len(all) > 0 {
		self = all[0].id
	}
	return all, self
}

var (
	header  = regexp.MustCompile(`^goroutine (\d+) \[(.*)\]:$`)
	labeled = regexp.MustCompile(`"` + label + `": ("(?:[^"\\]|\\.)*")`)
	creator = regexp.MustCompile(`^created by (.*?)(?: in goroutine (\d+))?$`)
	place   = regexp.MustCompile(`^\t(.*):(\d+)(?: \+0x[0-9a-f]+)?$`)
)

// parse reads what the runtime prints of one goroutine, nil for what is none.
func parse(text string) *goroutine {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	of := header.FindStringSubmatch(lines[0])
	if of == nil {
		return nil
	}
	g := &goroutine{text: text}
	g.id, _ = strconv.Atoi(of[1])
	g.state, _, _ = strings.Cut(of[2], " labels:{")
	g.state, _, _ = strings.Cut(g.state, ",")
	if found := labeled.FindStringSubmatch(of[2]); found != nil {
		g.test, _ = strconv.Unquote(found[1])
	}
	stack := &g.frames
	for i, line := range lines[1:] {
		if strings.HasPrefix(line, "[originating from goroutine ") {
			g.askers = append(g.askers, nil)
			stack = &g.askers[len(g.askers)-1]
			continue
		}
		at := place.FindStringSubmatch(line)
		if at == nil || i == 0 {
			continue
		}
		f := frame{Function: lines[i], File: at[1]}
		f.Line, _ = strconv.Atoi(at[2])
		if by := creator.FindStringSubmatch(f.Function); by != nil {
			f.Function = by[1]
			if stack == &g.frames {
				g.created = f
				g.parent, _ = strconv.Atoi(by[2])
			}
			continue
		}
		if open := strings.LastIndexByte(f.Function, '('); open > 0 { // of the arguments
			f.Function = f.Function[:open]
		}
		*stack = append(*stack, f)
	}
	return g
}

// runs reports whether the function is on the stack.
func (g *goroutine) runs(function string) bool {
	for _, f := range g.frames {
		if f.Function == function {
			return true
		}
	}
	return false
}

// runsTests reports whether the goroutine belongs to package testing: it runs a
// test, or waits for one.
func (g *goroutine) runsTests() bool {
	return g.runs("testing.tRunner") || g.runs("testing.(*M).Run") || g.runs("testing.(*M).startAlarm.func1") || g.runs("testing/synctest.Test")
}

// alone reports whether no other test runs beside the one of this goroutine: all
// that are above it wait for it to return.
func alone(all []*goroutine, self int) bool {
	byID := make(map[int]*goroutine)
	for _, g := range all {
		byID[g.id] = g
	}
	g := byID[self]
	for g != nil && g.parent != 0 {
		if g = byID[g.parent]; g == nil || !g.runs("testing.(*T).Run") {
			return false
		}
	}
	return g != nil
}

// wait asks for what is left until there is nothing, or patience has ended.
func wait(left func() []leak) []leak {
	pause, deadline := time.Millisecond, time.Now().Add(patience)
	for {
		now := left()
		if len(now) == 0 || time.Now().After(deadline) {
			return now
		}
		runtime.GC() // which closes files and connections that nobody can close any more
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}
