package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// Key is what [Get] finds a TCP socket by.
type Key struct {
	Local, Remote netip.AddrPort
	Interface     uint32 // that the socket is bound to, as in fact.Socket; 0 for none
	Cookie        uint64 // as in fact.Socket; 0 for whoever has the addresses now
}

// KeyOf returns the key of a socket that was read before.
func KeyOf(s *fact.Socket) Key {
	return Key{Local: s.Local, Remote: s.Remote, Interface: s.Interface, Cookie: s.Cookie}
}

// Get appends the TCP sockets that have the keys to dst, in the order of the
// keys, and returns it, as [Read] would have read them. It costs some
// microseconds for each, however many others there are. Like Read it looks at
// the namespace of the calling thread, whose inode is netns.
//
// A socket that is gone is left out, also when another has its addresses but
// not its cookie. A kernel that has no sock_diag for TCP seems to have none of
// them, its answer is the same; Read tells.
//
// An error is one [*Error], and those found before it are there.
func Get(dst []fact.Socket, netns uint32, keys []Key) ([]fact.Socket, error) {
	r := newGet(dst, netns, len(keys))
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for len(keys) > 0 {
		n := min(len(keys), mostAtOnce)
		if err := r.get(keys[:n], buf[:]); err != nil {
			return r.sockets, &Error{Protocol: "tcp", Err: err}
		}
		keys = keys[n:]
	}
	return r.sockets, nil
}

// newGet makes a reader with room for n sockets, which are mostly few.
func newGet(dst []fact.Socket, netns uint32, n int) *reader {
	return &reader{sockets: slices.Grow(dst, n), netns: netns, conns: make([]fact.Conn, min(n, mostAtOnce))}
}

// mostAtOnce is how many requests go into one datagram. The kernel answers all
// of them before the send returns, each in a buffer that counts as up to 2.3 KB,
// so that the answers take a third of what a socket may hold by default.
const mostAtOnce = 32

// get asks for some keys, and for fewer at once when the answers find no room.
func (r *reader) get(keys []Key, buf []byte) error {
	start := len(r.sockets)
	err := r.ask(keys, buf)
	if !errors.Is(err, unix.ENOBUFS) || len(keys) == 1 {
		return err
	}
	clear(r.sockets[start:])
	r.sockets = r.sockets[:start]
	half := len(keys) / 2
	if err := r.get(keys[:half], buf); err != nil {
		return err
	}
	return r.get(keys[half:], buf)
}

// ask asks for some keys over a socket of its own, so that nothing of what
// failed half way can be taken for part of the next.
func (r *reader) ask(keys []Key, buf []byte) error {
	fd, err := dial()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return r.over(fd, 0, keys, buf)
}

// over sends one datagram, whose requests are numbered from first, and reads as
// many answers as it has requests: each is answered by its socket or by an error.
func (r *reader) over(fd int, first uint32, keys []Key, buf []byte) error {
	request := make([]byte, 0, len(keys)*getLen)
	for i, k := range keys {
		var err error
		if request, err = appendGet(request, k, first+uint32(i)); err != nil {
			return err
		}
	}
	if err := send(fd, request); err != nil {
		return err
	}
	for answered := 0; answered < len(keys); {
		b, err := receive(fd, buf)
		if err != nil {
			return err
		}
		n, err := r.found(b, keys[answered:], first+uint32(answered))
		if err != nil {
			return err
		}
		answered += n
	}
	return nil
}

// Getter is [Get] for who asks again and again: it stays in the namespace in
// which it was made, from wherever it is used, and takes a tenth of the time of
// entering it anew. It keeps the namespace alive until it is closed.
type Getter struct {
	fd    int
	netns uint32
	asked uint32
}

// NewGetter returns one for the namespace of the calling thread, whose inode is
// netns.
func NewGetter(netns uint32) (*Getter, error) {
	fd, err := dial()
	if err != nil {
		return nil, &Error{Protocol: "tcp", Err: err}
	}
	return &Getter{fd: fd, netns: netns}, nil
}

// Get is what the function is. After an error the Getter is of no more use, and
// to be closed.
func (g *Getter) Get(dst []fact.Socket, keys []Key) ([]fact.Socket, error) {
	r := newGet(dst, g.netns, len(keys))
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for len(keys) > 0 {
		n := min(len(keys), mostAtOnce)
		if err := r.over(g.fd, g.asked, keys[:n], buf[:]); err != nil {
			return r.sockets, &Error{Protocol: "tcp", Err: err}
		}
		g.asked += uint32(n)
		keys = keys[n:]
	}
	return r.sockets, nil
}

// Close lets go of the namespace.
func (g *Getter) Close() error { return os.NewSyscallError("close", unix.Close(g.fd)) }

// found reads one datagram of answers, the first of which is to the first key
// and has the sequence number first, and returns how many there were.
func (r *reader) found(b []byte, keys []Key, first uint32) (answered int, err error) {
	for len(b) > 0 {
		var m message
		if m, b, err = next(b); err != nil {
			return 0, err
		}
		if answered == len(keys) || m.sequence != first+uint32(answered) {
			return 0, fmt.Errorf("%w: an answer to request %d, not %d", errMalformed, m.sequence, first+uint32(answered))
		}
		switch m.kind {
		case sockDiagByFamily:
			err = r.tcp(m.body)
			if err == nil && !keys[answered].is(&r.sockets[len(r.sockets)-1]) {
				r.drop() // a listener that would take such a connection
			}
		case unix.NLMSG_ERROR:
			var errno unix.Errno
			if errno, err = m.errno(); err == nil {
				err = refused(errno)
			}
		default:
			err = fmt.Errorf("%w: an answer of kind %d", errMalformed, m.kind)
		}
		if err != nil {
			return 0, err
		}
		answered++
	}
	return answered, nil
}

// refused makes an error of the kernel's answer to a request for one socket,
// none where that is gone: ESTALE is for a cookie that another has
// (sock_diag_check_cookie in net/core/sock_diag.c).
func refused(errno unix.Errno) error {
	switch errno {
	case unix.ENOENT, unix.ESTALE:
		return nil
	case 0:
		return fmt.Errorf("%w: an acknowledgement that nobody asked for", errMalformed)
	}
	return os.NewSyscallError("sock_diag", errno)
}

// is reports whether s has the addresses of k. The kernel compared the cookie.
func (k Key) is(s *fact.Socket) bool {
	return s.Local == unmap(k.Local) && s.Remote == unmap(k.Remote)
}

// unmap returns what fact.Socket has for an address.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// getLen is a struct nlmsghdr and a struct inet_diag_req_v2 of
// linux/inet_diag.h.
const getLen = headerLen + 56

// appendGet appends the request for one socket. The kernel finds an IPv6 socket
// that speaks IPv4 by its IPv4 addresses (inet_diag_find_one_icsk in
// net/ipv4/inet_diag.c).
func appendGet(b []byte, k Key, sequence uint32) ([]byte, error) {
	const (
		family, protocol, extensions, states = 0, 1, 2, 4 // inet_diag_req_v2
		sport, dport, src, dst               = 8, 10, 12, 28
		device, cookieLow, cookieHigh        = 44, 48, 52
	)
	local, remote := k.Local.Addr().Unmap(), k.Remote.Addr().Unmap()
	if !local.IsValid() || local.Is4() != remote.Is4() || !remote.IsValid() {
		return nil, fmt.Errorf("%w: no connection is between %v and %v", os.ErrInvalid, k.Local, k.Remote)
	}
	n := len(b)
	b = append(b, make([]byte, getLen)...)
	m := b[n:]
	binary.NativeEndian.PutUint32(m, getLen)
	binary.NativeEndian.PutUint16(m[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(m[8:], sequence)
	r := m[headerLen:]
	r[family] = unix.AF_INET6
	if local.Is4() {
		r[family] = unix.AF_INET
	}
	r[protocol] = unix.IPPROTO_TCP
	r[extensions] = 1 << (inetDiagInfo - 1)
	binary.NativeEndian.PutUint32(r[states:], ^uint32(0))
	binary.BigEndian.PutUint16(r[sport:], k.Local.Port())
	binary.BigEndian.PutUint16(r[dport:], k.Remote.Port())
	copy(r[src:dst], local.AsSlice())
	copy(r[dst:device], remote.AsSlice())
	binary.NativeEndian.PutUint32(r[device:], k.Interface)
	want := k.Cookie
	if want == 0 {
		want = ^uint64(0) // INET_DIAG_NOCOOKIE, in both halves
	}
	binary.NativeEndian.PutUint32(r[cookieLow:], uint32(want))
	binary.NativeEndian.PutUint32(r[cookieHigh:], uint32(want>>32))
	return b, nil
}
