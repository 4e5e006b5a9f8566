//go:build linux

package lab

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A zone is what a nameserver knows, by names in lower case and without a dot
// at the end; *.DOMAIN is for all names below. A value is addresses; or CNAME and
// a name; or SERVFAIL, REFUSED, NOTIMP, FORMERR; or LAME, for a server that
// refers to another; or SILENT, for no answer, as SILENT4 and SILENT6 to
// questions for one family; or MANY, for more addresses than fit into a datagram.
type zone map[string]string

// serve answers questions at a host's address until the test ends, by UDP and
// TCP; it counts no time, and loses nothing.
func (z zone) serve(t *testing.T, h *Host, addr string) {
	t.Helper()
	var packets net.PacketConn
	err := h.Do(func() (err error) {
		packets, err = net.ListenPacket("udp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	listener := h.Listen("tcp", addr)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { packets.Close(); listener.Close() })
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := z.answer(buf[:n], 512); answer != nil {
				_, _ = packets.WriteTo(answer, from)
			}
		}
	})
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { z.stream(conn) })
		}
	})
}

func (z zone) stream(conn net.Conn) {
	defer conn.Close()
	for {
		size := make([]byte, 2)
		if _, err := io.ReadFull(conn, size); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size))
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		answer := z.answer(question, 65535)
		if answer == nil {
			continue
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer returns nil where there is none.
func (z zone) answer(message []byte, most int) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	if !z.fill(&reply, q) {
		return nil
	}
	packed, err := reply.Pack()
	if err == nil && len(packed) > most {
		reply.Truncated, reply.Answers = true, nil
		packed, err = reply.Pack()
	}
	if err != nil {
		return nil
	}
	return packed
}

// fill reports whether there is an answer.
func (z zone) fill(reply *dnsmessage.Message, q dnsmessage.Question) bool {
	codes := map[string]dnsmessage.RCode{"SERVFAIL": dnsmessage.RCodeServerFailure, "REFUSED": dnsmessage.RCodeRefused,
		"NOTIMP": dnsmessage.RCodeNotImplemented, "FORMERR": dnsmessage.RCodeFormatError}
	name := q.Name
	for range 8 { // CNAME records, one after the other
		text, known := z.find(name.String())
		if !known {
			reply.RCode = dnsmessage.RCodeNameError
			return true
		}
		words := strings.Fields(text)
		if len(words) == 0 {
			return true
		}
		header := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60}
		switch code, fails := codes[words[0]]; {
		case fails:
			reply.RCode = code
		case words[0] == "CNAME":
			name = dnsmessage.MustNewName(words[1] + ".")
			reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: name}})
			continue
		case words[0] == "LAME":
			reply.Authoritative, reply.RecursionAvailable = false, false
			header.Name = dnsmessage.MustNewName("test.")
			reply.Authorities = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.NSResource{NS: dnsmessage.MustNewName("ns.other.test.")}}}
		case words[0] == "SILENT", words[0] == "SILENT4" && q.Type == dnsmessage.TypeA, words[0] == "SILENT6" && q.Type == dnsmessage.TypeAAAA:
			return false
		case words[0] == "MANY":
			for i := range 300 {
				words = append(words, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String())
			}
			fallthrough
		default:
			reply.Answers = append(reply.Answers, addresses(header, q.Type, words)...)
		}
		return true
	}
	return true
}

func (z zone) find(name string) (text string, known bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if text, known = z[name]; known {
		return text, true
	}
	for _, domain, found := strings.Cut(name, "."); found; _, domain, found = strings.Cut(domain, ".") {
		if text, known = z["*."+domain]; known {
			return text, true
		}
	}
	return "", false
}

// addresses returns those words that are addresses of the kind that is asked for.
func addresses(header dnsmessage.ResourceHeader, kind dnsmessage.Type, words []string) (found []dnsmessage.Resource) {
	for _, word := range words {
		addr, err := netip.ParseAddr(word)
		switch {
		case err != nil:
		case addr.Is4() && kind == dnsmessage.TypeA:
			found = append(found, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && kind == dnsmessage.TypeAAAA:
			found = append(found, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	return found
}
