//go:build linux

package redirect

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/fact"
)

// Reason is what became of what a program did.
type Reason string

// The reasons, as sentences about a program.
const (
	Redirected  Reason = "asked nameservers, and was answered by the operating system instead"
	Libc        Reason = "asks nameservers by way of a library; it was left alone: libc asks the operating system already"
	Elsewhere   Reason = "asks nameservers of another network namespace; it was left alone"
	Unreadable  Reason = "may not be looked into (executable but not readable, or non-dumpable); if it asked nameservers, it was not redirected"
	Unconnected Reason = "sends to nameservers without connecting, and is not musl; it was not redirected"
	Failed      Reason = "could not be redirected"
	Privileged  Reason = "is a set-user-ID program and ran without its right: lifeline run gives up the way to more rights"
	Unseen      Reason = "uses io_uring; what it connects to by that is not seen"
	Nested      Reason = "ran within this one, and left the work to it"
	ExecOnly    Reason = "is executable but not readable; what it asks nameservers is not redirected"
)

// Count is how often something became of what a program did.
type Count struct {
	Program string // the path of its executable
	Reason  Reason
	Error   string // of the last that failed
	Times   int
}

// mostCounts bounds the memory of a [Tally]; what is more is not told.
const mostCounts = 256

// Tally counts. The zero value is empty and ready; its methods may be called from
// many goroutines.
type Tally struct {
	mu     sync.Mutex
	counts map[Count]int // without Error and Times
	errors map[Count]string
}

func (t *Tally) add(program string, reason Reason) { t.note(program, reason, "") }

func (t *Tally) fail(program string, err error) { t.note(program, Failed, err.Error()) }

func (t *Tally) note(program string, reason Reason, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := Count{Program: program, Reason: reason}
	if t.counts == nil {
		t.counts, t.errors = make(map[Count]int), make(map[Count]string)
	}
	if _, ok := t.counts[key]; !ok && len(t.counts) >= mostCounts {
		return
	}
	t.counts[key]++
	if why != "" {
		t.errors[key] = why
	}
}

// Counts returns what was counted, what was redirected first.
func (t *Tally) Counts() []Count {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Collect(maps.Keys(t.counts))
	for i := range all {
		key := all[i]
		all[i].Times, all[i].Error = t.counts[key], t.errors[key]
	}
	slices.SortFunc(all, func(a, b Count) int {
		if (a.Reason == Redirected) != (b.Reason == Redirected) {
			if a.Reason == Redirected {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Program, b.Program), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}

// program is the path of the executable of whoever made a call.
func (r *Redirector) program(c *notify.Call) string {
	if code, err := r.places.of(int(c.TID), c.IP); err == nil {
		return code.program
	}
	return executable(int(c.TID))
}

// executable is the path of a process's, or its name where that is not to be
// seen.
func executable(tid int) string {
	path, err := os.Readlink(proc(tid, "exe"))
	if err != nil {
		path = "a process"
		if comm, err := readAtMost(proc(tid, "comm"), 64); err == nil {
			path = strings.TrimSpace(string(comm))
		}
	}
	return fact.Printable(path)
}
