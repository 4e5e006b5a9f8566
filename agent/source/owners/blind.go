package owners

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// blindness counts the processes that a walk could not look into.
type blindness struct {
	denied int // for want of rights
	failed int // for another reason
	err    error
	hidden bool // there are processes that /proc does not show
}

func (b *blindness) add(other *blindness) {
	b.denied += other.denied
	b.failed += other.failed
	if other.err != nil {
		b.err = other.err
	}
}

func (b *blindness) report() []fact.Blind {
	var blind []fact.Blind
	if b.denied > 0 {
		blind = append(blind, fact.Blind{
			Source: source,
			Error:  fmt.Sprintf("may not see the files of %s", count(b.denied)),
			Needs:  capability.Missing(Capabilities, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH),
		})
	}
	if b.failed > 0 {
		blind = append(blind, fact.Blind{
			Source: source,
			Error:  fmt.Sprintf("cannot read the files of %s: %v", count(b.failed), b.err),
		})
	}
	if b.hidden {
		blind = append(blind, fact.Blind{
			Source: source,
			Error:  "processes of other users are hidden: /proc is mounted with hidepid",
			Needs:  "CAP_SYS_PTRACE",
		})
	}
	return blind
}

func count(processes int) string {
	if processes == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", processes)
}
