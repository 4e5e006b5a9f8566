//go:build linux

// Package stub is a nameserver on the loopback interface for the processes of
// one program. It takes questions over UDP and TCP at a random port, answers
// only to ports that it was told of, and leaves what to answer to somebody else.
//
// Bound: an answer takes no longer than [Server.Within], and is SERVFAIL then.
// At most 1,024 questions over UDP are worked on at a time, and as many wait as
// the socket holds; 128 connections over TCP, each for one question at a time
// and for 10 s between them.
package stub

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Within is how long an answer takes at most when nothing else is said: less
	// than the 5 s that resolvers wait, so that what they hear is an answer.
	Within = 4 * time.Second

	mostAtOnce      = 1024
	mostConnections = 128
	idle            = 10 * time.Second
	registration    = 200 * time.Millisecond // for a connection to be told of
	mostQuery       = 65535
)

// Exchanger answers a DNS message with one question; the error is that of a
// message that cannot be answered.
type Exchanger interface {
	Exchange(ctx context.Context, query []byte) ([]byte, error)
}

// Server answers the questions that arrive at its sockets.
type Server struct {
	Sockets *Sockets
	Ports   *Ports
	Answers Exchanger

	// Within bounds an answer; zero or less means [Within].
	Within time.Duration

	answered, refused atomic.Int64
}

// Counts returns how many questions were answered, and how many datagrams and
// connections came from somebody else than those it serves and were refused.
func (s *Server) Counts() (answered, refused int64) { return s.answered.Load(), s.refused.Load() }

// Serve answers until ctx is done. The sockets are closed when it returns.
func (s *Server) Serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	for network, conn := range s.Sockets.datagrams() {
		running.Go(func() { s.datagrams(ctx, network, conn) })
	}
	for network, listener := range s.Sockets.streams() {
		running.Go(func() { s.streams(ctx, network, listener) })
	}
	<-ctx.Done()
	s.Sockets.Close()
}

func (s *Server) datagrams(ctx context.Context, network Network, conn *net.UDPConn) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, mostAtOnce)
	for buf := make([]byte, mostQuery); ; {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // what ICMP says of one who has gone away
			continue
		}
		ok, whole := s.Ports.Allowed(network, from)
		if !ok {
			s.refused.Add(1)
			continue
		}
		query := append([]byte(nil), buf[:n]...)
		slots <- struct{}{} // each is free again Within
		running.Go(func() {
			defer func() { <-slots }()
			if answer := s.answer(ctx, query); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(fit(answer, room(query), whole), from)
			}
		})
	}
}

func (s *Server) streams(ctx context.Context, network Network, listener *net.TCPListener) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, mostConnections)
	for {
		slots <- struct{}{}
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, say
			time.Sleep(10 * time.Millisecond)
			<-slots
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			s.stream(ctx, network, conn)
		})
	}
}

// stream answers the questions of one connection, one after the other.
func (s *Server) stream(ctx context.Context, network Network, conn *net.TCPConn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if !s.awaited(network, conn) {
		s.refused.Add(1)
		return
	}
	for {
		_ = conn.SetDeadline(time.Now().Add(idle))
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer := s.answer(ctx, query)
		if answer == nil || len(answer) > mostQuery {
			return
		}
		framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
		if _, err := conn.Write(append(framed, answer...)); err != nil {
			return
		}
	}
}

// awaited reports that the connection is from a port that is allowed. It can be
// here before it was told of: connect(2) has to return first.
func (s *Server) awaited(network Network, conn *net.TCPConn) bool {
	from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	for end := time.Now().Add(registration); ; time.Sleep(time.Millisecond) {
		if ok, _ := s.Ports.Allowed(network, from); ok {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// answer returns what to send back, nil for what is no question.
func (s *Server) answer(ctx context.Context, query []byte) []byte {
	within := cmp.Or(max(s.Within, 0), Within)
	switch kindOf(query) {
	case noQuestion:
		return nil
	case otherOperation:
		return failure(query, codeNotImplemented)
	case malformed:
		return failure(query, codeFormatError)
	}
	s.answered.Add(1)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	answer, err := s.Answers.Exchange(ctx, query)
	if err != nil || len(answer) < headerSize {
		return failure(query, codeServerFailure)
	}
	return answer
}

// loopback returns the address of the loopback interface for a network.
func (n Network) loopback() netip.Addr {
	if n == UDP6 || n == TCP6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
