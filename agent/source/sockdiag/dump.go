package sockdiag

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience is how long the kernel may say nothing. A dump is made inside the
// reads themselves, so a healthy kernel never uses any of it.
const patience = 5 * time.Second

// dump sends a request to the kernel and calls each with the body of every
// answer; the body is only valid during the call. It returns how many bytes
// came. buf must hold at least 32 KiB.
//
// Every dump has a socket of its own, so nothing of a dump that failed half way
// can be taken for part of the next.
func dump(request, buf []byte, each func(body []byte)) (bytes int, err error) {
	fd, err := dial()
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := send(fd, request); err != nil {
		return 0, err
	}
	return receiveAll(fd, buf, binary.NativeEndian.Uint16(request[4:]), each)
}

// dial returns a socket to ask the kernel by, which never makes a read wait for
// longer than patience.
func dial() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err == unix.EAFNOSUPPORT || err == unix.EPROTONOSUPPORT {
		return -1, answer(err.(unix.Errno))
	}
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

func send(fd int, request []byte) error {
	for start := time.Now(); ; {
		err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == unix.EINTR && time.Since(start) < patience {
			continue
		}
		return os.NewSyscallError("sendto", err)
	}
}

// receiveAll reads the answers to one request, all of one kind, up to the
// message that ends them.
func receiveAll(fd int, buf []byte, kind uint16, each func(body []byte)) (bytes int, err error) {
	a := answers{kind: kind}
	for {
		b, err := receive(fd, buf)
		if err != nil {
			return bytes, err
		}
		bytes += len(b)
		if done, err := a.read(b, each); done || err != nil {
			return bytes, err
		}
	}
}

// receive returns the next datagram that the kernel, and nobody else, sent.
func receive(fd int, buf []byte) ([]byte, error) {
	for start := time.Now(); ; {
		n, sender, err := receiveReady(fd, buf)
		if err == unix.EAGAIN {
			n, sender, err = receiveWaiting(fd, buf)
		}
		switch {
		case err == nil:
		case err == unix.EINTR && time.Since(start) < patience:
			continue
		case err == unix.EAGAIN || err == unix.EINTR:
			return nil, fmt.Errorf("the kernel did not answer within %v: %w", patience, os.ErrDeadlineExceeded)
		default:
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if sender != fromKernel {
			if time.Since(start) >= patience {
				return nil, fmt.Errorf("only strangers answered within %v: %w", patience, os.ErrDeadlineExceeded)
			}
			continue
		}
		if n > len(buf) {
			return nil, fmt.Errorf("%w: %d bytes do not fit into %d", errMalformed, n, len(buf))
		}
		return buf[:n], nil
	}
}

// Who sent a datagram.
const (
	fromKernel   = 0
	fromStranger = 1
)

// receiveReady takes the next datagram if it is there, as it is in a dump: the
// kernel makes each while the one before is read. It does not tell the scheduler
// that it is in a system call, which never waits here: a dump has hundreds, and for
// each that takes a while the scheduler would hand its processor to another thread.
func receiveReady(fd int, buf []byte) (n, sender int, err error) {
	var from unix.RawSockaddrNetlink
	size := uint32(unsafe.Sizeof(from))
	read, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)),
		unix.MSG_TRUNC|unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, fromStranger, errno
	}
	if size < uint32(unsafe.Sizeof(from)) || from.Family != unix.AF_NETLINK || from.Pid != 0 {
		return int(read), fromStranger, nil
	}
	return int(read), fromKernel, nil
}

// receiveWaiting waits for the next datagram, for as long as patience.
func receiveWaiting(fd int, buf []byte) (n, sender int, err error) {
	n, from, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC)
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return n, fromStranger, err
	}
	return n, fromKernel, err
}
