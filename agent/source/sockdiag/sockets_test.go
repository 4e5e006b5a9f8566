package sockdiag

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// closer makes sockets with plain system calls, so that they are made in the
// namespace of the calling thread, and closes them.
type closer struct{ fds []int }

func (c *closer) close() {
	for _, fd := range c.fds {
		unix.Close(fd)
	}
	c.fds = nil
}

func (c *closer) socket(family, kind int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	c.fds = append(c.fds, fd)
	return fd, nil
}

func (c *closer) bound(family, kind int, at unix.Sockaddr) (int, error) {
	fd, err := c.socket(family, kind)
	if err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("bind", unix.Bind(fd, at))
}

func (c *closer) listen(family int, at unix.Sockaddr, backlog int) (int, error) {
	fd, err := c.bound(family, unix.SOCK_STREAM, at)
	if err != nil {
		return -1, err
	}
	// An accept must not wait for ever for who does not come.
	limit := unix.Timeval{Sec: 10}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// dial connects a new socket; a connection that does not come about at once
// stays in SYN_SENT.
func (c *closer) dial(family, kind int, to unix.Sockaddr) (int, error) {
	fd, err := c.socket(family, kind)
	if err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

func (c *closer) accept(listener int) (int, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("accept", err)
	}
	c.fds = append(c.fds, fd)
	return fd, nil
}

// connection dials an IPv4 or IPv6 listener and accepts.
func (c *closer) connection(listener int) (client, server int, err error) {
	to, err := unix.Getsockname(listener)
	if err != nil {
		return -1, -1, err
	}
	family := unix.AF_INET
	if _, ok := to.(*unix.SockaddrInet6); ok {
		family = unix.AF_INET6
	}
	if client, err = c.dial(family, unix.SOCK_STREAM, to); err != nil {
		return -1, -1, err
	}
	server, err = c.accept(listener)
	return client, server, err
}

func (c *closer) pair(kind int) (a, b int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	c.fds = append(c.fds, fds[0], fds[1])
	return fds[0], fds[1], nil
}
