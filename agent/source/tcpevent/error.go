package tcpevent

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// Capabilities are what Open needs: the first to load a program, the second
// for one that reads the kernel's memory.
const Capabilities = "CAP_BPF and CAP_PERFMON"

const (
	oldest      = 5<<16 | 9<<8  // has the helpers, and the ring buffer of 5.8
	unlimited   = 5<<16 | 11<<8 // does not count BPF against RLIMIT_MEMLOCK
	needsKernel = "Linux 5.9 with CONFIG_DEBUG_INFO_BTF"
	needsMemory = "Linux 5.11, or RLIMIT_MEMLOCK (LimitMEMLOCK= of the unit) of 1 MiB"
)

// Error is why there are no events: it is [fs.ErrPermission] where rights are
// missing, [errors.ErrUnsupported] where it is the kernel that cannot or will
// not, and neither when something else failed.
type Error struct {
	Err   error
	Needs string // what would bring them, for fact.Blind; "" when unknown
}

func (e *Error) Error() string {
	if e.Needs != "" {
		return "events of TCP by BPF: " + e.Err.Error() + "; needs " + e.Needs
	}
	return "events of TCP by BPF: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// explain turns what the kernel or the loader said into what is missing.
func explain(err error) *Error {
	version, versionErr := features.LinuxVersionCode()
	if versionErr != nil {
		version = unlimited
	}
	return explainOn(version, err)
}

// explainOn is explain on a kernel of that version.
//
// The verifier's EACCES is no matter of rights, so only EPERM counts as such,
// and the rest of the chain is kept as text.
func explainOn(version uint32, err error) *Error {
	held := capability.Held(unix.CAP_SYS_ADMIN) || capability.Held(unix.CAP_BPF) && capability.Held(unix.CAP_PERFMON)
	var refused *ebpf.VerifierError
	switch {
	case version < oldest:
		return &Error{fmt.Errorf("%w before Linux 5.9: %v", errors.ErrUnsupported, err), needsKernel}
	case version < unlimited && held && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOMEM)):
		return &Error{fmt.Errorf("%w here: memory for BPF is limited: %v", errors.ErrUnsupported, err), needsMemory}
	case errors.Is(err, unix.EPERM) && held:
		return &Error{fmt.Errorf("%w: %v", fs.ErrPermission, err), capability.Policy}
	case errors.Is(err, unix.EPERM):
		return &Error{fmt.Errorf("%w: %v", fs.ErrPermission, err), Capabilities}
	case errors.Is(err, ebpf.ErrNotSupported):
		return &Error{fmt.Errorf("%w: %v", errors.ErrUnsupported, err), needsKernel}
	case errors.As(err, &refused):
		return &Error{fmt.Errorf("%w: the kernel's verifier refuses: %v", errors.ErrUnsupported, err), ""}
	}
	return &Error{Err: err}
}
