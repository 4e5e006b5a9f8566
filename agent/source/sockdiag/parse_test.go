package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// inetMessage makes a struct inet_diag_msg with attributes behind it.
func inetMessage(family, state, timer uint8, local, remote netip.AddrPort, attributes ...[]byte) []byte {
	b := make([]byte, inetDiagMsgLen)
	b[0], b[1], b[2] = family, state, timer
	binary.BigEndian.PutUint16(b[4:], local.Port())
	binary.BigEndian.PutUint16(b[6:], remote.Port())
	copy(b[8:24], local.Addr().AsSlice())
	copy(b[24:40], remote.Addr().AsSlice())
	for i, v := range []uint32{7, 0x2, 0x1, 1500, 3, 4, 1000, 4711} { // interface, cookie, timer, queues, uid, inode
		binary.NativeEndian.PutUint32(b[40+4*i:], v)
	}
	for _, a := range attributes {
		b = append(b, a...)
	}
	return b
}

func makeAttribute(kind uint16, value []byte) []byte {
	b := make([]byte, attributeLen, attributeLen+len(value)+3)
	binary.NativeEndian.PutUint16(b, uint16(attributeLen+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func native32(v ...uint32) (b []byte) {
	for _, v := range v {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func makeMessage(kind, flags uint16, body []byte) []byte {
	b := request(kind, len(body))
	binary.NativeEndian.PutUint16(b[6:], flags)
	copy(b[headerLen:], body)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func TestParseInet(t *testing.T) {
	want := fact.Socket{
		Family: fact.IPv4, State: fact.Established, Interface: 7, Cookie: 0x1_0000_0002,
		Timer: fact.TimerKeepAlive, TimerLeft: 1500 * time.Millisecond,
		RecvQueue: 3, SendQueue: 4, UID: 1000, Inode: 4711,
		Local: netip.MustParseAddrPort("10.0.0.1:80"), Remote: netip.MustParseAddrPort("192.0.2.7:40000"),
		Mark: fact.Seen[uint32](9), Cgroup: 12,
	}
	unknown := makeAttribute(999, []byte("from the future"))
	attributes := [][]byte{unknown, makeAttribute(inetDiagMark, native32(9)), makeAttribute(inetDiagCgroupID, binary.NativeEndian.AppendUint64(nil, 12))}

	var got fact.Socket
	info, err := parseInet(&got, inetMessage(unix.AF_INET, 1, 2, want.Local, want.Remote, attributes...))
	if err != nil || info != nil {
		t.Fatalf("info %v, error %v", info, err)
	}
	equal(t, got, want)

	got, want.Mapped = fact.Socket{}, true
	local := netip.MustParseAddrPort("[::ffff:10.0.0.1]:80")
	remote := netip.MustParseAddrPort("[::ffff:192.0.2.7]:40000")
	if _, err := parseInet(&got, inetMessage(unix.AF_INET6, 1, 2, local, remote, attributes...)); err != nil {
		t.Fatal(err)
	}
	equal(t, got, want)
}

func equal(t *testing.T, got, want fact.Socket) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestParseInfoOfOldKernels cuts struct tcp_info where kernels before this one
// ended: what they did not have is unknown, not zero.
func TestParseInfoOfOldKernels(t *testing.T) {
	full := make([]byte, 512)
	for i := range full {
		full[i] = 1
	}
	const one32 = 0x01010101
	for _, test := range []struct {
		kernel        string
		length        int
		bytes, counts bool
		window        bool
	}{
		{"2.6", 104, false, false, false},
		{"4.1", 136, true, false, false},
		{"4.6", 160, true, true, false},
		{"5.4", 232, true, true, true},
		{"of the future", 512, true, true, true},
	} {
		var s fact.Socket
		r := &reader{sockets: []fact.Socket{}}
		body := inetMessage(unix.AF_INET, 1, 0, netip.AddrPort{}, netip.AddrPort{}, makeAttribute(inetDiagInfo, full[:test.length]))
		if err := r.tcp(body); err != nil {
			t.Fatal(err)
		}
		s = r.sockets[0]
		c := s.Conn
		if c == nil {
			t.Fatalf("Linux %s: no Conn", test.kernel)
		}
		if c.TotalRetransmit != one32 || c.LastAck != one32*time.Millisecond || c.RTO != one32*time.Microsecond || c.Probes != 1 {
			t.Errorf("Linux %s: %+v", test.kernel, *c)
		}
		if c.Acked.OK != test.bytes || c.Received.OK != test.bytes || c.SegmentsIn.OK != test.counts || c.SegmentsOut.OK != test.counts || c.SendWindow.OK != test.window {
			t.Errorf("Linux %s: %+v", test.kernel, *c)
		}
		if s.Mark.OK || s.TimerLeft != 0 {
			t.Errorf("Linux %s: mark %v, %v left of no timer", test.kernel, s.Mark, s.TimerLeft)
		}
	}
	for _, length := range []int{0, 1, 103} {
		r := &reader{}
		if err := r.tcp(inetMessage(unix.AF_INET, 1, 0, netip.AddrPort{}, netip.AddrPort{}, makeAttribute(inetDiagInfo, full[:length]))); err != nil || r.sockets[0].Conn != nil {
			t.Errorf("%d bytes of tcp_info: error %v, Conn %v", length, err, r.sockets[0].Conn)
		}
	}
}

func TestMalformedSocketsAreDropped(t *testing.T) {
	r := &reader{}
	for name, parse := range map[string]func([]byte) error{"tcp": r.tcp, "udp": r.udp, "unix": r.unix} {
		for _, body := range [][]byte{nil, {unix.AF_UNIX}, make([]byte, 15), make([]byte, 200)} {
			if err := parse(body); !errors.Is(err, errMalformed) || len(r.sockets) != 0 {
				t.Errorf("%s of %d bytes: error %v, %d sockets", name, len(body), err, len(r.sockets))
			}
		}
	}
}

func TestUnixName(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/run/x\x00": "/run/x", "/run/x": "/run/x", "\x00abstract": "@abstract", "\x00a\x00b": "@a@b", "\x00": "@",
	} {
		if got := string(unixName([]byte(in))); got != want {
			t.Errorf("%q is named %q, want %q", in, got, want)
		}
	}
}

// TestPathsAreShared: what thousands of sockets have in common is kept once.
func TestPathsAreShared(t *testing.T) {
	r := &reader{}
	r.path([]byte("/run/docker.sock"))
	path := []byte("/run/docker.sock")
	if n := testing.AllocsPerRun(100, func() { r.path(path) }); n != 0 {
		t.Errorf("%v allocations for a path seen before", n)
	}
}

func FuzzInet(f *testing.F) {
	local, remote := netip.MustParseAddrPort("[::ffff:10.0.0.1]:80"), netip.MustParseAddrPort("[::]:0")
	f.Add([]byte{})
	f.Add(inetMessage(unix.AF_INET, 1, 2, local, remote))
	f.Add(inetMessage(unix.AF_INET6, 10, 9, local, remote, makeAttribute(inetDiagMark, native32(1)), makeAttribute(inetDiagInfo, make([]byte, 280))))
	f.Add(inetMessage(unix.AF_INET6, 1, 0, local, netip.MustParseAddrPort("[2001:db8::1]:443"))) // no kernel says so
	f.Add(inetMessage(unix.AF_INET6, 1, 0, remote, remote, makeAttribute(inetDiagInfo, make([]byte, 103)), []byte{200, 0, 2, 0}))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &reader{}
		if err := r.tcp(body); err != nil {
			if len(r.sockets) != 0 {
				t.Fatal("a socket was kept of", err)
			}
			return
		}
		s := r.sockets[0]
		if s.Local.Addr().Is4() != (s.Family == fact.IPv4) || s.Remote.Addr().Is4() != (s.Family == fact.IPv4) {
			t.Fatalf("family %v with %v and %v", s.Family, s.Local, s.Remote)
		}
		if s.TimerLeft < 0 {
			t.Fatalf("%v left", s.TimerLeft)
		}
	})
}

func FuzzUnix(f *testing.F) {
	message := append([]byte{unix.AF_UNIX, 1, 1, 0}, native32(17, 1, 2)...)
	f.Add([]byte{})
	f.Add(message)
	f.Add(slices.Concat(message, makeAttribute(unixDiagName, []byte("\x00abstract\x00x"))))
	f.Add(slices.Concat(message, makeAttribute(unixDiagQueue, native32(1, 2)), makeAttribute(unixDiagPeer, native32(3))))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &reader{}
		if err := r.unix(body); (err == nil) != (len(r.sockets) == 1) {
			t.Fatalf("error %v with %d sockets", err, len(r.sockets))
		}
	})
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte{}, uint16(18))
	f.Add(makeMessage(18, 0, make([]byte, 72)), uint16(18))
	f.Add(append(makeMessage(20, unix.NLM_F_DUMP_INTR, []byte("abc")), makeMessage(unix.NLMSG_DONE, 0, native32(0))...), uint16(20))
	f.Add(makeMessage(unix.NLMSG_ERROR, 0, native32(1<<31)), uint16(20))
	f.Add(makeMessage(unix.NLMSG_DONE, 0, nil)[:15], uint16(20))
	f.Fuzz(func(t *testing.T, datagram []byte, kind uint16) {
		a := answers{kind: kind}
		total := 0
		_, err := a.read(datagram, func(body []byte) { total += headerLen + len(body) })
		if total > len(datagram) {
			t.Fatalf("%d bytes of messages in %d, error %v", total, len(datagram), err)
		}
	})
}
