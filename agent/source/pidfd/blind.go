package pidfd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Capability is what Options needs to borrow from other users' processes.
const Capability = "CAP_SYS_PTRACE"

const source = "options"

// blindness counts the sockets whose options could not be read.
type blindness struct {
	denied    int // sockets
	processes map[int32]bool
	late      int
	lateErr   error
	failed    int
	failedErr error
}

func (b *blindness) add(l loan, err error) {
	switch {
	case gone(err):
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		b.late++
		b.lateErr = err
	case err == unix.EPERM:
		if b.processes == nil {
			b.processes = make(map[int32]bool)
		}
		b.denied++
		b.processes[l.owner().PID] = true
	default:
		b.failed++
		b.failedErr = err
	}
}

func (b *blindness) report() []fact.Blind {
	var blind []fact.Blind
	if b.denied > 0 {
		blind = append(blind, fact.Blind{
			Source: source,
			Error:  fmt.Sprintf("may not borrow TCP sockets from their processes (sockets: %d, processes: %d)", b.denied, len(b.processes)),
			Needs:  needs(),
		})
	}
	if b.late > 0 {
		blind = append(blind, fact.Blind{
			Source: source,
			Error:  fmt.Sprintf("stopped before all TCP sockets were asked (sockets left: %d): %v", b.late, b.lateErr),
			Needs:  "more time",
		})
	}
	if b.failed > 0 {
		failure := fact.Blind{
			Source: source,
			Error:  fmt.Sprintf("cannot read the options of TCP sockets (sockets: %d): %v", b.failed, b.failedErr),
		}
		switch b.failedErr {
		case unix.ENOSYS:
			failure.Needs = "Linux 5.6"
		case unix.EMFILE, unix.ENFILE:
			failure.Needs = "a higher limit of open files"
		}
		blind = append(blind, failure)
	}
	return blind
}

// needs names the right to trace, or what stands above all rights: where Yama
// forbids all tracing, no capability helps.
func needs() string {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err == nil && strings.TrimSpace(string(scope)) == "3" {
		return "kernel.yama.ptrace_scope below 3"
	}
	return Capability
}
