//go:build linux

package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
)

// readMemory reads the memory of the process that a thread belongs to. It needs
// the right to trace it, ptrace(2), which an ancestor has as a rule.
func readMemory(tid int, at uint64, b []byte) error {
	return transfer("process_vm_readv", unix.SYS_PROCESS_VM_READV, tid, at, b)
}

func writeMemory(tid int, at uint64, b []byte) error {
	return transfer("process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, tid, at, b)
}

// transfer takes no memory of its own, which package unix does: every connect(2)
// waits for it.
func transfer(name string, nr uintptr, tid int, at uint64, b []byte) error {
	local, remote := unix.Iovec{Base: &b[0]}, unix.RemoteIovec{Base: uintptr(at), Len: len(b)}
	local.SetLen(len(b))
	n, _, errno := unix.Syscall6(nr, uintptr(tid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	var err error
	switch {
	case errno != 0:
		err = errno
	case int(n) != len(b):
		err = unix.EFAULT
	}
	return os.NewSyscallError(name, err)
}

// readText reads a text that ends with a zero; most bounds it.
func readText(tid int, at uint64, most int) (string, error) {
	var text []byte
	page := uint64(os.Getpagesize())
	for len(text) < most { // not over the end of a page: the next one may not be there
		part := make([]byte, min(page-at%page, uint64(most-len(text))))
		if err := readMemory(tid, at, part); err != nil {
			return "", err
		}
		if i := bytes.IndexByte(part, 0); i >= 0 {
			return string(append(text, part[:i]...)), nil
		}
		text, at = append(text, part...), at+uint64(len(part))
	}
	return "", errors.New("a text without an end")
}

func proc(tid int, name string) string { return "/proc/" + strconv.Itoa(tid) + "/" + name }

// borrow returns a copy of a descriptor of the process that made a call. It is
// that one and no other: the call still waits, or the thread is the one that had this
// number before the call, and has no other until it ends.
func (r *Redirector) borrow(c *notify.Call) (int, error) {
	if r.deny {
		return -1, unix.EPERM
	}
	fd, same, err := r.threads.borrow(int(c.TID), descriptorOf(c))
	if err == nil && !(same && r.patient) && !r.Listener.Valid(c.ID) {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, err
}

// leader returns the process that a thread belongs to.
func leader(tid int) (int, error) {
	tgid, err := status(tid, "Tgid")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(tgid)
}

// status returns one value of /proc/PID/status.
func status(tid int, key string) (string, error) {
	text, err := readAtMost(proc(tid, "status"), 1<<16)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("no %s in %s", key, proc(tid, "status"))
}

// descriptor is what /proc says of a descriptor that cannot be borrowed.
type descriptor struct {
	stream      bool // TCP; else UDP
	nonblock    bool
	closeOnExec bool
}

var errNoInet = errors.New("neither a UDP nor a TCP socket")

// describe needs only the right to look, PTRACE_MODE_READ.
func describe(tid, fd int) (d descriptor, err error) {
	name := make([]byte, 32) // sockfs_xattr_get in net/socket.c
	n, err := unix.Getxattr(proc(tid, "fd/"+strconv.Itoa(fd)), "system.sockprotoname", name)
	if err != nil {
		return d, os.NewSyscallError("getxattr", err)
	}
	switch strings.TrimRight(string(name[:n]), "\x00") {
	case "UDP", "UDPv6":
	case "TCP", "TCPv6":
		d.stream = true
	default:
		return d, errNoInet
	}
	info, err := readAtMost(proc(tid, "fdinfo/"+strconv.Itoa(fd)), 1<<12)
	if err != nil {
		return d, err
	}
	for line := range strings.Lines(string(info)) {
		if value, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 64)
			d.nonblock, d.closeOnExec = flags&unix.O_NONBLOCK != 0, flags&unix.O_CLOEXEC != 0
			return d, err
		}
	}
	return d, fmt.Errorf("no flags in fdinfo of descriptor %d", fd)
}

// readAtMost reads a file to its end, and no more of it than most.
func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
