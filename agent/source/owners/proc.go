package owners

import (
	"bytes"
	"encoding/binary"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// entries calls yield with the name of each entry that getdents64 wrote, with
// its final NUL, until yield returns false. It stops at what is no entry.
func entries(buf []byte, yield func(name []byte) bool) {
	const lengthAt, nameAt = 16, 19 // of struct linux_dirent64
	for len(buf) > nameAt {
		length := int(binary.NativeEndian.Uint16(buf[lengthAt:]))
		if length <= nameAt || length > len(buf) {
			return
		}
		end := bytes.IndexByte(buf[nameAt:length], 0)
		if end < 0 || !yield(buf[nameAt:nameAt+end+1]) {
			return
		}
		buf = buf[length:]
	}
}

// socketInode reads a link of /proc/PID/fd, socket:[4711] when it is one.
func socketInode(link []byte) (uint32, bool) {
	digits, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	digits, ok = bytes.CutSuffix(digits, []byte("]"))
	if !ok {
		return 0, false
	}
	return number(digits)
}

// number reads a decimal number without sign.
func number(digits []byte) (uint32, bool) {
	var n uint64
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		if n = n*10 + uint64(d-'0'); n > math.MaxUint32 {
			return 0, false
		}
	}
	return uint32(n), len(digits) > 0
}

// openat opens a path that ends in NUL, for reading.
//
// This and readlinkat call the kernel themselves because their counterparts in
// x/sys/unix copy each name to end it with the NUL that it has here.
func openat(dir int, path []byte) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
}

// readlinkat reads the link of that name, which ends in NUL, into buf and
// returns how much it wrote.
func readlinkat(dir int, name, buf []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
