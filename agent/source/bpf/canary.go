package bpf

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// canary is a socket of our own that a pass must show. By it a pass is known
// to see what it must, to number processes as we do, and to read the options
// from where this kernel keeps them; and it tells how many jiffies make a
// second, which the kernel tells nobody else.
type canary struct {
	fd    int
	inode uint32
}

// The options of the canary: no two alike, none a default.
const (
	canaryIdle     = 101 // seconds
	canaryInterval = 53  // seconds
	canaryCount    = 7
	canaryTimeout  = 12345 // milliseconds
)

func newCanary() (canary, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return canary{}, os.NewSyscallError("socket", err)
	}
	for _, option := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, canaryIdle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, canaryInterval},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, canaryCount},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, canaryTimeout},
	} {
		if err := unix.SetsockoptInt(fd, option.level, option.name, option.value); err != nil {
			unix.Close(fd)
			return canary{}, os.NewSyscallError("setsockopt", err)
		}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		unix.Close(fd)
		return canary{}, os.NewSyscallError("fstat", err)
	}
	return canary{fd, uint32(stat.Ino)}, nil
}

func (c canary) close() { unix.Close(c.fd) }

// find looks for the canary among the records and returns the jiffies of a
// second.
func (c canary) find(raw []byte) (hz uint32, err error) {
	if len(raw)%recordSize != 0 {
		return 0, blind("it returned %d bytes, which are no whole records", len(raw))
	}
	err = blind("it does not show a socket of this process")
	for ; len(raw) > 0; raw = raw[recordSize:] {
		r := record(raw)
		if r.Inode != c.inode {
			continue
		}
		if int(r.Pid) == os.Getpid() && int(r.Fd) == c.fd {
			return canaryHz(r)
		}
		// Not yet wrong: a child between fork and exec has it too.
		err = blind("it says that descriptor %d of process %d is %d of %d", c.fd, os.Getpid(), r.Fd, r.Pid)
	}
	return 0, err
}

func canaryHz(r ownersRecord) (uint32, error) {
	hz := r.KeepaliveTime / canaryIdle
	if hz == 0 || r.KeepaliveTime != hz*canaryIdle || r.KeepaliveIntvl != hz*canaryInterval ||
		r.KeepaliveProbes != canaryCount || r.UserTimeout != canaryTimeout || r.Keepalive != 1 || r.Tcp != 1 {
		return 0, blind("it misreads the options of a socket: %+v", r)
	}
	return hz, nil
}

func blind(format string, args ...any) *Error {
	return &Error{Err: fmt.Errorf("%w: "+format, append([]any{errors.ErrUnsupported}, args...)...)}
}
