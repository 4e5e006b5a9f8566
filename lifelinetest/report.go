package lifelinetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/ledger"
)

// opened returns the descriptors that were not open before.
func opened(before map[string]string) (left []leak) {
	for fd, target := range descriptors() {
		if before[fd] == target {
			continue
		}
		if between := ends(fd); between != "" {
			target += ", " + between
		}
		left = append(left, leak{file: "file descriptor " + fd + ": " + target})
	}
	slices.SortFunc(left, func(a, b leak) int { return cmp.Compare(a.file, b.file) })
	return left
}

// report says what was left, each thing once with its number.
func report(left []leak) string {
	count := make(map[string]int)
	var texts []string
	for _, l := range withoutServants(left) {
		text := l.String()
		if count[text]++; count[text] == 1 {
			texts = append(texts, text)
		}
	}
	for i, text := range texts {
		if n := count[text]; n > 1 {
			texts[i] = fmt.Sprintf("%d times: %s", n, text)
		}
	}
	if !slices.ContainsFunc(left, func(l leak) bool { return len(l.askers()) > 0 || l.goroutine == nil }) {
		texts = append(texts, "Run the tests with GODEBUG=tracebackancestors=10 to be told who asked for these goroutines.")
	}
	return strings.Join(texts, "\n\n")
}

// withoutServants leaves out the goroutines by which net/http serves connections
// that are told of themselves.
func withoutServants(left []leak) []leak {
	serves := func(l leak) bool { return fix(l) == idleHTTP }
	if !slices.ContainsFunc(left, func(l leak) bool { return l.entry != nil && serves(l) }) {
		return left
	}
	return slices.DeleteFunc(slices.Clone(left), func(l leak) bool { return l.goroutine != nil && serves(l) })
}

func (l leak) askers() [][]frame {
	if l.goroutine != nil {
		return l.goroutine.askers
	}
	return l.origin.askers
}

// String tells of one leak: what it is, who asked for it, what to do, and then
// the stack.
func (l leak) String() string {
	var text strings.Builder
	switch {
	case l.file != "":
		return l.file
	case l.entry != nil:
		e := l.entry
		fmt.Fprintf(&text, "%s connection, %s", e.Network, cmp.Or(e.Remote, e.Local, "to nobody"))
		if e.Op == "listen" {
			text.Reset()
			fmt.Fprintf(&text, "%s listener, %s", e.Network, e.Local)
		}
		if e.Scope != "" {
			fmt.Fprintf(&text, ", of scope %q", e.Scope)
		}
		fmt.Fprintf(&text, ", opened by %s", e.Site())
	default:
		fmt.Fprintf(&text, "goroutine [%s] in %s", l.goroutine.state, l.where())
	}
	stack := l.stack()
	asker := ledger.Site(slices.Concat(append([][]frame{stack}, l.askers()...)...))
	if asker.OfLibrary() {
		asker = frame{}
	}
	if asker != (frame{}) {
		fmt.Fprintf(&text, "\n  asked for by %s", asker)
	}
	if why := explain(l, asker); why != "" {
		fmt.Fprintf(&text, "\n  %s", why)
	}
	text.WriteString("\n")
	write(&text, stack)
	for _, asks := range l.askers() {
		text.WriteString("    asked for by\n")
		write(&text, asks)
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// stack returns the frames of a goroutine, with who created it, or those that
// opened a connection.
func (l leak) stack() (all []frame) {
	if l.goroutine != nil {
		all = slices.Clone(l.goroutine.frames)
		if by := l.goroutine.created; by.Function != "" {
			all = append(all, by)
		}
		return all
	}
	return l.entry.Stack
}

// where says what a goroutine is doing: its innermost function.
func (l leak) where() string {
	if len(l.goroutine.frames) == 0 {
		return l.goroutine.created.Function
	}
	return l.goroutine.frames[0].Function
}

func write(text *strings.Builder, stack []frame) {
	for _, f := range stack {
		if f.Function == "testing.tRunner" {
			return
		}
		fmt.Fprintf(text, "    %s\n        %s:%d\n", f.Function, f.File, f.Line)
	}
}
