package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/source/capability"
)

// Capabilities are what Open needs: the first to load a program, the second
// for one that reads the kernel's memory.
const Capabilities = "CAP_BPF and CAP_PERFMON"

const needsKernel = "Linux 5.11 with CONFIG_DEBUG_INFO_BTF"

// Error is why BPF does not show the owners: it is [fs.ErrPermission] where
// rights are missing, [errors.ErrUnsupported] where it is the kernel that
// cannot or will not, and neither when something else failed.
type Error struct {
	Err   error
	Needs string // what would show them, for [fact.Blind]; "" when unknown
}

func (e *Error) Error() string { return "owners by BPF: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// explain turns what the kernel or the loader said into what is missing.
//
// The verifier's EACCES is no matter of rights, so only EPERM counts as such,
// and the rest of the chain is kept as text.
func explain(err error) *Error {
	version, versionErr := features.LinuxVersionCode()
	switch {
	case errors.Is(err, unix.EPERM):
		needs := capability.Missing(Capabilities, unix.CAP_BPF, unix.CAP_PERFMON)
		if capability.Held(unix.CAP_SYS_ADMIN) { // stands for both
			needs = capability.Policy
		}
		return &Error{fmt.Errorf("%w: %v", fs.ErrPermission, err), needs}
	case versionErr == nil && version < 5<<16|11<<8:
		return &Error{fmt.Errorf("%w before Linux 5.11: %v", errors.ErrUnsupported, err), needsKernel}
	case errors.Is(err, ebpf.ErrNotSupported):
		return &Error{fmt.Errorf("%w: %v", errors.ErrUnsupported, err), needsKernel}
	case rejected(err) && confidential():
		return &Error{fmt.Errorf("%w under kernel lockdown: %v", errors.ErrUnsupported, err), "kernel lockdown not in mode confidentiality"}
	case rejected(err):
		return &Error{fmt.Errorf("%w: the kernel's verifier refuses: %v", errors.ErrUnsupported, err), ""}
	}
	return &Error{Err: err}
}

func rejected(err error) bool {
	var v *ebpf.VerifierError
	return errors.As(err, &v)
}

// confidential says whether lockdown keeps BPF from reading the kernel's
// memory, LOCKDOWN_BPF_READ_KERNEL in kernel/trace/bpf_trace.c.
func confidential() bool {
	mode, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && strings.Contains(string(mode), "[confidentiality]")
}
