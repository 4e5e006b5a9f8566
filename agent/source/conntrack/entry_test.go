//go:build linux

package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// attribute builds a netlink attribute.
func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func nested(kind uint16, children ...[]byte) []byte {
	var all []byte
	for _, c := range children {
		all = append(all, c...)
	}
	return attribute(kind|unix.NLA_F_NESTED, all...)
}

// someTuple is 10.0.0.1:1024 to 10.0.0.2:80.
func someTuple(kind uint16, protocol byte) []byte {
	return nested(kind,
		nested(ctaTupleIP, attribute(ctaIPv4Src, 10, 0, 0, 1), attribute(ctaIPv4Dst, 10, 0, 0, 2)),
		nested(ctaTupleProto, attribute(ctaProtoNum, protocol), attribute(ctaProtoSrcPort, 4, 0), attribute(ctaProtoDstPort, 0, 80)))
}

func someEntry(protocol byte, more ...[]byte) []byte {
	all := append(someTuple(ctaTupleOrig, protocol), someTuple(ctaTupleReply, protocol)...)
	for _, m := range more {
		all = append(all, m...)
	}
	return all
}

func TestParseEntry(t *testing.T) {
	state := func(n byte) []byte {
		return nested(ctaProtoInfo, nested(ctaProtoInfoTCP, attribute(9, 1), attribute(ctaProtoInfoTCPState, n)))
	}
	for _, c := range []struct {
		what  string
		data  []byte
		state string
		known bool
	}{
		{"TCP", someEntry(unix.IPPROTO_TCP, state(3)), "ESTABLISHED", true},
		{"TCP in a state of the future", someEntry(unix.IPPROTO_TCP, state(99)), "", true},
		{"TCP in a flowtable", someEntry(unix.IPPROTO_TCP, attribute(ctaStatus, 0, 0, 0x40, 0x0e)), "OFFLOAD", true},
		{"TCP in a network card", someEntry(unix.IPPROTO_TCP, attribute(ctaStatus, 0, 0, 0xc0, 0x0e)), "HW_OFFLOAD", true},
		{"UDP, with an attribute of the future", someEntry(unix.IPPROTO_UDP, attribute(999, 1, 2, 3)), "", true},
		{"SCTP", someEntry(unix.IPPROTO_SCTP), "", false},
	} {
		e, err := parseEntry(append(c.data, attribute(ctaTimeout, 0, 0, 1, 0)...))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if e.state() != c.state || e.known() != c.known || e.timeout != 256 ||
			e.original.source != netip.MustParseAddrPort("10.0.0.1:1024") ||
			e.reply.destination != netip.MustParseAddrPort("10.0.0.2:80") {
			t.Errorf("%s: %+v, state %q", c.what, e, e.state())
		}
	}
	for what, data := range map[string][]byte{
		"nothing":        nil,
		"one direction":  someTuple(ctaTupleOrig, unix.IPPROTO_TCP),
		"cut in the end": someEntry(unix.IPPROTO_TCP)[:60],
	} {
		if e, err := parseEntry(data); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %+v, %v; want malformed", what, e, err)
		}
	}
}

// message builds a netlink message.
func message(kind uint16, sequence uint32, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, payload...)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func TestMessages(t *testing.T) {
	const sequence = 7
	one := message(unix.NFNL_SUBSYS_CTNETLINK<<8, sequence, append(make([]byte, sizeofNfgenmsg), someEntry(unix.IPPROTO_TCP)...))
	code := func(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
	join := func(all ...[]byte) (b []byte) {
		for _, a := range all {
			b = append(b, a...)
		}
		return b
	}
	for _, c := range []struct {
		what  string
		data  []byte
		count int
		done  bool
		err   error
	}{
		{"more to come", join(one, one), 2, false, nil},
		{"the end", join(one, message(unix.NLMSG_DONE, sequence, code(0))), 1, true, nil},
		{"a bare end", join(one, message(unix.NLMSG_DONE, sequence, nil)), 1, true, nil},
		{"a failed end", join(one, message(unix.NLMSG_DONE, sequence, code(-int32(unix.ENOMEM)))), 1, true, unix.ENOMEM},
		{"refused", message(unix.NLMSG_ERROR, sequence, code(-int32(unix.EPERM))), 0, true, unix.EPERM},
		{"acknowledged", message(unix.NLMSG_ERROR, sequence, code(0)), 0, true, nil},
		{"of another question", message(unix.NLMSG_ERROR, sequence+1, code(-int32(unix.EPERM))), 0, false, nil},
		{"cut", join(one, one[:len(one)-4]), 1, false, errTruncated},
	} {
		count := 0
		done, err := messages(c.data, sequence, func(data []byte) error {
			count++
			_, err := parseEntry(data)
			return err
		})
		if count != c.count || done != c.done || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %d messages, done %v, %v", c.what, count, done, err)
		}
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	data := someEntry(unix.IPPROTO_TCP)
	if n := testing.AllocsPerRun(100, func() { _, _ = parseEntry(data) }); n != 0 {
		t.Errorf("%v allocations for each entry", n)
	}
}

func TestExplain(t *testing.T) {
	for _, err := range []error{unix.EINVAL, unix.ENOENT, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP} {
		if got := explain(err); !errors.Is(got, errors.ErrUnsupported) || !errors.Is(got, err) {
			t.Errorf("%v: %v, want unsupported", err, got)
		}
	}
	if got := explain(unix.ENOMEM); got != error(unix.ENOMEM) {
		t.Errorf("got %v", got)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add(someEntry(unix.IPPROTO_TCP))
	f.Add(someEntry(unix.IPPROTO_ICMP)[:50])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if e, err := parseEntry(data); err == nil {
			if flow := e.flow(); !flow.Source.Addr().IsValid() || !flow.ReplySource.Addr().IsValid() || flow.Timeout < 0 {
				t.Errorf("%+v", flow)
			}
		}
		_ = parseStats(data)
	})
}

func FuzzMessages(f *testing.F) {
	f.Add(message(unix.NFNL_SUBSYS_CTNETLINK<<8, 1, append(make([]byte, sizeofNfgenmsg), someEntry(unix.IPPROTO_UDP)...)))
	f.Add(message(unix.NLMSG_DONE, 1, nil))
	f.Add(message(unix.NLMSG_ERROR, 1, []byte{0xff, 0xff, 0xff, 0xff}))
	f.Fuzz(func(t *testing.T, data []byte) {
		read := 0
		_, _ = messages(data, 1, func(b []byte) error {
			read += len(b)
			_, err := parseEntry(b)
			return err
		})
		if read > len(data) {
			t.Errorf("read %d of %d bytes", read, len(data))
		}
	})
}
