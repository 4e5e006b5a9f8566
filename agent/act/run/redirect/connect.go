//go:build linux

package redirect

import (
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/act/run/notify"
	"github.com/lifeline-go/lifeline/agent/act/run/stub"
)

// handshake bounds connecting to the stub, which listens on this machine.
const handshake = 2 * time.Second

// connect leads a connect(2) to a nameserver to the stub.
func (r *Redirector) connect(c *notify.Call) answer {
	b := r.read(c, c.Args[1], c.Args[2], new(room))
	if string(b) == notify.Hail {
		r.Tally.add(r.program(c), Nested)
		return answer{errno: notify.Here}
	}
	a, ok := r.wants(c, b)
	if !ok {
		return goOn
	}
	fd, err := r.borrow(c)
	if err != nil { // as in containers of Docker
		d, err := describe(int(c.TID), descriptorOf(c))
		if err != nil {
			return r.failed(c, err)
		}
		return r.later(c, func(c *notify.Call) answer { return r.replace(c, a, d) })
	}
	defer unix.Close(fd)
	stream, err := streams(fd)
	switch {
	case err != nil:
		return goOn
	case r.netns.other(fd):
		r.Tally.add(r.program(c), Elsewhere)
		return goOn
	case stream:
		return r.connectStream(c, fd, a)
	}
	return r.connectDatagram(c, fd, a)
}

// connectDatagram needs no look at the socket before, since it can be connected
// again: one that is tied to an interface or an address from which loopback is
// not to be reached has an address of its own afterwards.
func (r *Redirector) connectDatagram(c *notify.Call, fd int, a address) answer {
	err := connectAtOnce(fd, r.stubFor(a))
	if local, ok := localAddress(fd); err == nil && ok && local.Addr().IsLoopback() {
		r.Ports.Allow(networkOf(local, false), local.Port(), false)
		r.Tally.add(r.program(c), Redirected)
		return done
	}
	return r.renew(c, fd, a, false)
}

// connectStream connects a TCP socket, which can be done once.
func (r *Redirector) connectStream(c *notify.Call, fd int, a address) answer {
	if tied(fd) {
		return r.renew(c, fd, a, true)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return r.failed(c, os.NewSyscallError("fcntl", err))
	}
	if flags&unix.O_NONBLOCK != 0 {
		return r.lead(c, fd, a)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) // it may have to wait
	if err != nil {
		return r.failed(c, os.NewSyscallError("fcntl", err))
	}
	return r.later(c, func(c *notify.Call) answer {
		defer unix.Close(own)
		return r.lead(c, own, a)
	})
}

// renew replaces a socket of which there is a copy.
func (r *Redirector) renew(c *notify.Call, fd int, a address, stream bool) answer {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return r.failed(c, os.NewSyscallError("fcntl", err))
	}
	d := descriptor{stream: stream, nonblock: flags&unix.O_NONBLOCK != 0, closeOnExec: closesOnExec(int(c.TID), descriptorOf(c))}
	return r.later(c, func(c *notify.Call) answer { return r.replace(c, a, d) })
}

func descriptorOf(c *notify.Call) int { return int(int32(c.Args[0])) }

// lead connects the program's own TCP socket to the stub.
func (r *Redirector) lead(c *notify.Call, fd int, a address) answer {
	to := r.stubFor(a)
	err := unix.Connect(fd, to.sockaddr())
	switch err {
	case nil, unix.EINPROGRESS:
	case unix.EISCONN, unix.EALREADY, unix.EINTR:
		// A signal interrupted the call when all was done but the answer, and the
		// program makes it again (before Linux 5.19; or the supervisor was lost).
		// EINTR is of a signal to Lifeline.
		if peer, ok := peerAddress(fd); ok && peer.AddrPort == to.AddrPort {
			err = nil
		} else if err != unix.EISCONN {
			err = unix.EINPROGRESS
		}
	}
	errno, _ := err.(unix.Errno)
	if err != nil && errno != unix.EINPROGRESS {
		return r.failed(c, err)
	}
	if !r.allow(fd, true, false) {
		return r.failed(c, errNoInet)
	}
	r.Tally.add(r.program(c), Redirected)
	return answer{errno: errno}
}

// replace puts a new socket, connected to the stub, in the place of the
// program's.
func (r *Redirector) replace(c *notify.Call, a address, d descriptor) answer {
	to := r.stubFor(a)
	fd, err := newSocket(to, d.stream)
	if err != nil {
		return r.failed(c, err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to.sockaddr()); err != nil && err != unix.EINPROGRESS {
		return r.failed(c, err)
	}
	if err := connected(fd); err != nil {
		return r.failed(c, err)
	}
	if err := unix.SetNonblock(fd, d.nonblock); err != nil {
		return r.failed(c, err)
	}
	r.allow(fd, d.stream, false)
	if err := r.Listener.Replace(c.ID, descriptorOf(c), fd, d.closeOnExec); err != nil {
		return r.failed(c, err)
	}
	r.Tally.add(r.program(c), Redirected)
	return done
}

func newSocket(to address, stream bool) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_DGRAM
	if to.inet6 {
		family = unix.AF_INET6
	}
	if stream {
		kind = unix.SOCK_STREAM
	}
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

// connected waits until a socket is.
func connected(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for end := time.Now().Add(handshake); ; {
		n, err := unix.Poll(fds, int(time.Until(end).Milliseconds())+1)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.ETIMEDOUT
		}
		if err != nil {
			return os.NewSyscallError("poll", err)
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return os.NewSyscallError("connect", err)
	}
}

// stubFor returns where the stub is for a socket that wanted to a.
func (r *Redirector) stubFor(a address) address {
	if a.inet6 && !a.mapped() && r.IPv6.IsValid() {
		return address{r.IPv6, true}
	}
	if a.inet6 {
		return address{netip.AddrPortFrom(netip.AddrFrom16(r.IPv4.Addr().As16()), r.IPv4.Port()), true}
	}
	return address{r.IPv4, false}
}

// allow tells the stub of the port that a socket has; ok is false when it has
// none.
func (r *Redirector) allow(fd int, stream, whole bool) (ok bool) {
	local, ok := localAddress(fd)
	if !ok || local.Port() == 0 {
		return false
	}
	r.Ports.Allow(networkOf(local, stream), local.Port(), whole)
	return true
}

// networkOf is what the stub calls the network of a socket with this address.
func networkOf(local address, stream bool) stub.Network {
	network := stub.UDP4
	if local.inet6 && local.Addr().Is6() && !local.Addr().IsUnspecified() {
		network = stub.UDP6
	}
	if stream {
		network += stub.TCP4 - stub.UDP4
	}
	return network
}

// streams reports that a socket is of TCP, and not of UDP; all others are an
// error.
func streams(fd int) (bool, error) {
	var protocol int32
	if !option(fd, unix.SO_PROTOCOL, unsafe.Pointer(&protocol), unsafe.Sizeof(protocol)) { // not a socket
		return false, errNoInet
	}
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_MPTCP:
		return true, nil
	case unix.IPPROTO_UDP:
		return false, nil
	}
	return false, errNoInet
}

// tied reports that a socket belongs to an interface or an address from which
// loopback is not to be reached.
func tied(fd int) bool {
	if local, ok := localAddress(fd); ok && !local.Addr().IsUnspecified() && !local.Addr().IsLoopback() {
		return true
	}
	device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	return err == nil && device != ""
}

// closesOnExec is a property of the descriptor and not of what it refers to, so
// that a copy does not have it.
func closesOnExec(tid, fd int) bool {
	d, err := describe(tid, fd)
	return err != nil || d.closeOnExec
}

// netns is the network namespace of the stub.
type netns struct{ cookie uint64 } // 0 before Linux 5.14

func (n *netns) find() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	n.cookie, _ = cookieOf(fd)
}

// other reports that a socket is of another one, where the stub is not. Before
// Linux 5.14 that is not known, and connecting fails.
func (n *netns) other(fd int) bool {
	cookie, ok := cookieOf(fd)
	return ok && cookie != n.cookie
}

func cookieOf(fd int) (cookie uint64, ok bool) {
	ok = option(fd, unix.SO_NETNS_COOKIE, unsafe.Pointer(&cookie), unsafe.Sizeof(cookie))
	return cookie, ok
}

// option reads one of a socket's. Neither this nor [connectAtOnce] waits for anything,
// so that Go's scheduler need not hear of them, which package unix tells it.
func option(fd, name int, value unsafe.Pointer, size uintptr) (ok bool) {
	length := uint32(size)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(name), uintptr(value), uintptr(unsafe.Pointer(&length)), 0)
	return errno == 0
}

// connectAtOnce connects a socket of UDP.
func connectAtOnce(fd int, to address) error {
	var b [unix.SizeofSockaddrInet6]byte
	to.put(b[:])
	length := uintptr(unix.SizeofSockaddrInet4)
	if to.inet6 {
		length = unix.SizeofSockaddrInet6
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&b)), length); errno != 0 {
		return errno
	}
	return nil
}

// failed lets the program do what it would have done without Lifeline.
func (r *Redirector) failed(c *notify.Call, err error) answer {
	r.Tally.fail(r.program(c), err)
	return goOn
}
