//go:build linux

package evac

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

var (
	tuple4 = tuple{netip.MustParseAddrPort("10.77.1.2:4711"), netip.MustParseAddrPort("10.77.2.2:8080")}
	tuple6 = tuple{netip.MustParseAddrPort("[fd77:1::2]:4711"), netip.MustParseAddrPort("[fd77:2::2]:8080")}
)

// elements is a message as the kernel sends it for the elements of a set.
func elements(t testing.TB, answers ...answer) []byte {
	t.Helper()
	m, err := message(unix.NFT_MSG_NEWSETELEM, 0, func(a *attributes) {
		a.String(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		nested(a, unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(a *attributes) {
			for _, one := range answers {
				nested(a, unix.NFTA_LIST_ELEM, func(a *attributes) {
					nested(a, unix.NFTA_SET_ELEM_KEY, func(a *attributes) { a.Bytes(unix.NFTA_DATA_VALUE, one.key()) })
				})
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.Data
}

func TestElements(t *testing.T) {
	want := []answer{{tuple4, false}, {tuple4, true}, {tuple6, true}}
	var got []answer
	if err := parseElements(elements(t, want...), func(a answer) { got = append(got, a) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzElements(f *testing.F) {
	f.Add(elements(f, answer{tuple4, true}, answer{tuple6, false}))
	f.Add([]byte{})
	f.Add(elements(f, answer{tuple4, true})[:50])
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = parseElements(data, func(a answer) {
			if back, ok := parseAnswer(a.key()); !ok || back != a {
				t.Errorf("%v became %v", a, back)
			}
		})
	})
}

// Whole packets but for the checksum, which is summed up in another way.
func TestNudge(t *testing.T) {
	for _, c := range []struct {
		w      tuple
		header int
		octets int
		want   string
	}{
		{tuple4, sizeofIPv4, 1, "45000029000000004006" + "0000" + "0a4d0102" + "0a4d0202" + "12671f90" + "01020304" + "0a0b0c0d" + "50100000"},
		{tuple6, sizeofIPv6, 1, "6000000000150640" + "fd770001000000000000000000000002" + "fd770002000000000000000000000002" + "12671f90" + "01020304" + "0a0b0c0d" + "50100000"},
		{tuple4, sizeofIPv4, 0, "45000028000000004006" + "0000" + "0a4d0102" + "0a4d0202" + "12671f90" + "01020304" + "0a0b0c0d" + "50100000"},
		{tuple6, sizeofIPv6, 0, "6000000000140640" + "fd770001000000000000000000000002" + "fd770002000000000000000000000002" + "12671f90" + "01020304" + "0a0b0c0d" + "50100000"},
	} {
		p := nudge(c.w.from, c.w.to, 0x01020304, 0x0a0b0c0d, c.octets)
		if got := hex.EncodeToString(p[:c.header+sizeofTCP-4]); got != c.want {
			t.Errorf("%v:\ngot  %s\nwant %s", c.w, got, c.want)
		}
		if len(p) != c.header+sizeofTCP+c.octets {
			t.Errorf("%v: %d bytes", c.w, len(p))
		}
		// RFC 1071: with its checksum in place, the sum over all is all ones.
		sum := uint32(unix.IPPROTO_TCP + sizeofTCP + c.octets)
		addresses := p[12:20]
		if c.header == sizeofIPv6 {
			addresses = p[8:40]
		}
		for _, part := range [][]byte{addresses, append(p[c.header:], make([]byte, c.octets)...)} {
			for i := 0; i < len(part); i += 2 {
				sum += uint32(binary.BigEndian.Uint16(part[i:]))
			}
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
		if sum != 0xffff {
			t.Errorf("%v: the checksum is wrong: %#x", c.w, sum)
		}
	}
}

// A batch as large as they come must fit into netlink's 16-bit lengths.
func TestLargestBatch(t *testing.T) {
	if size := mostAtOnce * (ipv6.keySize() + 3*unix.SizeofNlAttr); size > 1<<16-1-unix.SizeofNlAttr {
		t.Errorf("%d bytes in one attribute", size)
	}
	var b batch
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create, func(a *attributes) {
		a.Bytes(1, make([]byte, 1<<16))
	})
	if b.commit(nil) == nil {
		t.Error("a batch that does not fit was sent")
	}
}
