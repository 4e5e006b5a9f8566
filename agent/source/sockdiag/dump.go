package sockdiag

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

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
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC)
		switch {
		case err == nil:
		case err == unix.EINTR && time.Since(start) < patience:
			continue
		case err == unix.EAGAIN || err == unix.EINTR:
			return nil, fmt.Errorf("the kernel did not answer within %v: %w", patience, os.ErrDeadlineExceeded)
		default:
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
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
