package names

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// message is an answer to a question for A of db.corp. with these answers, as raw
// bytes; at is where the first of them begins.
func message(answers int, records ...[]byte) (m []byte) {
	m = []byte{0, 7, 0x81, 0x80, 0, 1, byte(answers >> 8), byte(answers), 0, 0, 0, 0}
	m = append(m, "\x02db\x04corp\x00\x00\x01\x00\x01"...)
	return append(m, bytes.Join(records, nil)...)
}

const at = 12 + 9 + 4

// record is one with an owner in wire form.
func record(owner string, kind dnsmessage.Type, ttl uint32, data string) []byte {
	b := []byte(owner)
	b = binary.BigEndian.AppendUint16(b, uint16(kind))
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

func TestParseAddrs(t *testing.T) {
	const self = "\xc0\x0c" // points to the name of the question
	a := func(owner, addr string) []byte { return record(owner, dnsmessage.TypeA, 60, addr) }
	cname := func(owner, to string) []byte { return record(owner, dnsmessage.TypeCNAME, 60, to) }
	name := func(s string) string { return string([]byte{byte(len(s))}) + s + "\x00" }
	chain := func(n int) (records [][]byte) {
		owner := self
		for i := range n {
			next := name(strings.Repeat("x", i+1))
			records = append(records, cname(owner, next))
			owner = next
		}
		return append(records, a(owner, "\x0a\x00\x00\x01"))
	}
	for _, c := range []struct {
		what    string
		message []byte
		want    string
		err     error // errAny: somebody else should be asked
	}{
		{"an address", message(1, a(self, "\x0a\x00\x00\x01")), "10.0.0.1", nil},
		{"an alias", message(2, chain(1)...), "10.0.0.1", nil},
		{"an alias, the address first", message(2, chain(1)[1], chain(1)[0]), "10.0.0.1", nil},
		{"many aliases", message(11, chain(10)...), "10.0.0.1", nil},
		{"too many aliases", message(31, chain(30)...), "", errNoData},
		{"an alias of itself", message(1, cname(self, self)), "", errNoData},
		{"two aliases of each other", message(2, cname(self, name("x")), cname(name("x"), self)), "", errNoData},
		{"an alias of nothing", message(1, cname(self, name("x"))), "", errNoData},
		{"an address of another name", message(1, a(name("evil"), "\x0a\x00\x00\x01")), "", errNoData},
		{"another one's among its own", message(2, a(name("evil"), "\x06\x06\x06\x06"), a(self, "\x0a\x00\x00\x01")), "10.0.0.1", nil},
		{"nothing, by one that asks others", message(0), "", errNoData},
		{"an address of five bytes", message(1, a(self, "\x0a\x00\x00\x01\x02")), "", errMalformed},
		{"an address of no bytes", message(1, a(self, "")), "", errMalformed},
		{"a name that points at itself", message(1, a("\xc0"+string([]byte{at}), "\x0a\x00\x00\x01")), "", errMalformed},
		{"two names that point at each other", message(2, a("\xc0\x29", "\x0a\x00\x00\x01"), a("\xc0\x19", "\x0a\x00\x00\x01")), "", errMalformed},
		{"a name that points beyond the end", message(1, a("\xff\xff", "\x0a\x00\x00\x01")), "", errMalformed},
		{"a label of the future", message(1, a("\x80x", "\x0a\x00\x00\x01")), "", errMalformed},
		{"fewer records than said", message(9, a(self, "\x0a\x00\x00\x01")), "", errMalformed},
		{"a record cut short", message(1, a(self, "\x0a\x00\x00\x01")[:9]), "", errMalformed},
		{"data beyond the end", message(1, append(a(self, "")[:10], 0xff, 0xff, 10)), "", errMalformed},
		{"more records than anybody has", message(65535, bytes.Repeat(a(self, "\x0a\x00\x00\x01"), 5000)), "", errMalformed},
		{"no such name", changedCode(message(0), 3), "", errNoName},
		{"a failure", changedCode(message(0), 2), "", errAny},
		{"lame", append([]byte{0, 7, 0x81, 0}, message(0)[4:]...), "", errAny},
		{"truncated", append([]byte{0, 7, 0x83}, message(0)[3:]...), "", errAny},
		{"nothing at all", nil, "", errMalformed},
	} {
		t.Run(c.what, func(t *testing.T) {
			began := time.Now()
			f, err := parseAddrs(c.message, "db.corp.", dnsmessage.TypeA)
			var texts []string
			for _, addr := range f.addrs {
				texts = append(texts, addr.String())
			}
			switch {
			case c.err == errAny && (err == nil || errors.Is(err, errNoData) || errors.Is(err, errNoName)):
				t.Errorf("%+v, %v", f, err)
			case c.err != errAny && (!errors.Is(err, c.err) || (err == nil) != (c.err == nil) || strings.Join(texts, " ") != c.want):
				t.Errorf("%+v, %v; want %q, %v", f, err, c.want, c.err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

var errAny = errors.New("any")

func changedCode(message []byte, code byte) []byte {
	message[3] = message[3]&0xF0 | code
	return message
}

func TestLifetime(t *testing.T) {
	m := message(2, record("\xc0\x0c", dnsmessage.TypeCNAME, 5, "\x01x\x00"), record("\x01x\x00", dnsmessage.TypeA, 60, "\x0a\x00\x00\x01"))
	if f, err := parseAddrs(m, "db.corp.", dnsmessage.TypeA); err != nil || f.ttl != 5*time.Second || f.canonical != "x." {
		t.Errorf("%+v, %v: the shortest of all counts", f, err)
	}
	m = message(1, record("\xc0\x0c", dnsmessage.TypeA, 1<<31, "\x0a\x00\x00\x01"))
	if f, err := parseAddrs(m, "db.corp.", dnsmessage.TypeA); err != nil || f.ttl != 0 {
		t.Errorf("%+v, %v: RFC 2181 section 8", f, err)
	}
}

func FuzzParseAddrs(f *testing.F) {
	f.Add(message(1, record("\xc0\x0c", dnsmessage.TypeA, 60, "\x0a\x00\x00\x01")))
	f.Add(message(2, record("\xc0\x0c", dnsmessage.TypeCNAME, 5, "\x01x\x00"), record("\x01x\x00", dnsmessage.TypeA, 60, "\x0a\x00\x00\x01")))
	f.Add(message(1, record("\xc0\x19", dnsmessage.TypeCNAME, 5, "\xc0\x19")))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
			found, err := parseAddrs(data, "db.corp.", kind)
			if err == nil && (len(found.addrs) == 0 || found.canonical == "" || found.ttl < 0) {
				t.Errorf("%+v", found)
			}
			for _, addr := range found.addrs {
				if err == nil && addr.Is4() != (kind == dnsmessage.TypeA) {
					t.Errorf("%v for %v", addr, kind)
				}
			}
		}
	})
}

// nscd's answers come from a daemon, whoever it is.
func FuzzNSCD(f *testing.F) {
	header := func(fields ...int32) []byte {
		var b []byte
		for _, field := range fields {
			b = binary.NativeEndian.AppendUint32(b, uint32(field))
		}
		return b
	}
	f.Add(append(header(2, 1, 1, 4, 0, 0), 10, 0, 0, 1, 2))
	f.Add(header(2, 0, 0, 0, 0, 2))
	f.Add(header(2, 1, 4096, 16*4096, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		addrs, err := readNSCD(bytes.NewReader(data), "db.corp")
		if err == nil && (len(addrs) == 0 || len(addrs) > len(data)) {
			t.Errorf("%d addresses in %d bytes", len(addrs), len(data))
		}
	})
}

func FuzzGetent(f *testing.F) {
	f.Add([]byte("10.0.0.1        STREAM db.corp\n10.0.0.1        DGRAM  \nfe80::1%lo      STREAM\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		seen := make(map[netip.Addr]bool)
		for _, addr := range parseGetent(data) {
			if seen[addr] {
				t.Errorf("%v twice", addr)
			}
			seen[addr] = true
		}
	})
}

func FuzzAddress(f *testing.F) {
	for _, text := range []string{"127.1", "0x7f.1", "010.0.0.1", "1.2.3.256", "::1", "1.2.3.4.", "0b1", "1_0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if addr, ok := address(text); ok && !addr.IsValid() {
			t.Errorf("%q", text)
		}
	})
}
