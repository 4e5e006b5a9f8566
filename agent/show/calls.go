package show

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/bound"
)

// groupsShown is how many different stacks of one process are written out.
const groupsShown = 10

// Calls writes what waits for an answer: of each process its connections, then
// its goroutines, those with the same stack together.
func Calls(w io.Writer, waiting []verdict.Waiting, s Style) {
	p := &page{w: w, style: s}
	if len(waiting) == 0 {
		p.line("Nothing waits for an answer.")
		return
	}
	for i, group := range byProcess(waiting) {
		if i > 0 {
			p.line("")
		}
		p.hang("", "  ", s.paint("1", processText(group[0]))+" waits:")
		for j := range group {
			if group[j].Peer.IsValid() {
				p.hang("  ", "      ", askedText(group[j]))
			}
		}
		for j := range group {
			goroutineGroups(p, group[j].Goroutines)
		}
	}
}

// byProcess keeps the order of the longest wait of each process.
func byProcess(waiting []verdict.Waiting) (groups [][]*verdict.Waiting) {
	for i := range waiting {
		w := &waiting[i]
		at := slices.IndexFunc(groups, func(g []*verdict.Waiting) bool { return g[0].PID == w.PID })
		if at < 0 {
			at = len(groups)
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], w)
	}
	return groups
}

func processText(w *verdict.Waiting) string {
	if w.PID == 0 {
		return "A process that was not seen"
	}
	text := fmt.Sprintf("%s (pid %d)", orUnknown(w.Process), w.PID)
	if w.Container != "" {
		text += " in container " + w.Container[:min(len(w.Container), 12)]
	}
	return text
}

func orUnknown(name string) string {
	if name == "" {
		return "(unknown)"
	}
	return name
}

// askedText says what was asked of an address, and what that means.
func askedText(w *verdict.Waiting) string {
	text := fmt.Sprintf("for %s, %s on %s", w.Peer, bound.Format(w.Since), plural(w.Count, "connection"))
	if sent, ok := w.Sent.Get(); ok {
		text += fmt.Sprintf(" (%s acknowledged, %s came since they began", plural(int(sent), "byte"), verdict.Number(int(w.Received.Value)))
		if w.Queued > 0 {
			text += fmt.Sprintf(", %s on the way", verdict.Number(int(w.Queued)))
		}
		text += ")"
	}
	switch acknowledged, ok := w.Acknowledged.Get(); {
	case !ok:
	case !acknowledged:
		text += ": not acknowledged; the path is dead, or the machine there"
	case w.Full:
		text += ": the program there does not read; its kernel lives"
	case w.Sure:
		text += ": acknowledged and not answered; the path lives, the program there does not answer"
	default:
		text += ": acknowledged, and nothing came; perhaps it is not a question (a long poll, a protocol without answers)"
	}
	return text
}

// alike are goroutines with the same stack that wait for the same.
type alike struct {
	waiters []*verdict.Waiter
}

func goroutineGroups(p *page, waiters []verdict.Waiter) {
	var groups []alike
	for i := range waiters {
		w := &waiters[i]
		at := slices.IndexFunc(groups, func(g alike) bool {
			first := g.waiters[0]
			return first.For == w.For && first.State == w.State && first.Peer == w.Peer && first.Created == w.Created && slices.Equal(first.Stack, w.Stack)
		})
		if at < 0 {
			at = len(groups)
			groups = append(groups, alike{})
		}
		groups[at].waiters = append(groups[at].waiters, w)
	}
	slices.SortStableFunc(groups, func(a, b alike) int { return len(b.waiters) - len(a.waiters) })
	for i, g := range groups {
		if i == groupsShown {
			p.line(fmt.Sprintf("  and goroutines at %s; --json has them all", plural(len(groups)-i, "more place")))
			break
		}
		writeGroup(p, g.waiters)
	}
}

// writeGroup writes goroutines of one stack, the longest of which is the first.
func writeGroup(p *page, group []*verdict.Waiter) {
	first, last := group[0], group[len(group)-1]
	what := first.For
	if first.Peer.IsValid() {
		what += " on the connection to " + first.Peer.String()
	}
	head := fmt.Sprintf("goroutine %d waits for %s, %s (%s)", first.ID, what, atLeast(first.Goroutine), first.State)
	if n := len(group); n > 1 {
		head = fmt.Sprintf("%s wait for %s, the longest %s, the shortest %s (%s), such as %d", plural(n, "goroutine"), what,
			atLeast(first.Goroutine), atLeast(last.Goroutine), first.State, first.ID)
	}
	p.hang("  ", "      ", p.style.paint("33", head))
	lines := folded(first.Stack)
	if first.Cut {
		lines = append(lines, stackLine{"…", ""})
	}
	if c := first.Created; c.Func != "" {
		lines = append(lines, stackLine{"started by " + c.Func, place(c)})
	}
	width := 0
	for _, l := range lines {
		width = max(width, visible(l.call))
	}
	for _, l := range lines {
		p.line("      " + strings.TrimRight(l.call+strings.Repeat(" ", width-visible(l.call))+"  "+l.place, " "))
	}
}

// atLeast is how long a goroutine waits. What is only as long as the look says
// so: it may be much longer.
func atLeast(g *fact.Goroutine) string {
	if g.Looked {
		return "all " + bound.Format(g.Since) + " of this look or longer"
	}
	return "at least " + bound.Format(g.Since)
}

// stackLine is one line of a stack: what was called, and where that is.
type stackLine struct{ call, place string }

// folded is a stack in lines. Of several calls within one package of others only
// the first and the last are of use to who asks what hangs and who asked.
func folded(stack []fact.Call) (lines []stackLine) {
	for i := 0; i < len(stack); {
		end := i + 1
		for end < len(stack) && verdict.Library(stack[i]) && stack[end].Package() == stack[i].Package() {
			end++
		}
		lines = append(lines, stackLine{stack[i].Func, place(stack[i])})
		if hidden := end - i - 2; hidden > 1 {
			lines = append(lines, stackLine{fmt.Sprintf("… %d calls within %s", hidden, stack[i].Package()), ""})
			i = end - 1
			continue
		}
		i++
	}
	return lines
}

// place is a file and line, short: the directories above the last one are the
// package's path, or say where the program was built.
func place(c fact.Call) string {
	if c.File == "" {
		return ""
	}
	dir, file := path.Split(c.File)
	if c.Line != 0 {
		file = fmt.Sprintf("%s:%d", file, c.Line)
	}
	if dir = path.Base(dir); dir == "." || dir == "/" {
		return file
	}
	return dir + "/" + file
}

// goroutineJSON is verdict.Waiter in JSON.
type goroutineJSON struct {
	ID        uint64     `json:"id"`
	State     string     `json:"state"`
	Since     float64    `json:"since_seconds"` // at least
	Looked    bool       `json:"since_is_look"` // it is only the length of the look
	For       string     `json:"waits_for"`
	Peer      *string    `json:"peer"` // null: not known
	Prompt    bool       `json:"prompt"`
	AskedBy   *callJSON  `json:"asked_by"`
	Stack     []callJSON `json:"stack"`
	Cut       bool       `json:"stack_cut"`
	CreatedBy *callJSON  `json:"created_by"`
}

type callJSON struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

func callOf(c fact.Call) *callJSON {
	if c.Func == "" {
		return nil
	}
	return &callJSON{c.Func, c.File, c.Line}
}

// waitingJSON is verdict.Waiting in JSON.
type waitingJSON struct {
	PID          *int32          `json:"pid"`
	Process      *string         `json:"process"`
	Container    string          `json:"container,omitempty"`
	Netns        *uint32         `json:"netns"`
	Peer         *string         `json:"peer"`
	Count        int             `json:"count"` // connections
	Since        float64         `json:"since_seconds"`
	Acknowledged *bool           `json:"acknowledged"`
	Full         bool            `json:"window_closed"`
	Sure         bool            `json:"sure"`
	Sent         *uint64         `json:"sent_bytes"` // acknowledged, since the connections began
	Received     *uint64         `json:"received_bytes"`
	Queued       uint64          `json:"queued_bytes"`
	Goroutines   []goroutineJSON `json:"goroutines"`
}

func waitingOf(w *verdict.Waiting) waitingJSON {
	j := waitingJSON{Container: w.Container, Count: w.Count, Since: seconds(w.Since), Acknowledged: known(w.Acknowledged), Full: w.Full,
		Sure: w.Sure, Sent: known(w.Sent), Received: known(w.Received), Queued: w.Queued, Goroutines: []goroutineJSON{}}
	if w.PID != 0 {
		j.PID = &w.PID
	}
	if w.Process != "" {
		j.Process = &w.Process
	}
	if w.Peer.IsValid() {
		peer := w.Peer.String()
		j.Peer, j.Netns = &peer, &w.Netns
	}
	for i := range w.Goroutines {
		j.Goroutines = append(j.Goroutines, goroutineOf(&w.Goroutines[i]))
	}
	return j
}

func goroutineOf(g *verdict.Waiter) goroutineJSON {
	one := goroutineJSON{ID: g.ID, State: g.State, Since: seconds(g.Since), Looked: g.Looked, For: g.For, Prompt: g.Prompt, AskedBy: callOf(g.Asked),
		Stack: []callJSON{}, Cut: g.Cut, CreatedBy: callOf(g.Created)}
	if g.Peer.IsValid() {
		peer := g.Peer.String()
		one.Peer = &peer
	}
	for _, c := range g.Stack {
		one.Stack = append(one.Stack, callJSON{c.Func, c.File, c.Line})
	}
	return one
}

func known[T any](k fact.Known[T]) *T {
	if !k.OK {
		return nil
	}
	return &k.Value
}

// CallsJSON writes what waits for an answer as one document.
func CallsJSON(w io.Writer, m *fact.Machine, waiting []verdict.Waiting) error {
	d := struct {
		Head
		Waiting []waitingJSON `json:"waiting"`
	}{head(m), []waitingJSON{}}
	for i := range waiting {
		d.Waiting = append(d.Waiting, waitingOf(&waiting[i]))
	}
	return encode(w, d, false)
}
