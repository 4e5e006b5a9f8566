package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// source is the name of this source in blind spots.
const source = "processes"

// What is missed where more than the capability of hidepid helps.
const (
	anything   = "everything"
	countFiles = "the number of file descriptors"
)

// miss is what could not be read of a process.
type miss struct {
	what string
	err  error
}

// needs names what would let the missed be read, "" when nothing would.
func (m miss) needs() string {
	switch {
	case !errors.Is(m.err, fs.ErrPermission):
		return ""
	case m.what == countFiles:
		return capability.Missing("CAP_DAC_READ_SEARCH, or Linux 6.2", unix.CAP_DAC_READ_SEARCH)
	}
	return capability.Missing("CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE)
}

// tally counts processes by what was missed of them, so that hundreds of
// processes with the same blind spot become one. The zero tally is empty.
type tally []missed

type missed struct {
	blind     fact.Blind // Error without the count
	what      string
	processes int
	first     int32 // a PID to look at
}

func (t *tally) add(pid int32, misses ...miss) {
	for _, m := range misses {
		text := m.err.Error()
		i := slices.IndexFunc(*t, func(have missed) bool { return have.what == m.what && have.blind.Error == text })
		if i < 0 {
			i = len(*t)
			*t = append(*t, missed{
				blind: fact.Blind{Source: source, Error: text, Needs: m.needs()},
				what:  m.what,
				first: pid,
			})
		}
		(*t)[i].processes++
	}
}

// blind returns a blind spot for each thing that was missed, in the order in
// which they came first.
func (t tally) blind() []fact.Blind {
	var spots []fact.Blind
	for _, m := range t {
		who := fmt.Sprintf("process %d", m.first)
		if m.processes > 1 {
			who = fmt.Sprintf("%d processes (%d first)", m.processes, m.first)
		}
		m.blind.Error = fmt.Sprintf("%s of %s: %s", m.what, who, m.blind.Error)
		spots = append(spots, m.blind)
	}
	return spots
}
