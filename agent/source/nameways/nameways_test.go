package nameways

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/internal/dnsclient"
	"github.com/lifeline-go/lifeline/internal/leakcheck"
	"github.com/lifeline-go/lifeline/internal/need"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestASCII(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string]string{
		"db": "db", "DB.example.": "DB.example.", "bücher.example": "xn--bcher-kva.example", "Bücher.example.": "xn--bcher-kva.example.", "_x._tcp.a": "_x._tcp.a",
		"10.0.0.1": "10.0.0.1", "fe80::1%eth0": "fe80::1%eth0", "": "", ".": "", "a..b": "", "a b": "", "http://a": "", long + "a.b": "", long + ".b": long + ".b",
		strings.Repeat(long+".", 4): "", strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 126) + "a",
	} {
		got, err := ASCII(name)
		if got != want || (err != nil) != (want == "") || err != nil && !errors.Is(err, ErrName) {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func TestCompleted(t *testing.T) {
	for _, c := range []struct {
		name    string
		search  []string
		options []string
		want    string
	}{
		{"db", nil, nil, "db."},
		{"db.", []string{"a"}, nil, "db."},
		{"db", []string{"a", "b.c."}, nil, "db.a. db.b.c. db."},
		{"db.x", []string{"a"}, nil, "db.x. db.x.a."},
		{"db.x", []string{"a"}, []string{"ndots:2"}, "db.x.a. db.x."},
		{"db", []string{"a"}, []string{"ndots:0"}, "db. db.a."},
		{"db", []string{"."}, []string{"ndots:x"}, "db."},
		{"db", []string{strings.Repeat("a", 252)}, nil, "db."},
	} {
		conf := &fact.Names{Resolv: fact.Seen(fact.Resolv{Search: c.search, Options: c.options})}
		if got := strings.Join(completed(c.name, conf), " "); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if n := len(completed("db", &fact.Names{Resolv: fact.Seen(fact.Resolv{Search: make([]string, 1000)})})); n != 1 {
		t.Errorf("%d names", n)
	}
}

func FuzzRead(f *testing.F) {
	query, err := dnsclient.NewQuery("a.example.", dnsmessage.TypeA, true)
	if err != nil {
		f.Fatal(err)
	}
	answer := bytes.Clone(query)
	answer[2], answer[3], answer[7] = 0x81, 0x80, 1
	f.Add(query)
	f.Add(append(answer[:len(answer)-11], 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1))
	f.Add(append(bytes.Clone(answer), 0xc0, 0xc0))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, family := range []fact.AddressFamily{fact.OnlyIPv4, fact.OnlyIPv6} {
			w := fact.Way{Family: family}
			read(&w, data)
			if w.Answer == fact.NotAsked || len(w.Addresses) > mostAddresses || (w.Answer == fact.Addresses) != (len(w.Addresses) > 0) {
				t.Errorf("%+v", w)
			}
		}
	})
}

// resolved answers questions for names on a bus as systemd-resolved does, until
// the connection ends.
func resolved(conn net.Conn, answers map[string][]netip.Addr) error {
	in := bufio.NewReader(conn)
	const bus = "org.freedesktop.DBus"
	if _, err := conn.Write([]byte("\x00AUTH EXTERNAL " + uid() + "\r\n")); err != nil {
		return err
	}
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	var name marshal
	name.text("org.freedesktop.resolve1")
	name.uint32(0)
	hello := busMessage(1, "/org/freedesktop/DBus", bus, bus, "Hello", "", nil)
	own := busMessage(2, "/org/freedesktop/DBus", bus, bus, "RequestName", "su", name)
	if _, err := conn.Write(append(append([]byte("BEGIN\r\n"), hello...), own...)); err != nil {
		return err
	}
	for serial := uint32(3); ; serial++ {
		head := make([]byte, 16)
		if _, err := io.ReadFull(in, head); err != nil {
			return nil // the end of the test
		}
		fields := binary.LittleEndian.Uint32(head[12:])
		rest := make([]byte, (fields+7)/8*8+binary.LittleEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(in, rest); err != nil {
			return err
		}
		if head[1] != busCall {
			continue
		}
		sender := textAfter(rest[:fields], 7) // the field SENDER
		r := reader{order: binary.LittleEndian, data: rest[(fields+7)/8*8:]}
		r.uint32()
		asked := r.text()
		var body, header marshal
		kind, signature := byte(busReturn), "a(iiay)st"
		if list := answers[asked]; list != nil {
			var array marshal
			for _, a := range list {
				array.align(8)
				array.uint32(2)
				array.uint32(map[bool]uint32{true: 2, false: 10}[a.Is4()])
				array.uint32(uint32(len(a.AsSlice())))
				array = append(array, a.AsSlice()...)
			}
			body.uint32(uint32(len(array)))
			body.align(8)
			body = append(body, array...)
			body.text(asked)
			body.uint64(1)
		} else {
			kind, signature = busError, "s"
			body.text("no such name")
			header.field(fieldErrorName, "s", "org.freedesktop.resolve1.DnsError.NXDOMAIN")
		}
		header.align(8)
		header = append(header, fieldReplySerial)
		header.signature("u")
		header.uint32(binary.LittleEndian.Uint32(head[8:]))
		header.field(fieldDestination, "s", sender)
		header.field(fieldSignature, "g", signature)
		m := marshal{'l', kind, 0, 1}
		m.uint32(uint32(len(body)))
		m.uint32(serial)
		m.uint32(uint32(len(header)))
		m = append(m, header...)
		m.align(8)
		if _, err := conn.Write(append(m, body...)); err != nil {
			return err
		}
	}
}

// textAfter returns the text of a header field.
func textAfter(fields []byte, code byte) string {
	r := reader{order: binary.LittleEndian, data: fields}
	for r.at < len(r.data) && !r.bad {
		r.align(8)
		c := r.byte()
		switch r.signature() {
		case "s", "o":
			if text := r.text(); c == code {
				return text
			}
		case "g":
			r.signature()
		default:
			r.uint32()
		}
	}
	return ""
}

// A name is asked of a service on a real bus, which takes no message that is not
// right to the byte.
func TestBus(t *testing.T) {
	daemon := need.Program(t, "dbus-daemon")
	socket := filepath.Join(t.TempDir(), "bus")
	cmd := exec.Command(daemon, "--nofork", "--session", "--nosyslog", "--print-address", "--address=unix:path="+socket)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it listens now
		t.Fatal(err)
	}
	way := busWay{socket}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := way.Lookup(ctx, "ip", "db.example"); err == nil || !strings.Contains(err.Error(), "org.freedesktop.DBus.Error.ServiceUnknown") {
		t.Errorf("without the service: %v", err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	t.Cleanup(func() {
		conn.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	want := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::7"), netip.MustParseAddr("10.1.2.4")}
	go func() { served <- resolved(conn, map[string][]netip.Addr{"db.example": want}) }()
	var got []netip.Addr
	for err = errors.New("not asked"); err != nil && ctx.Err() == nil; { // until it owns its name
		got, err = way.Lookup(ctx, "ip", "db.example")
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	var dns *net.DNSError
	if _, err := way.Lookup(ctx, "ip4", "nosuch.example"); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("%v", err)
	}
	short, stop := context.WithCancel(ctx)
	stop()
	if _, err := way.Lookup(short, "ip4", "db.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func FuzzBus(f *testing.F) {
	var body marshal
	body.uint32(16)
	body.align(8)
	body.uint32(0)
	body.uint32(2)
	body.uint32(4)
	body = append(body, 10, 1, 2, 3)
	f.Add(busMessage(1, "/a", "a.b", "a.b", "C", "a(iiay)", body))
	f.Add([]byte("B\x03\x00\x01\xff\xff\xff\xff\x00\x00\x00\x01\xff\xff\xff\xff"))
	f.Add(append([]byte("l\x02\x00\x01\x08\x00\x00\x00\x00\x00\x00\x01\x08\x00\x00\x00\x05\x01u\x00\x02\x00\x00\x00"), 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readBusMessage(bytes.NewReader(data))
		if err != nil {
			return
		}
		if addrs, err := readResolved(m); (err == nil) != (len(addrs) > 0) || len(addrs) > mostAddresses {
			t.Errorf("%v, %v", addrs, err)
		}
	})
}

// Everything that is asked ends, answered or not, and nothing stays behind.
func TestAsk(t *testing.T) {
	need.Program(t, "getent")
	conf := &fact.Names{Nameservers: []fact.Nameserver{{Addr: netip.MustParseAddr("127.0.0.1")}, {Addr: netip.MustParseAddr("127.0.0.1")}}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	l := Ask(ctx, "localhost", conf)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	servers := 0
	for _, w := range l.Ways {
		switch {
		case w.Answer == fact.NotAsked:
			t.Errorf("not asked: %+v", w)
		case (w.Kind == fact.WayHosts || w.Kind == fact.WayGetent && w.Family == fact.BothFamilies) && w.Answer != fact.Addresses:
			t.Errorf("%+v", w)
		case w.Kind == fact.WayServer:
			servers++
		}
	}
	if servers != 8 { // four transports, two families; what is listed twice is asked once
		t.Errorf("%d questions to the nameserver", servers)
	}
	ended, end := context.WithCancel(ctx)
	end()
	for _, w := range Ask(ended, "db.example", conf).Ways {
		if w.Answer == fact.Addresses || w.Answer == fact.NotAsked {
			t.Errorf("after its context ended: %+v", w)
		}
	}
	if l := Ask(ended, "10.0.0.1", conf); len(l.Ways) != 1 || l.Ways[0].Kind != fact.WayAddress {
		t.Errorf("%+v", l)
	}
}
