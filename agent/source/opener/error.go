package opener

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// Capabilities are what Open needs: to load a program, for one that reads the
// kernel's memory, and to attach to a cgroup.
const Capabilities = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"

const (
	needsKernel = "Linux 6.7 with CONFIG_DEBUG_INFO_BTF, or 5.10 with tracefs mounted on /sys/kernel/tracing"
	needsMemory = "Linux 5.11, or RLIMIT_MEMLOCK (LimitMEMLOCK= of the unit) of 16 MiB"
)

// Error is why nobody says who opened what: it is [fs.ErrPermission] where rights
// are missing, [errors.ErrUnsupported] where it is the kernel that cannot or will
// not, and neither when something else failed.
type Error struct {
	Err   error
	Needs string // what would help, for [fact.Blind]; "" when unknown
}

func (e *Error) Error() string { return "who opens sockets, by BPF: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Blind is what stays unseen for an error of this package.
func Blind(err error) fact.Blind {
	b := fact.Blind{Source: "openers", Error: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		b.Needs = e.Needs
	}
	return b
}

// explain turns what the kernel or the loader said into what is missing.
func explain(err error) *Error {
	version, versionErr := features.LinuxVersionCode()
	if versionErr != nil {
		version = 5<<16 | 11<<8
	}
	held := capability.Held(unix.CAP_SYS_ADMIN) || capability.Held(unix.CAP_BPF) && capability.Held(unix.CAP_PERFMON) && capability.Held(unix.CAP_NET_ADMIN)
	return explainOn(version, held, err)
}

// explainOn is explain on a kernel of that version, for one who holds the rights or
// does not. The verifier's EACCES is no matter of rights, so only EPERM counts as
// such; but without them the loader's own trials fail, too, and it takes that for
// what the kernel cannot do.
func explainOn(version uint32, held bool, err error) *Error {
	var refused *ebpf.VerifierError
	switch {
	case version < 5<<16|10<<8:
		return &Error{fmt.Errorf("%w before Linux 5.10: %v", errors.ErrUnsupported, err), needsKernel}
	case version < 5<<16|11<<8 && held && errors.Is(err, unix.EPERM):
		return &Error{fmt.Errorf("%w here: memory for BPF is limited: %v", errors.ErrUnsupported, err), needsMemory}
	case errors.Is(err, unix.EPERM) && held:
		return &Error{fmt.Errorf("%w: %v", fs.ErrPermission, err), capability.Policy}
	case !held && (errors.Is(err, unix.EPERM) || errors.Is(err, ebpf.ErrNotSupported)): // the rest of the chain guesses at other reasons
		return &Error{fmt.Errorf("%w: bpf(2)", fs.ErrPermission), capability.Missing(Capabilities, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN)}
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, fs.ErrNotExist), errors.As(err, &refused):
		return &Error{fmt.Errorf("%w: %v", errors.ErrUnsupported, err), needsKernel}
	}
	return &Error{Err: err}
}
