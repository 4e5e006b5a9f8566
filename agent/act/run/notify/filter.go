//go:build linux

package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, and the first number of x32's system calls.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
	x32        = 0x40000000
)

// Lengths of addresses: sockaddr_in, sockaddr_in6, and sockaddr_storage, which
// some programs pass whatever is in it. The path of a unix socket is mostly
// passed as sockaddr_un, 110 bytes, and is not of interest.
const (
	sizeofInet4   = unix.SizeofSockaddrInet4
	sizeofInet6   = unix.SizeofSockaddrInet6
	sizeofStorage = 128
)

// mostMuslQuery is the longest message that [Filter] looks at when it is sent:
// one question about a name of 255 bytes has 273.
const mostMuslQuery = 512

// A Filter says of which system calls the listener is told. The zero value is
// the least that names need:
//
//   - connect(2) with an address as long as those of IPv4 and IPv6 are;
//   - sendto(2) of a short message to such an address with MSG_NOSIGNAL and
//     nothing else: so asks musl (__res_msend_rc in src/network/res_msend.c), and
//     hardly anybody else does.
//
// All others, and those of other ABIs (i386, x32, 32-bit Arm), go by at the cost
// of six instructions, or of none where the kernel knows that a call can only be
// let by (Linux 5.11, seccomp_cache_check_allow in kernel/seccomp.c).
type Filter struct {
	// Notice adds what a report needs and decides nothing: execve(2),
	// execveat(2) and io_uring_setup(2).
	Notice bool
}

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func jump(code uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: code | unix.BPF_JMP | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

// argument loads the lower half of an argument; both architectures are little
// endian.
func argument(i uint32) unix.SockFilter { return load(offsetArgs + 8*i) }

var (
	allow = statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW)
	tell  = statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF)
)

// architectures are those whose calls are known here.
var architectures = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// program returns the filter as the kernel wants it.
func (f Filter) program() []unix.SockFilter {
	p := []unix.SockFilter{
		load(offsetArch),
		jump(unix.BPF_JEQ, architectures[runtime.GOARCH], 1, 0),
		allow,
		load(offsetNr),
		jump(unix.BPF_JGE, x32, 0, 1),
		allow,
	}
	p = append(p, when(unix.SYS_CONNECT,
		argument(2),
		jump(unix.BPF_JEQ, sizeofStorage, 2, 0),
		jump(unix.BPF_JGE, sizeofInet4, 0, 2),
		jump(unix.BPF_JGT, sizeofInet6, 1, 0),
		tell,
		allow)...)
	p = append(p, when(unix.SYS_SENDTO,
		argument(3),
		jump(unix.BPF_JEQ, unix.MSG_NOSIGNAL, 0, 6),
		argument(2),
		jump(unix.BPF_JGT, mostMuslQuery, 4, 0),
		argument(5),
		jump(unix.BPF_JEQ, sizeofInet4, 1, 0),
		jump(unix.BPF_JEQ, sizeofInet6, 0, 1),
		tell,
		allow)...)
	if f.Notice {
		for _, nr := range []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_IO_URING_SETUP} {
			p = append(p, when(nr, tell)...)
		}
	}
	return append(p, allow)
}

// when jumps over body unless nr is the system call. The number stays loaded for
// the next one, so body must not fall through.
func when(nr uint32, body ...unix.SockFilter) []unix.SockFilter {
	return append([]unix.SockFilter{jump(unix.BPF_JEQ, nr, 0, uint8(len(body)))}, body...)
}

// Install puts the filter on the calling thread and all that it will start, for
// ever, and returns the listener. Other threads of this process are not
// concerned. The caller must be locked to its thread and let it end.
//
// It gives up the thread's way to more rights (PR_SET_NO_NEW_PRIVS) unless it has
// CAP_SYS_ADMIN: set-user-ID programs then run without their right. The error is
// EBUSY where another listener is there already, EINVAL or ENOSYS on kernels that
// have no listeners (before Linux 5.0), and EPERM or EACCES where it is forbidden.
func (f Filter) Install() (*Listener, error) {
	if architectures[runtime.GOARCH] == 0 {
		return nil, fmt.Errorf("on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	fd, err := f.install()
	if err == unix.EACCES {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return nil, os.NewSyscallError("prctl", err)
		}
		fd, err = f.install()
	}
	if err != nil {
		return nil, os.NewSyscallError("seccomp", err)
	}
	return &Listener{fd: fd}, nil
}

func (f Filter) install() (int, error) {
	p := f.program()
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	var failed unix.Errno
	// A filter is no reason to run the program without speculative stores, which would
	// slow all that it does and is the default until Linux 5.16.
	const always = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	// Without WAIT_KILLABLE_RECV, Linux 5.19, a signal interrupts a call that the
	// listener is busy with, and the call is made again.
	for _, flags := range []uintptr{unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0} {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			flags|always, uintptr(unsafe.Pointer(&prog)))
		if errno == 0 {
			return int(fd), nil
		}
		if failed = errno; errno != unix.EINVAL {
			break
		}
	}
	return -1, failed
}
