package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A manner says how long a server takes to answer a question, and whether it does.
type manner func(name string, six bool) (after time.Duration, answers bool)

// lossy is a server behind a path that loses questions and answers.
func lossy(after time.Duration) manner {
	return func(string, bool) (time.Duration, bool) { return after, rand.Float64() >= lost }
}

// nameserver answers questions for addresses over UDP: each name has one of each
// family.
type nameserver struct {
	conn    net.PacketConn
	manner  manner
	working sync.WaitGroup
}

func serveNames(addr string, m manner) (*nameserver, error) {
	var config net.ListenConfig
	conn, err := config.ListenPacket(context.Background(), "udp", net.JoinHostPort(addr, "53"))
	if err != nil {
		return nil, err
	}
	s := &nameserver{conn: conn, manner: m}
	s.working.Go(s.serve)
	return s, nil
}

// Close ends it and waits for what it still has to say.
func (s *nameserver) Close() {
	_ = s.conn.Close()
	s.working.Wait()
}

func (s *nameserver) serve() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a refusal of what was sent to a caller that has left
		}
		answer, after, ok := s.answer(buf[:n])
		switch {
		case !ok:
		case after == 0:
			_, _ = s.conn.WriteTo(answer, from)
		default:
			s.working.Go(func() {
				time.Sleep(after)
				_, _ = s.conn.WriteTo(answer, from)
			})
		}
	}
}

// answer returns what to say to a question, and when.
func (s *nameserver) answer(question []byte) (answer []byte, after time.Duration, ok bool) {
	var parser dnsmessage.Parser
	header, err := parser.Start(question)
	if err != nil {
		return nil, 0, false
	}
	q, err := parser.Question()
	if err != nil {
		return nil, 0, false
	}
	if s.manner != nil {
		if after, ok = s.manner(q.Name.String(), q.Type == dnsmessage.TypeAAAA); !ok {
			return nil, 0, false
		}
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	record := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
	switch q.Type {
	case dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: record, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	case dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: record, Body: &dnsmessage.AAAAResource{AAAA: [16]byte{15: 1}}}}
	}
	answer, err = m.Pack()
	return answer, after, err == nil
}
