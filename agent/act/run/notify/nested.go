//go:build linux

package notify

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Hail is an address of no family, as long as one of IPv4, that no program
// connects to; Here is the error that a listener of Lifeline's gives to connecting
// to it. Without one it is EINVAL or EAFNOSUPPORT.
const (
	Here = unix.EOWNERDEAD
	Hail = "\xff\xfflifeline run?\x00"
)

// Active reports that such a listener is told of the calls of this process already.
func Active() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	call := []byte(Hail)
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&call[0])), uintptr(len(call)))
	return errno == Here
}
