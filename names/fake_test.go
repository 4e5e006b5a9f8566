package names_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lifeline-go/lifeline/names"
)

// long is more than anything takes that these tests wait for, other than a bound.
const long = 20 * time.Second

// nameserver is one in this process, on UDP and TCP of one port of loopback.
type nameserver struct {
	addr    netip.AddrPort
	udp     atomic.Int64 // questions
	tcp     atomic.Int64
	working sync.WaitGroup
}

// A handler returns what to send for a question; nothing is silence.
type handler func(q *asked) [][]byte

// asked is a question.
type asked struct {
	dnsmessage.Message
	name string // without the dot at its end
	kind dnsmessage.Type
	tcp  bool
	raw  []byte
}

func (q *asked) edns() bool { return len(q.Additionals) > 0 }

// serve starts a nameserver.
func serve(t testing.TB, handle handler) *nameserver {
	t.Helper()
	var (
		ln  net.Listener
		pc  net.PacketConn
		err error
	)
	for range 20 { // the port of TCP may be taken on UDP
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", ln.Addr().String()); err == nil {
			break
		}
		ln.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &nameserver{addr: netip.MustParseAddrPort(ln.Addr().String())}
	s.working.Go(func() { s.datagrams(pc, handle) })
	s.working.Go(func() { s.streams(ln, handle) })
	t.Cleanup(func() { ln.Close(); pc.Close(); s.working.Wait() })
	return s
}

func (s *nameserver) datagrams(pc net.PacketConn, handle handler) {
	buf := make([]byte, 65535)
	for {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		s.udp.Add(1)
		raw := append([]byte(nil), buf[:n]...)
		s.working.Go(func() {
			for _, answer := range handle(parse(raw, false)) {
				_, _ = pc.WriteTo(answer, from)
			}
		})
	}
}

func (s *nameserver) streams(ln net.Listener, handle handler) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		s.working.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(long))
			var length [2]byte
			if _, err := io.ReadFull(conn, length[:]); err != nil {
				return
			}
			raw := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(conn, raw); err != nil {
				return
			}
			s.tcp.Add(1)
			for _, answer := range handle(parse(raw, true)) {
				_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		})
	}
}

func parse(raw []byte, tcp bool) *asked {
	q := &asked{tcp: tcp, raw: raw}
	if err := q.Unpack(raw); err != nil || len(q.Questions) != 1 {
		panic("a malformed question")
	}
	q.name, q.kind = q.Questions[0].Name.String(), q.Questions[0].Type
	q.name = q.name[:len(q.name)-1]
	return q
}

// reply is an answer with these records: addresses, or names of CNAME records.
func (q *asked) reply(code dnsmessage.RCode, records ...string) []byte {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: code},
		Questions: q.Questions,
	}
	header := dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60}
	for _, record := range records {
		var body dnsmessage.ResourceBody
		next := header
		addr, err := netip.ParseAddr(record)
		switch {
		case err != nil:
			next.Name = dnsmessage.MustNewName(record)
			body = &dnsmessage.CNAMEResource{CNAME: next.Name}
		case addr.Is4():
			body = &dnsmessage.AResource{A: addr.As4()}
		default:
			body = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: body})
		header = next
	}
	packed, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return packed
}

func (q *asked) code(code dnsmessage.RCode) [][]byte { return [][]byte{q.reply(code)} }

// zone answers from names to addresses: NXDOMAIN for those that are not there.
func zone(of map[string][]string) handler {
	return func(q *asked) [][]byte {
		records, ok := of[strings.ToLower(q.name)]
		if !ok {
			return q.code(dnsmessage.RCodeNameError)
		}
		var fit []string
		for _, record := range records {
			addr, err := netip.ParseAddr(record)
			if err != nil || addr.Is4() == (q.kind == dnsmessage.TypeA) {
				fit = append(fit, record)
			}
		}
		return [][]byte{q.reply(dnsmessage.RCodeSuccess, fit...)}
	}
}

func silence(*asked) [][]byte { return nil }

// etc returns a root with these files in etc.
func etc(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, "etc", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// way is one that a test makes.
type way struct {
	name   string
	calls  atomic.Int64
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

func (w *way) Name() string { return w.name }

func (w *way) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	w.calls.Add(1)
	return w.lookup(ctx, network, host)
}

// says is a way that knows these names, and no others.
func says(of map[string][]string) *way {
	return &way{name: "system", lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
		var fit []netip.Addr
		for _, addr := range addrs(of[host]...) {
			if network == "ip" || addr.Is4() == (network == "ip4") {
				fit = append(fit, addr)
			}
		}
		if len(fit) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return fit, nil
	}}
}

// stuck is a way that never answers.
func stuck() *way {
	return &way{name: "stuck", lookup: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
}

// broken is a way that always fails.
func broken() *way {
	return &way{name: "broken", lookup: func(context.Context, string, string) ([]netip.Addr, error) {
		return nil, errors.New("broken")
	}}
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// resolver asks these servers and ways, with these files in etc.
func resolver(t testing.TB, files map[string]string, system []names.Way, servers ...*nameserver) *names.Resolver {
	t.Helper()
	r := &names.Resolver{Root: etc(t, files), System: system, Nameservers: []netip.AddrPort{}}
	if system == nil {
		r.System = []names.Way{}
	}
	for _, s := range servers {
		r.Nameservers = append(r.Nameservers, s.addr)
	}
	t.Cleanup(r.Close)
	return r
}
