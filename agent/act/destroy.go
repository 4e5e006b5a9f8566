package act

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// sockDestroy is SOCK_DESTROY of linux/sock_diag.h, Linux 4.5.
const sockDestroy = 21

// destroyLen is a struct nlmsghdr and a struct inet_diag_req_v2 of
// linux/inet_diag.h.
const destroyLen = unix.NLMSG_HDRLEN + 56

// mostAtOnce is how many requests go into one datagram. The kernel answers all
// of them before the send returns, so the answers must fit into the receive
// buffer: 64 of them take less than half of the default one.
const mostAtOnce = 64

// patience is how long the kernel may say nothing. It answers inside the send,
// so a healthy kernel never uses any of it.
const patience = 5 * time.Second

var errMalformed = errors.New("malformed netlink message")

// destroyer is a sock_diag socket of one network namespace.
type destroyer struct {
	fd       int
	sequence uint32
	buf      [16 << 10]byte
}

// newDestroyer opens a socket in the calling thread's namespace, which it keeps
// speaking for wherever it is used.
func newDestroyer() (*destroyer, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return &destroyer{fd: fd}, nil
}

func (d *destroyer) close() { unix.Close(d.fd) }

// destroy asks the kernel to destroy sockets, mostAtOnce at most, and calls
// answered with the index and the result of each. An error means that the
// answers, or the rest of them, did not come.
func (d *destroyer) destroy(sockets []*fact.Socket, answered func(i int, result unix.Errno)) error {
	first := d.sequence + 1
	request := make([]byte, 0, len(sockets)*destroyLen)
	for _, s := range sockets {
		d.sequence++
		request = appendDestroy(request, s, d.sequence)
	}
	if err := d.send(request); err != nil {
		return err
	}
	done, left := make([]bool, len(sockets)), len(sockets)
	note := func(datagram []byte) error {
		return results(datagram, func(sequence uint32, result unix.Errno) {
			if i := sequence - first; i < uint32(len(sockets)) && !done[i] {
				done[i] = true
				answered(int(i), result)
				left--
			}
		})
	}
	for left > 0 {
		b, err := d.receive()
		if errors.Is(err, unix.ENOBUFS) && len(sockets) > 1 {
			return d.again(sockets, done, note, answered)
		}
		if err == nil {
			err = note(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// again asks once more, one by one, about those whose answers did not fit into
// the receive buffer. Whoever was destroyed the first time is said to be gone.
func (d *destroyer) again(sockets []*fact.Socket, done []bool, note func([]byte) error, answered func(i int, result unix.Errno)) error {
	for { // the answers that did fit: all came before the send returned
		n, from, err := unix.Recvfrom(d.fd, d.buf[:], unix.MSG_DONTWAIT)
		if err != nil {
			break
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 {
			if err := note(d.buf[:n]); err != nil {
				return err
			}
		}
	}
	for i := range sockets {
		if done[i] {
			continue
		}
		if err := d.destroy(sockets[i:i+1], func(_ int, result unix.Errno) { answered(i, result) }); err != nil {
			return err
		}
	}
	return nil
}

// appendDestroy appends the request to destroy s. The kernel finds an IPv6
// socket that speaks IPv4 by its IPv4 addresses: in its tables it is an IPv4
// connection (inet_diag_find_one_icsk in net/ipv4/inet_diag.c).
func appendDestroy(b []byte, s *fact.Socket, sequence uint32) []byte {
	const (
		family, protocol, states    = 0, 1, 4 // inet_diag_req_v2
		sport, dport, src, dst      = 8, 10, 12, 28
		device, cookieLow, cookieHi = 44, 48, 52
	)
	n := len(b)
	b = append(b, make([]byte, destroyLen)...)
	m := b[n:]
	binary.NativeEndian.PutUint32(m, destroyLen)
	binary.NativeEndian.PutUint16(m[4:], sockDestroy)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(m[8:], sequence)
	r := m[unix.NLMSG_HDRLEN:]
	r[family] = unix.AF_INET6
	if s.Family == fact.IPv4 {
		r[family] = unix.AF_INET
	}
	r[protocol] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[states:], ^uint32(0))
	binary.BigEndian.PutUint16(r[sport:], s.Local.Port())
	binary.BigEndian.PutUint16(r[dport:], s.Remote.Port())
	copy(r[src:dst], s.Local.Addr().AsSlice())
	copy(r[dst:device], s.Remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(r[device:], s.Interface)
	binary.NativeEndian.PutUint32(r[cookieLow:], uint32(s.Cookie))
	binary.NativeEndian.PutUint32(r[cookieHi:], uint32(s.Cookie>>32))
	return b
}

func (d *destroyer) send(request []byte) error {
	for start := time.Now(); ; {
		err := unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == unix.EINTR && time.Since(start) < patience {
			continue
		}
		return os.NewSyscallError("sendto", err)
	}
}

// receive returns the next datagram of the kernel.
func (d *destroyer) receive() ([]byte, error) {
	for start := time.Now(); ; {
		n, from, err := unix.Recvfrom(d.fd, d.buf[:], unix.MSG_TRUNC)
		late := time.Since(start) >= patience
		sender, _ := from.(*unix.SockaddrNetlink)
		switch {
		case err == unix.EAGAIN, late && err == unix.EINTR, late && err == nil && sender.Pid != 0:
			return nil, fmt.Errorf("the kernel did not answer within %v: %w", patience, os.ErrDeadlineExceeded)
		case err == unix.EINTR:
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		case sender == nil || sender.Pid != 0: // a stranger
		case n > len(d.buf):
			return nil, fmt.Errorf("%w: %d bytes do not fit into %d", errMalformed, n, len(d.buf))
		default:
			return d.buf[:n], nil
		}
	}
}

// results calls each with the acknowledgements in one datagram. Other messages
// are passed over.
func results(b []byte, each func(sequence uint32, result unix.Errno)) error {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return fmt.Errorf("%w: a header of %d bytes", errMalformed, len(b))
		}
		n := int64(binary.NativeEndian.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > int64(len(b)) {
			return fmt.Errorf("%w: a length of %d where %d bytes are left", errMalformed, n, len(b))
		}
		body := b[unix.NLMSG_HDRLEN:n]
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			if len(body) < 4 {
				return fmt.Errorf("%w: an error of %d bytes", errMalformed, len(body))
			}
			result := int64(int32(binary.NativeEndian.Uint32(body)))
			each(binary.NativeEndian.Uint32(b[8:]), unix.Errno(max(-result, 0)))
		}
		b = b[min(int(n+3)&^3, len(b)):]
	}
	return nil
}
