package sockdiag

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Error says that the sockets of one protocol could not be read, or not all of
// them.
//
// It matches errors.ErrUnsupported where the kernel has no sock_diag for the
// protocol, [ErrInterrupted] where rows may be missing or doubled, and
// os.ErrDeadlineExceeded where the kernel went silent.
type Error struct {
	Protocol string      // tcp, udp, unix
	Family   fact.Family // unknown for both IPv4 and IPv6
	Err      error
}

// ErrInterrupted means that sockets came and went so fast that the kernel could
// not tell a consistent list, three times in a row. What it told last was kept.
var ErrInterrupted = errors.New("the list changed while it was read, three times: sockets may be missing or doubled")

var errMalformed = errors.New("malformed netlink message")

func (e *Error) Error() string {
	return "sockets: " + e.protocol() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) protocol() string {
	switch e.Family {
	case fact.IPv4:
		return e.Protocol + " over IPv4"
	case fact.IPv6:
		return e.Protocol + " over IPv6"
	}
	return e.Protocol
}

// failures are the errors of one Read.
type failures []*Error

// join returns nil for no failures.
func (f failures) join() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

func (f failures) Error() string {
	lines := make([]string, len(f))
	for i, e := range f {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "; ")
}

// Unwrap returns each failure, for errors.Is and errors.As.
func (f failures) Unwrap() []error {
	errs := make([]error, len(f))
	for i, e := range f {
		errs[i] = e
	}
	return errs
}

// Blind tells an error of [Read] as facts, one for each cause. A nil error
// leaves no blind spot.
func Blind(err error) []fact.Blind {
	if err == nil {
		return nil
	}
	var all failures
	if !errors.As(err, &all) {
		return []fact.Blind{{Source: "sockets", Error: err.Error()}}
	}
	var blind []fact.Blind
	for len(all) > 0 {
		cause, needs := all[0].Err.Error(), remedy(all[0])
		var same, rest []*Error
		var protocols []string
		for _, e := range all {
			if e.Err.Error() == cause && remedy(e) == needs {
				same = append(same, e)
				protocols = append(protocols, e.protocol())
			} else {
				rest = append(rest, e)
			}
		}
		if len(same) == 2 && same[0].Protocol == same[1].Protocol {
			protocols = []string{same[0].Protocol}
		}
		blind = append(blind, fact.Blind{Source: "sockets", Error: strings.Join(protocols, ", ") + ": " + cause, Needs: needs})
		all = rest
	}
	return blind
}

// remedy says what would let the sockets of e be seen.
func remedy(e *Error) string {
	switch {
	case errors.Is(e.Err, errors.ErrUnsupported):
		return "the kernel module " + e.Protocol + "_diag"
	case errors.Is(e.Err, fs.ErrPermission):
		return "permission to use NETLINK_SOCK_DIAG (seccomp or a security module forbids it)"
	}
	return ""
}

// again reports whether another attempt may succeed.
func again(err error) bool {
	return errors.Is(err, ErrInterrupted) || errors.Is(err, unix.ENOBUFS)
}

// answer makes an error of the kernel's answer to a dump request.
func answer(errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT:
		// ENOENT is what sock_diag and inet_diag answer when nobody registered
		// for the family or protocol, net/core/sock_diag.c and
		// net/ipv4/inet_diag.c.
		return fmt.Errorf("%w: the kernel has no sock_diag for it (%s)", errors.ErrUnsupported, errno.Error())
	}
	return os.NewSyscallError("sock_diag dump", errno)
}
