package owners

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// blindness counts the processes that a walk could not look into.
type blindness struct {
	denied int // for want of rights
	failed int // for another reason
	err    error
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
	if !capability.Held(unix.CAP_SYS_PTRACE) {
		if mode := hidden(); mode != "" {
			blind = append(blind, fact.Blind{
				Source: source,
				Error:  fmt.Sprintf("/proc is mounted with %s, which may hide other users' processes altogether", mode),
				Needs:  "CAP_SYS_PTRACE",
			})
		}
	}
	return blind
}

func count(processes int) string {
	if processes == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", processes)
}

// hidden returns the option of the mount of /proc that hides processes from
// those without CAP_SYS_PTRACE, "" where there is none. hidepid=noaccess hides
// no process, only what is in it, and is counted there.
func hidden() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	return hidepid(string(mounts))
}

// hidepid reads proc_pid_mountinfo(5). The last mount on a path is the one
// that is seen. The kernel writes numbers before Linux 5.8, then words.
func hidepid(mountinfo string) (option string) {
	for line := range strings.Lines(mountinfo) {
		mount, super, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(super)
		if !ok || len(fields) < 5 || fields[4] != "/proc" || len(kind) < 3 || kind[0] != "proc" {
			continue
		}
		option = ""
		for o := range strings.SplitSeq(kind[2], ",") {
			switch o {
			case "hidepid=2", "hidepid=4", "hidepid=invisible", "hidepid=ptraceable":
				option = o
			}
		}
	}
	return option
}
