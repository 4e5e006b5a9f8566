//go:build linux

package dnsconf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/agent/fact"
	"github.com/lifeline-go/lifeline/agent/lab"
	"github.com/lifeline-go/lifeline/agent/source/route"
	"github.com/lifeline-go/lifeline/internal/dnsclient"
)

// long is more than any answer in these tests takes, short is what is waited
// for one that does not come.
const (
	long  = 30 * time.Second
	short = 200 * time.Millisecond
)

// server is a nameserver that gives each question to answer and sends what that
// returns.
type server struct {
	addr      netip.AddrPort
	questions atomic.Int64
}

func serve(t *testing.T, conn net.PacketConn, answer func(question []byte) [][]byte) *server {
	t.Helper()
	s := &server{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, from, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a refusal of the datagram sent before
			}
			s.questions.Add(1)
			for _, a := range answer(append([]byte(nil), buf[:n]...)) {
				_, _ = conn.WriteTo(a, from)
			}
		}
	}()
	return s
}

func onLoopback(t *testing.T, answer func([]byte) [][]byte) *server {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, conn, answer)
}

// reply answers a question as package dnsmessage, which wrote none of ours,
// understands it.
func reply(t *testing.T, question []byte, code dnsmessage.RCode) []byte {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		t.Errorf("the question is malformed: %v", err)
		return nil
	}
	if m.Response || !m.RecursionDesired || len(m.Questions) != 1 || len(m.Additionals) > 1 {
		t.Errorf("the question is %+v", m)
	}
	m.Response, m.RecursionAvailable, m.RCode = true, true, code
	if code == dnsmessage.RCodeSuccess {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeNS, Class: dnsmessage.ClassINET, TTL: 518400},
			Body:   &dnsmessage.NSResource{NS: dnsmessage.MustNewName("a.root-servers.net.")},
		}}
	}
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

func otherID(answer []byte) []byte {
	other := append([]byte(nil), answer...)
	binary.BigEndian.PutUint16(other, binary.BigEndian.Uint16(other)+1)
	return other
}

func TestAsk(t *testing.T) {
	header := func(q []byte, flags uint16) []byte { // an answer without the question
		b := binary.BigEndian.AppendUint16(append([]byte(nil), q[:2]...), flags)
		return append(b, make([]byte, 8)...)
	}
	for _, c := range []struct {
		what   string
		answer func(q []byte) [][]byte
		wait   time.Duration
		ok     bool
		code   string
		err    string
	}{
		{"an answer", func(q []byte) [][]byte { return [][]byte{reply(t, q, dnsmessage.RCodeSuccess)} }, long, true, "NOERROR", ""},
		{"refused", func(q []byte) [][]byte { return [][]byte{reply(t, q, dnsmessage.RCodeRefused)} }, long, true, "REFUSED", ""},
		{"failed", func(q []byte) [][]byte { return [][]byte{reply(t, q, dnsmessage.RCodeServerFailure)} }, long, true, "SERVFAIL", ""},
		{"an error without the question", func(q []byte) [][]byte { return [][]byte{header(q, 0x8001)} }, long, true, "FORMERR", ""},
		{"a code of the future", func(q []byte) [][]byte { return [][]byte{header(q, 0x800f)} }, long, true, "RCODE15", ""},
		{"cut after the question", func(q []byte) [][]byte { return [][]byte{reply(t, q, dnsmessage.RCodeSuccess)[:len(q)+3]} }, long, true, "NOERROR", ""},
		{"the wrong id, then the right one", func(q []byte) [][]byte {
			right := reply(t, q, dnsmessage.RCodeSuccess)
			return [][]byte{otherID(right), right}
		}, long, true, "NOERROR", ""},
		{"garbage, then an answer", func(q []byte) [][]byte {
			return [][]byte{{}, {1}, []byte("\xff\xfe garbage"), reply(t, q, dnsmessage.RCodeSuccess)}
		}, long, true, "NOERROR", ""},

		{"silence", func([]byte) [][]byte { return nil }, short, false, "", "timed out"},
		{"only the wrong id", func(q []byte) [][]byte { return [][]byte{otherID(reply(t, q, dnsmessage.RCodeSuccess))} }, short, false, "",
			"timed out; datagrams that came and do not answer the question: 1"},
		{"the question itself", func(q []byte) [][]byte { return [][]byte{q, q} }, short, false, "",
			"timed out; datagrams that came and do not answer the question: 2"},
		{"an answer without the question", func(q []byte) [][]byte { return [][]byte{header(q, 0x8000)} }, short, false, "", "timed out; datagrams"},
		{"truncated garbage", func(q []byte) [][]byte { return [][]byte{reply(t, q, dnsmessage.RCodeSuccess)[:7]} }, short, false, "", "timed out; datagrams"},
	} {
		s := onLoopback(t, c.answer)
		got := ask(t.Context(), s.addr, dnsclient.UDP, true, c.wait)
		if got.OK != c.ok || got.RCode != c.code || !strings.HasPrefix(got.Error, c.err) || (c.err == "") != (got.Error == "") {
			t.Errorf("%s: %+v", c.what, got)
		}
		if got.After <= 0 || (!c.ok && got.After < c.wait) || (c.ok && got.After >= c.wait) {
			t.Errorf("%s: after %v", c.what, got.After)
		}
		if n := s.questions.Load(); n != 1 {
			t.Errorf("%s: %d questions, want one", c.what, n)
		}
	}
}

func TestAskLate(t *testing.T) {
	asked := make(chan struct{})
	late := make(chan struct{})
	s := onLoopback(t, func(q []byte) [][]byte {
		close(asked)
		<-late
		return [][]byte{reply(t, q, dnsmessage.RCodeSuccess)}
	})
	got := ask(t.Context(), s.addr, dnsclient.UDP, true, short)
	<-asked
	close(late)
	if got.OK || got.Error != "timed out" {
		t.Errorf("%+v", got)
	}
}

func TestAskClosedPort(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	conn.Close()
	if got := ask(t.Context(), addr, dnsclient.UDP, true, long); got.OK || got.Error != "connection refused" || got.After >= long {
		t.Errorf("%+v", got)
	}
}

func TestAskCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := onLoopback(t, func([]byte) [][]byte {
		cancel(errors.New("the user left"))
		return nil
	})
	if got := ask(ctx, s.addr, dnsclient.UDP, true, long); got.OK || got.Error != "the user left" || got.After >= long {
		t.Errorf("%+v", got)
	}
	if got := ask(ctx, s.addr, dnsclient.UDP, true, long); got.Error != "the user left" || s.questions.Load() != 1 {
		t.Errorf("cancelled before: %+v after %d questions", got, s.questions.Load())
	}
}

func TestAskAll(t *testing.T) {
	l := lab.New(t)
	box, far := l.Host("box"), l.Host("far")
	l.Wire(box, "10.77.1.1/24", far, "10.77.1.2/24")
	l.Wire(box, "fd77::1/64", far, "fd77::2/64")
	far.Run("ip", "addr", "add", "10.77.1.3/24", "dev", "eth0")
	far.Run("ip", "addr", "add", "fe80::53/64", "dev", "eth1", "nodad")
	box.Run("ip", "addr", "add", "fe80::1/64", "dev", "eth1", "nodad")

	listen := func(addr string, answer func([]byte) [][]byte) *server {
		var conn net.PacketConn
		err := far.Do(func() (err error) {
			conn, err = net.ListenPacket("udp", addr)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return serve(t, conn, answer)
	}
	good := func(q []byte) [][]byte { return [][]byte{reply(t, q, dnsmessage.RCodeSuccess)} }
	first := listen("10.77.1.2:53", good)
	silent := listen("10.77.1.3:53", func([]byte) [][]byte { return nil })
	six := listen("[fd77::2]:53", good)
	var eth1 uint32
	err := far.Do(func() (err error) {
		eth1, err = route.Index("eth1")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	linkLocal := listen(fmt.Sprintf("[fe80::53%%%d]:53", eth1), good)

	names := &fact.Names{}
	for _, addr := range []string{"10.77.1.2", "10.77.1.3", "10.77.1.2", "fd77::2", "fe80::53%eth1", "10.77.1.1", "192.0.2.1", "::ffff:10.77.1.2"} {
		names.Nameservers = append(names.Nameservers, fact.Nameserver{Addr: netip.MustParseAddr(addr)})
	}
	err = box.Do(func() error {
		AskAll(t.Context(), names, 3*time.Second)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "timed out", "", "", "", "connection refused", "network is unreachable", ""} {
		s := names.Nameservers[i]
		answer, asked := s.Answer.Get()
		if !asked || answer.Error != want || answer.OK != (want == "") {
			t.Errorf("%s: %+v, asked %v; want %q", s.Addr, answer, asked, want)
		}
	}
	for _, s := range []*server{first, silent, six, linkLocal} {
		if n := s.questions.Load(); n != 1 {
			t.Errorf("%s was asked %d times, want once", s.addr, n)
		}
	}
}

func TestAskAllNone(t *testing.T) {
	AskAll(t.Context(), &fact.Names{}, 0) // returns
}

// A server that drops EDNS, one that lost a packet, and one that answers well,
// which is asked nothing more.
func TestAskAgain(t *testing.T) {
	var lost atomic.Bool
	answer := func(t *testing.T, edns bool) func(q []byte) [][]byte {
		return func(q []byte) [][]byte {
			if !edns && binary.BigEndian.Uint16(q[10:]) > 0 || edns && !lost.Swap(true) {
				return nil
			}
			return [][]byte{reply(t, q, dnsmessage.RCodeSuccess)}
		}
	}
	for _, c := range []struct {
		what                  string
		edns                  bool
		answered, plain, more bool
	}{{"EDNS is dropped", false, false, true, true}, {"a packet was lost", true, true, true, true}, {"all is well", true, true, false, false}} {
		s := onLoopback(t, answer(t, c.edns))
		names := &fact.Names{Nameservers: []fact.Nameserver{{Addr: s.addr.Addr()}}}
		askAll(t.Context(), names, s.addr.Port(), short)
		askAgain(t.Context(), names, s.addr.Port(), short)
		n := names.Nameservers[0]
		if n.Answer.Value.OK != c.answered || n.Plain.Value.OK != c.plain || n.Plain.OK != c.more || n.TCP.OK != c.more || n.TCP.Value.OK {
			t.Errorf("%s: %+v", c.what, n)
		}
		if want := map[bool]int64{true: 3, false: 1}[c.more]; s.questions.Load() != want {
			t.Errorf("%s: %d questions over UDP", c.what, s.questions.Load())
		}
	}
}
