package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// A socket is found as Read shows it, of whatever family, and only it.
func TestGet(t *testing.T) {
	quiet(t, func(inode uint32) error {
		var fds closer
		defer fds.close()
		read, err := connected(&fds, inode)
		if err != nil {
			return err
		}
		var keys []Key
		kinds := make(map[string]int)
		for i := range read {
			s := &read[i]
			keys = append(keys, KeyOf(s))
			kinds[fmt.Sprint(s.Family, s.Mapped)]++
			for name, key := range map[string]Key{
				"its key":             keys[i],
				"no cookie":           {Local: s.Local, Remote: s.Remote},
				"addresses as ::ffff": {Local: asMapped(s.Local), Remote: asMapped(s.Remote), Cookie: s.Cookie},
			} {
				got, err := Get(nil, inode, []Key{key})
				if err != nil || len(got) != 1 || !alike(&got[0], s) {
					t.Errorf("%s: got %+v, %v; Read has %+v", name, got, err, s)
				}
			}
			for name, key := range map[string]Key{
				"cookie of another": {Local: s.Local, Remote: s.Remote, Cookie: s.Cookie + 1<<40},
				"gone":              {Local: s.Local, Remote: netip.AddrPortFrom(s.Remote.Addr(), 1), Cookie: s.Cookie},
				"a listener's":      {Local: s.Local, Remote: netip.AddrPortFrom(s.Remote.Addr(), 1)},
			} {
				got, err := Get(nil, inode, []Key{key})
				if err != nil || len(got) != 0 {
					t.Errorf("%s: got %+v, %v", name, got, err)
				}
			}
		}
		if kinds["ipv4 false"] == 0 || kinds["ipv4 true"] == 0 || kinds["ipv6 false"] == 0 {
			t.Errorf("the sockets are %v", kinds)
		}
		before := []fact.Socket{{Inode: 1}}
		got, err := Get(before, inode, keys)
		if err != nil || len(got) != 1+len(read) || got[0].Inode != 1 {
			return fmt.Errorf("all: %d sockets, %v", len(got)-1, err)
		}
		for i := range read {
			if !alike(&got[1+i], &read[i]) {
				t.Errorf("%d of all: got %+v; Read has %+v", i, got[1+i], read[i])
			}
		}
		fds.close()
		for _, s := range must(Get(nil, inode, keys)) {
			if s.State == fact.Established {
				t.Errorf("closed, but got %+v", s)
			}
		}
		return nil
	})
}

// connected makes connections of all families and returns their sockets.
func connected(fds *closer, inode uint32) ([]fact.Socket, error) {
	four, err := fds.listen(unix.AF_INET, loopback4, 1)
	if err != nil {
		return nil, err
	}
	six, err := fds.listen(unix.AF_INET6, loopback6, 1)
	if err != nil {
		return nil, err
	}
	both, err := fds.listen(unix.AF_INET6, &unix.SockaddrInet6{}, 1)
	if err != nil {
		return nil, err
	}
	at, err := unix.Getsockname(both)
	if err != nil {
		return nil, err
	}
	_, _, err4 := fds.connection(four)
	_, _, err6 := fds.connection(six)
	_, errDial := fds.dial(unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: loopback4.Addr, Port: at.(*unix.SockaddrInet6).Port})
	_, errAccept := fds.accept(both)
	if err := errors.Join(err4, err6, errDial, errAccept); err != nil {
		return nil, err
	}
	sockets, err := Read(nil, inode, Want{TCP: true})
	return slices.DeleteFunc(sockets, func(s fact.Socket) bool { return s.State == fact.Listen }), err
}

// alike reports whether two sockets are the same, and both have a Conn or none.
func alike(a, b *fact.Socket) bool {
	x, y := *a, *b
	same := (x.Conn == nil) == (y.Conn == nil)
	x.Conn, y.Conn = nil, nil
	x.TimerLeft, y.TimerLeft = 0, 0
	return same && reflect.DeepEqual(x, y)
}

func asMapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

func must(s []fact.Socket, err error) []fact.Socket {
	if err != nil {
		panic(err)
	}
	return s
}

// More than fit into the socket's buffer are asked for again, in parts.
func TestGetMany(t *testing.T) {
	quiet(t, func(inode uint32) error {
		var fds closer
		defer fds.close()
		listener, err := fds.listen(unix.AF_INET, loopback4, 1)
		if err != nil {
			return err
		}
		for range 200 {
			if _, _, err := fds.connection(listener); err != nil {
				return err
			}
		}
		read, err := Read(nil, inode, Want{TCP: true})
		if err != nil {
			return err
		}
		read = slices.DeleteFunc(read, func(s fact.Socket) bool { return s.State == fact.Listen })
		keys := []Key{{Local: read[0].Local, Remote: read[0].Local}} // nobody's
		for i := range read {
			keys = append(keys, KeyOf(&read[i]))
		}
		got, err := Get(nil, inode, keys)
		r := &reader{netns: inode}
		errAtOnce := r.get(keys, make([]byte, bufferSize))
		g, err2 := NewGetter(inode)
		if err2 != nil {
			return err2
		}
		defer g.Close()
		again, err2 := g.Get(nil, keys[:20])
		if err2 == nil {
			again, err2 = g.Get(again, keys[20:])
		}
		for name, got := range map[string][]fact.Socket{"Get": got, "all at once": r.sockets, "a Getter": again} {
			if !slices.EqualFunc(got, read, func(a, b fact.Socket) bool { return alike(&a, &b) }) {
				t.Errorf("%s: %d sockets of %d, or not the same", name, len(got), len(read))
			}
		}
		return errors.Join(err, errAtOnce, err2)
	})
}

func TestGetInvalid(t *testing.T) {
	four, six := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8::1]:80")
	for _, key := range []Key{{}, {Local: four}, {Remote: six}, {Local: four, Remote: six}} {
		got, err := Get(nil, 1, []Key{key})
		var named *Error
		if len(got) != 0 || !errors.Is(err, os.ErrInvalid) || !errors.As(err, &named) {
			t.Errorf("%+v: got %+v, %v", key, got, err)
		}
	}
}

// What the kernel is not known to answer is an error and never a socket too many.
func FuzzFound(f *testing.F) {
	key := Key{Local: netip.MustParseAddrPort("0.0.0.0:0"), Remote: netip.MustParseAddrPort("0.0.0.0:0")}
	answer := func(kind uint16, sequence uint32, body []byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(headerLen+len(body)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, 0)
		b = binary.NativeEndian.AppendUint32(b, sequence)
		return append(append(b, 0, 0, 0, 0), body...)
	}
	socket := make([]byte, inetDiagMsgLen)
	socket[0] = unix.AF_INET
	gone := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff-uint32(unix.ENOENT)+1))
	f.Add(answer(sockDiagByFamily, 7, socket))
	f.Add(answer(unix.NLMSG_ERROR, 7, gone))
	f.Add(slices.Concat(answer(sockDiagByFamily, 7, socket), answer(unix.NLMSG_ERROR, 8, gone)))
	f.Add(answer(sockDiagByFamily, 8, socket))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		r := &reader{}
		keys := []Key{key, key}
		n, err := r.found(datagram, keys, 7)
		if n > len(keys) || len(r.sockets) > len(keys) || err != nil && n != 0 {
			t.Errorf("%x: %d answers, %d sockets, %v", datagram, n, len(r.sockets), err)
		}
		for i := range r.sockets {
			if err == nil && !key.is(&r.sockets[i]) {
				t.Errorf("%x: %+v", datagram, r.sockets[i])
			}
		}
	})
}

// BenchmarkGet asks for 20 sockets among 30,000.
func BenchmarkGet(b *testing.B) {
	crowded(b, func(inode uint32) error {
		read, err := Read(nil, inode, Want{TCP: true})
		if err != nil {
			return err
		}
		var keys []Key
		for i := range read {
			if read[i].State == fact.Established && len(keys) < 20 {
				keys = append(keys, KeyOf(&read[i]))
			}
		}
		b.ReportAllocs()
		var sockets []fact.Socket
		for b.Loop() {
			if sockets, err = Get(sockets[:0], inode, keys); err != nil || len(sockets) != len(keys) {
				return fmt.Errorf("%d sockets: %w", len(sockets), err)
			}
		}
		return nil
	})
}
