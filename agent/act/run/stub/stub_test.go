//go:build linux

package stub

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// query is a question for the addresses of a name.
func query(name string, edns int) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET})
	if edns > 0 {
		_ = b.StartAdditionals()
		_ = b.OPTResource(dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Class: dnsmessage.Class(edns)}, dnsmessage.OPTResource{})
	}
	message, _ := b.Finish()
	return message
}

// answers gives each question n addresses.
type answers struct {
	n     int
	waits bool
}

func (a answers) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	if a.waits {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: h.ID, Response: true})
	b.EnableCompression()
	_ = b.StartQuestions()
	_ = b.Question(q)
	_ = b.StartAnswers()
	for i := range a.n {
		_ = b.AResource(dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, dnsmessage.AResource{A: [4]byte{192, 0, 2, byte(i)}})
	}
	return b.Finish()
}

// serve serves until the test ends.
func serve(t *testing.T, a Exchanger, within time.Duration) *Server {
	t.Helper()
	sockets, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Sockets: sockets, Ports: NewPorts(make([]uint32, PortsSize)), Answers: a, Within: within}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Serve(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

// dial connects to the stub, and tells it unless it should not know.
func dial(t *testing.T, s *Server, network string, known, whole bool) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, s.Sockets.IPv4().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if known {
		port := netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
		s.Ports.Allow(map[string]Network{"udp": UDP4, "tcp": TCP4}[network], port, whole)
	}
	return conn
}

// ask sends a datagram and returns what comes.
func ask(t *testing.T, conn net.Conn, message []byte) []byte {
	t.Helper()
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65535)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// An answer that does not fit comes again over TCP, or shortened for who would
// not ask there.
func TestTruncated(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{n: 100}, 0)
	parse := func(answer []byte) (truncated bool, records int) {
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("%v: %x", err, answer)
		}
		return m.Truncated, len(m.Answers)
	}
	if truncated, n := parse(ask(t, dial(t, s, "udp", true, false), query("a.lab.", 0))); !truncated || n != 0 {
		t.Errorf("without EDNS: %v, %d records", truncated, n)
	}
	if truncated, n := parse(ask(t, dial(t, s, "udp", true, false), query("a.lab.", 4096))); truncated || n != 100 {
		t.Errorf("with EDNS: %v, %d records", truncated, n)
	}
	if truncated, n := parse(ask(t, dial(t, s, "udp", true, true), query("a.lab.", 0))); truncated || n < 20 || n > 40 {
		t.Errorf("for musl: %v, %d records", truncated, n)
	}
	conn := dial(t, s, "tcp", true, false)
	q := query("a.lab.", 0)
	for range 2 { // one connection, several questions
		_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, answer); err != nil {
			t.Fatal(err)
		}
		if _, n := parse(answer); n != 100 {
			t.Errorf("over TCP: %d records", n)
		}
	}
}

// Who is not the program's gets nothing.
func TestStrangers(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{n: 1}, 0)
	conn := dial(t, s, "udp", false, false)
	_, _ = conn.Write(query("a.lab.", 0))
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 512)); err == nil {
		t.Errorf("a stranger gets %d bytes", n)
	}
	stream := dial(t, s, "tcp", false, false)
	if n, err := stream.Read(make([]byte, 512)); !errors.Is(err, io.EOF) {
		t.Errorf("a stranger gets %d bytes over TCP: %v", n, err)
	}
	if _, refused := s.Counts(); refused != 2 {
		t.Errorf("%d were refused, want 2", refused)
	}
	if ok, _ := s.Ports.Allowed(UDP4, netip.MustParseAddrPort("192.0.2.1:9")); ok {
		t.Error("an address of elsewhere is allowed")
	}
	if ip := s.Sockets.IPv4().Addr(); !ip.IsLoopback() {
		t.Errorf("it listens on %v", ip)
	}
}

// What is no question gets an error, or nothing; and the stub goes on.
func TestHostile(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{n: 1}, 0)
	conn := dial(t, s, "udp", true, false)
	good := query("a.lab.", 0)
	response := bytes.Clone(good)
	response[2] |= 0x80
	for _, silent := range [][]byte{{}, {1}, good[:11], response} {
		_, _ = conn.Write(silent)
	}
	loop := append(bytes.Clone(good[:12]), 0xC0, 12, 0, 1, 0, 1) // a name that points at itself
	for _, test := range []struct {
		message []byte
		code    byte
	}{
		{append(bytes.Clone(good[:4]), 0, 2, 0, 0, 0, 0, 0, 0), codeFormatError},
		{good[:len(good)-1], codeFormatError},
		{append([]byte{0, 1, 0x28, 0}, good[4:]...), codeNotImplemented},
		{loop, codeServerFailure},
		{append(bytes.Clone(good[:12]), bytes.Repeat([]byte{63}, 400)...), codeFormatError},
	} {
		if answer := ask(t, conn, test.message); answer[3]&0xF != test.code || answer[2]&0x80 == 0 {
			t.Errorf("%x is answered by %x, want code %d", test.message, answer, test.code)
		}
	}
	if answer := ask(t, conn, good); answer[3]&0xF != 0 {
		t.Errorf("a good question is answered by %x", answer)
	}
	slow := dial(t, s, "tcp", true, false)
	_, _ = slow.Write([]byte{0xFF}) // half a length, and no more
	if answer := ask(t, conn, good); answer[3]&0xF != 0 {
		t.Errorf("beside a slow connection: %x", answer)
	}
}

// Who answers nothing is given up before the client is.
func TestPatience(t *testing.T) {
	t.Parallel()
	s := serve(t, answers{waits: true}, 50*time.Millisecond)
	began := time.Now()
	if answer := ask(t, dial(t, s, "udp", true, false), query("a.lab.", 0)); answer[3]&0xF != codeServerFailure || time.Since(began) > 4*time.Second {
		t.Errorf("%x after %v", answer, time.Since(began))
	}
}

// A socket that another process has made serves as well.
func TestFiles(t *testing.T) {
	t.Parallel()
	sockets, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	files, err := sockets.Files()
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	if again.IPv4() != sockets.IPv4() || again.IPv6() != sockets.IPv6() {
		t.Errorf("%v is %v", again.IPv4(), sockets.IPv4())
	}
	again.Close()
	sockets.Close()
	for _, f := range files {
		f.Close()
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(query("a.lab.", 1232), 512)
	answer, _ := answers{n: 50}.Exchange(context.Background(), query("a.lab.", 0))
	f.Add(answer, 512)
	f.Fuzz(func(t *testing.T, message []byte, limit int) {
		limit = max(512, min(limit, 65535))
		if r := room(message); r < leastRoom || r > mostRoom {
			t.Errorf("room for %d", r)
		}
		if kindOf(message) != noQuestion {
			if answer := failure(message, codeServerFailure); len(answer) < headerSize || answer[2]&0x80 == 0 || kindOf(answer) != noQuestion {
				t.Errorf("a failure is %x", answer)
			}
		}
		for _, whole := range []bool{false, true} {
			short := fit(message, limit, whole)
			if end, ok := afterQuestion(message); ok && end <= limit && len(short) > limit {
				t.Errorf("%d bytes of %d", len(short), limit)
			}
		}
	})
}
