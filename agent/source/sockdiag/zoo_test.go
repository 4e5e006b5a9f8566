package sockdiag

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

var (
	loopback4 = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	loopback6 = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	mapped    = &unix.SockaddrInet6{Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}
	linkLocal = [16]byte{0: 0xfe, 1: 0x80, 15: 1}
)

// strangerUID owns some of the sockets.
const strangerUID = 4224

// zoo makes sockets of every kind and state.
func (c *closer) zoo(dir string) error {
	if err := run("ip", "-6", "address", "add", "fe80::1/64", "dev", "lo", "nodad"); err != nil {
		return err
	}
	if err := reachable(&unix.SockaddrInet6{Addr: linkLocal, ZoneId: 1, Port: 9}); err != nil {
		return err
	}
	return errors.Join(
		c.backlog(), c.dualStack(), c.closing(loopback4), c.closing(loopback6), c.closing(mapped),
		c.slowReader(), c.deferred(), c.options(), c.datagrams(), c.unixes(dir))
}

// reachable waits until a new address works, which takes a moment: until then
// the network is unreachable, afterwards nobody listens at its discard port.
func reachable(to unix.Sockaddr) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var probe closer
		fd, err := probe.socket(unix.AF_INET6, unix.SOCK_STREAM)
		if err == nil {
			err = unix.Connect(fd, to)
		}
		probe.close()
		if err == unix.ECONNREFUSED {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// backlog leaves connections in an accept queue, and others that find it full
// in SYN_SENT.
func (c *closer) backlog() error {
	listener, err := c.listen(unix.AF_INET, loopback4, 0)
	if err != nil {
		return err
	}
	to, err := unix.Getsockname(listener)
	for i := 0; err == nil && i < 4; i++ {
		_, err = c.dial(unix.AF_INET, unix.SOCK_STREAM, to)
	}
	return err
}

// dualStack dials a listener on [::] over IPv4, IPv6 and a link-local address.
func (c *closer) dualStack() error {
	listener, err := c.listen(unix.AF_INET6, &unix.SockaddrInet6{}, 16)
	if err != nil {
		return err
	}
	at, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	port := at.(*unix.SockaddrInet6).Port
	for _, to := range []unix.Sockaddr{
		&unix.SockaddrInet4{Port: port, Addr: loopback4.Addr},
		&unix.SockaddrInet6{Port: port, Addr: mapped.Addr},
		&unix.SockaddrInet6{Port: port, Addr: loopback6.Addr},
		&unix.SockaddrInet6{Port: port, Addr: linkLocal, ZoneId: 1},
	} {
		family := unix.AF_INET6
		if _, ok := to.(*unix.SockaddrInet4); ok {
			family = unix.AF_INET
		}
		client, err := c.dial(family, unix.SOCK_STREAM, to)
		if err != nil {
			return err
		}
		if _, err := c.accept(listener); err != nil {
			return err
		}
		if _, err := unix.Write(client, []byte("not read")); err != nil {
			return err
		}
	}
	return nil
}

// closing leaves one connection half closed and one in TIME_WAIT.
func (c *closer) closing(at unix.Sockaddr) error {
	family := unix.AF_INET6
	if at == unix.Sockaddr(loopback4) {
		family = unix.AF_INET
	}
	listener, err := c.listen(family, at, 16)
	if err != nil {
		return err
	}
	client, _, err := c.connection(listener)
	if err != nil {
		return err
	}
	if err := unix.Shutdown(client, unix.SHUT_WR); err != nil {
		return err
	}
	var gone closer
	client, server, err := gone.connection(listener)
	if err != nil {
		return err
	}
	unix.Shutdown(client, unix.SHUT_WR)
	unix.Shutdown(server, unix.SHUT_WR)
	gone.close()
	return nil
}

// slowReader writes until nothing fits any more, and on another connection then
// closes: that one lives on without an inode, and probes the closed window.
func (c *closer) slowReader() error {
	listener, err := c.listen(unix.AF_INET, loopback4, 16)
	if err != nil {
		return err
	}
	for range 2 {
		client, _, err := c.connection(listener)
		if err != nil {
			return err
		}
		for err == nil {
			_, err = unix.Write(client, make([]byte, 1<<16))
		}
		if err != unix.EAGAIN {
			return err
		}
	}
	last := len(c.fds) - 2 // the client, before the server that was accepted
	unix.Close(c.fds[last])
	c.fds = append(c.fds[:last], c.fds[last+1:]...)
	return nil
}

// deferred keeps a connection in SYN_RECV: its listener waits for data.
func (c *closer) deferred() error {
	listener, err := c.listen(unix.AF_INET, loopback4, 16)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30); err != nil {
		return err
	}
	to, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	_, err = c.dial(unix.AF_INET, unix.SOCK_STREAM, to)
	return err
}

// options makes a connection with a mark, a keepalive timer, a device and
// another owner, and a listener for IPv6 only.
func (c *closer) options() error {
	unix.SetfsuidRetUid(strangerUID)
	defer unix.SetfsuidRetUid(0)
	listener, err := c.listen(unix.AF_INET, loopback4, 16)
	if err != nil {
		return err
	}
	client, _, err := c.connection(listener)
	if err != nil {
		return err
	}
	only, err := c.socket(unix.AF_INET6, unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_MARK, 0x4224),
		unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(client, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60),
		unix.SetsockoptString(client, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"),
		unix.SetsockoptInt(only, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1),
		unix.Listen(only, 7))
}

// datagrams makes UDP sockets, with and without a peer.
func (c *closer) datagrams() error {
	for _, at := range []unix.Sockaddr{loopback4, loopback6, mapped, &unix.SockaddrInet6{}} {
		family := unix.AF_INET6
		if at == unix.Sockaddr(loopback4) {
			family = unix.AF_INET
		}
		receiver, err := c.bound(family, unix.SOCK_DGRAM, at)
		if err != nil {
			return err
		}
		to, err := unix.Getsockname(receiver)
		if err != nil {
			return err
		}
		sender, err := c.dial(family, unix.SOCK_DGRAM, to)
		if err != nil {
			return err
		}
		if _, err := unix.Write(sender, []byte("not read")); err != nil {
			return err
		}
	}
	return nil
}

// unixes makes unix sockets of every kind, with a path, an abstract name with a
// zero byte inside, and none.
func (c *closer) unixes(dir string) error {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		a, _, err := c.pair(kind)
		if err != nil {
			return err
		}
		if _, err := unix.Write(a, []byte("not read")); err != nil {
			return err
		}
	}
	if _, err := c.bound(unix.AF_UNIX, unix.SOCK_DGRAM, &unix.SockaddrUnix{Name: filepath.Join(dir, "datagram")}); err != nil {
		return err
	}
	if _, err := c.socket(unix.AF_UNIX, unix.SOCK_SEQPACKET); err != nil {
		return err
	}
	for _, name := range []string{filepath.Join(dir, "stream"), "@abstract\x00name"} {
		listener, err := c.listen(unix.AF_UNIX, &unix.SockaddrUnix{Name: name}, 9)
		if err != nil {
			return err
		}
		for range 2 { // the second stays in the accept queue
			client, err := c.socket(unix.AF_UNIX, unix.SOCK_STREAM)
			if err != nil {
				return err
			}
			if err := unix.Connect(client, &unix.SockaddrUnix{Name: name}); err != nil {
				return os.NewSyscallError("connect", err)
			}
		}
		if _, err := c.accept(listener); err != nil {
			return err
		}
	}
	return nil
}
