package nameways

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lifeline-go/lifeline/agent/fact"
)

// busSocket is the system bus. Its other name, DBUS_SYSTEM_BUS_ADDRESS, is the
// environment's.
const busSocket = "/run/dbus/system_bus_socket"

// busWay asks systemd-resolved for a name by org.freedesktop.resolve1, as
// resolvectl before version 254 does. It speaks just as much of the D-Bus
// Specification as two calls take, which is why there is no library for it: the
// handshake, Hello, ResolveHostname, and the answers to them.
type busWay struct{ socket string }

func (busWay) Name() string { return "dbus" }

// What is used of the D-Bus Specification's message protocol.
const (
	busCall   = 1
	busReturn = 2
	busError  = 3

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8

	busMessageMax = 1 << 20 // an answer has some hundred bytes
	busStrangers  = 64      // signals and the like that are passed over
)

func (w busWay) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", w.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	addrs, err := resolveByBus(conn, network, host)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return addrs, err
}

func resolveByBus(conn net.Conn, network, host string) ([]netip.Addr, error) {
	in := bufio.NewReaderSize(conn, 4096)
	if _, err := conn.Write([]byte("\x00AUTH EXTERNAL " + uid() + "\r\n")); err != nil {
		return nil, err
	}
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("dbus: %w", err)
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return nil, fmt.Errorf("dbus: the bus says %q to the handshake", line)
	}
	const bus = "org.freedesktop.DBus"
	hello := busMessage(1, "/org/freedesktop/DBus", bus, bus, "Hello", "", nil)
	family := map[string]uint32{"ip": 0, "ip4": 2, "ip6": 10}[network] // AF_UNSPEC, AF_INET, AF_INET6
	var body marshal
	body.uint32(0) // any interface
	body.text(host)
	body.uint32(family)
	body.uint64(0)
	call := busMessage(2, "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager", "org.freedesktop.resolve1", "ResolveHostname", "isit", body)
	if _, err := conn.Write(append(append([]byte("BEGIN\r\n"), hello...), call...)); err != nil {
		return nil, err
	}
	for range busStrangers {
		m, err := readBusMessage(in)
		switch {
		case err != nil:
			return nil, fmt.Errorf("dbus: %w", err)
		case m.kind == busError && m.answers == 1:
			return nil, fmt.Errorf("dbus: %s", fact.Printable(m.errorName))
		case m.answers != 2:
			continue
		case m.kind == busError:
			return nil, busFailure(m.errorName, host)
		case m.kind == busReturn:
			return readResolved(m)
		}
	}
	return nil, errors.New("dbus: too much came that answers nothing")
}

// uid is who we are, as the handshake wants it; the bus asks the kernel as well.
func uid() string { return hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid()))) }

// busFailure tells a no from not knowing, sd-bus's names of errors of
// systemd-resolved.
func busFailure(name, host string) error {
	dns := &net.DNSError{Err: fact.Printable(name), Name: host, Server: "dbus"}
	switch name {
	case "org.freedesktop.resolve1.NoSuchRR", "org.freedesktop.resolve1.DnsError.NXDOMAIN":
		dns.Err, dns.IsNotFound = "no such host", true
	case "org.freedesktop.DBus.Error.Timeout", "org.freedesktop.DBus.Error.NoReply":
		dns.IsTimeout = true
	}
	return dns
}

// marshal builds the body of a message, or its header.
type marshal []byte

func (m *marshal) align(to int) {
	for len(*m)%to != 0 {
		*m = append(*m, 0)
	}
}

func (m *marshal) uint32(n uint32) { m.align(4); *m = binary.LittleEndian.AppendUint32(*m, n) }
func (m *marshal) uint64(n uint64) { m.align(8); *m = binary.LittleEndian.AppendUint64(*m, n) }
func (m *marshal) text(s string) {
	m.uint32(uint32(len(s)))
	*m = append(append(*m, s...), 0)
}

func (m *marshal) signature(s string) { *m = append(append(append(*m, byte(len(s))), s...), 0) }

// field adds a field of the header: a code and a variant.
func (m *marshal) field(code byte, kind, value string) {
	m.align(8)
	*m = append(*m, code)
	m.signature(kind)
	if kind == "g" {
		m.signature(value)
	} else {
		m.text(value)
	}
}

func busMessage(serial uint32, path, iface, destination, member, signature string, body marshal) []byte {
	var fields marshal
	fields.field(fieldPath, "o", path)
	fields.field(fieldInterface, "s", iface)
	fields.field(fieldMember, "s", member)
	fields.field(fieldDestination, "s", destination)
	if signature != "" {
		fields.field(fieldSignature, "g", signature)
	}
	message := marshal{'l', busCall, 0, 1}
	message.uint32(uint32(len(body)))
	message.uint32(serial)
	message.uint32(uint32(len(fields)))
	message = append(message, fields...)
	message.align(8)
	return append(message, body...)
}

// received is what is used of a message that came.
type received struct {
	kind      byte
	answers   uint32
	errorName string
	order     binary.ByteOrder
	body      []byte
}

// readBusMessage reads one message. It is foreign: each length is checked.
func readBusMessage(in io.Reader) (received, error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(in, head); err != nil {
		return received{}, err
	}
	m := received{kind: head[1], order: binary.LittleEndian}
	if head[0] == 'B' {
		m.order = binary.BigEndian
	}
	body, fields := m.order.Uint32(head[4:]), m.order.Uint32(head[12:])
	if body > busMessageMax || fields > busMessageMax {
		return received{}, fmt.Errorf("a message of %d bytes", uint64(body)+uint64(fields))
	}
	rest := make([]byte, (fields+7)/8*8+body)
	if _, err := io.ReadFull(in, rest); err != nil {
		return received{}, err
	}
	m.body = rest[(fields+7)/8*8:]
	return m, m.readFields(reader{order: m.order, data: rest[:fields]})
}

var errBadMessage = errors.New("a malformed message")

func (m *received) readFields(r reader) error {
	for r.at < len(r.data) {
		r.align(8)
		code := r.byte()
		switch kind := r.signature(); kind {
		case "s", "o":
			if text := r.text(); code == fieldErrorName {
				m.errorName = text
			}
		case "g":
			r.signature()
		case "u":
			if n := r.uint32(); code == fieldReplySerial {
				m.answers = n
			}
		default:
			return fmt.Errorf("%w: a header field of type %q", errBadMessage, kind)
		}
		if r.bad {
			return errBadMessage
		}
	}
	return nil
}

// readResolved reads the answer of ResolveHostname, a(iiay)st: interface, family
// and address of each, a canonical name, flags.
func readResolved(m received) (addrs []netip.Addr, err error) {
	r := reader{order: m.order, data: m.body}
	size := int64(r.uint32())
	r.align(8)
	end := int64(r.at) + size
	for int64(r.at) < end && !r.bad && len(addrs) < mostAddresses {
		r.align(8)
		r.uint32()
		r.uint32()
		if addr, ok := netip.AddrFromSlice(r.bytes(int64(r.uint32()))); ok {
			addrs = append(addrs, addr)
		}
	}
	if r.bad || len(addrs) == 0 {
		return nil, fmt.Errorf("dbus: %w", errBadMessage)
	}
	return addrs, nil
}

// reader takes values out of a message until one is not there; it is bad from
// then on and all values are zero.
type reader struct {
	order binary.ByteOrder
	data  []byte
	at    int
	bad   bool
}

func (r *reader) bytes(n int64) []byte {
	if r.bad || n < 0 || n > int64(len(r.data)-r.at) {
		r.bad = true
		return nil
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

func (r *reader) align(to int) {
	if over := r.at % to; over != 0 {
		r.bytes(int64(to - over))
	}
}

func (r *reader) byte() byte {
	b := r.bytes(1)
	if r.bad {
		return 0
	}
	return b[0]
}

func (r *reader) uint32() uint32 {
	r.align(4)
	b := r.bytes(4)
	if r.bad {
		return 0
	}
	return r.order.Uint32(b)
}

func (r *reader) text() string {
	text := string(r.bytes(int64(r.uint32())))
	r.bytes(1)
	return text
}

func (r *reader) signature() string {
	text := string(r.bytes(int64(r.byte())))
	r.bytes(1)
	return text
}
