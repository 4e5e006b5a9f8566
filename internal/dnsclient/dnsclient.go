// Package dnsclient asks one DNS server one question: over UDP, TCP or a layer on
// that, such as TLS, without another try and without another way. Whom to ask next
// is for those who call it.
//
// An answer is one to the question: the same id, the same question, from the
// address that was asked. What else arrives is passed over, and counted; more of
// it than chance brings ends the exchange, because somebody is guessing.
//
// Letter case is not varied in the question (draft-vixie-dnsext-dns0x20): some
// servers answer in lower case and would seem dead. An id of 16 bits and a port
// that the kernel chose stand between a guess and an answer, as in Go's resolver
// and glibc's.
package dnsclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Transport is how messages travel.
type Transport int

const (
	UDP Transport = iota // RFC 1035 section 4.2.1
	TCP                  // RFC 7766
)

// String returns udp or tcp.
func (t Transport) String() string {
	switch t {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	default:
		return fmt.Sprintf("transport(%d)", int(t))
	}
}

const (
	// Patience is how long an exchange waits when its context has no end. A
	// resolver on the other side of the world takes 0.3 s, one that has to ask the
	// root first a second.
	Patience = 2 * time.Second

	// strays is how many datagrams that answer nothing are passed over. A late
	// or doubled answer is one or two; more are guesses, RFC 5452 section 4.3.
	strays = 16

	datagramMax = 65535
	headerSize  = 12
)

var (
	// ErrFlooded: too much came that does not answer the question.
	ErrFlooded = errors.New("flooded with datagrams that do not answer the question")
	// ErrBadAnswer: what came over a stream is no answer to the question.
	ErrBadAnswer = errors.New("not an answer to the question")
	// ErrBadQuestion: what should be sent is no DNS message with one question.
	ErrBadQuestion = errors.New("not a DNS message with one question")
)

// Conn is a connection to a server for one exchange.
type Conn struct {
	transport Transport
	conn      net.Conn
	strays    int
}

// Exchange sends query to server, a whole message with one question, and returns
// the whole answer, which has the id of query (on the wire it is another one).
// It returns when ctx is done, or after [Patience] where ctx has no deadline.
func Exchange(ctx context.Context, transport Transport, server netip.AddrPort, query []byte) ([]byte, error) {
	conn, err := Dial(ctx, transport, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Exchange(ctx, query)
}

// Dial returns a connection to server from the network namespace of the calling
// thread. A UDP socket is connected, so that a refusal by ICMP reaches it, and has
// a random port.
func Dial(ctx context.Context, transport Transport, server netip.AddrPort) (*Conn, error) {
	server = netip.AddrPortFrom(server.Addr().Unmap(), server.Port())
	if transport == UDP {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
		if err != nil {
			return nil, err
		}
		return &Conn{transport: UDP, conn: conn}, nil
	}
	dialer := net.Dialer{KeepAlive: -1}
	if _, ok := ctx.Deadline(); !ok {
		dialer.Timeout = Patience
	}
	conn, err := dialer.DialContext(ctx, "tcp", server.String())
	if err != nil {
		return nil, because(ctx, err)
	}
	return &Conn{transport: transport, conn: conn}, nil
}

// Wrap puts a layer around a connection over TCP, before the exchange. TLS (RFC
// 7858) is for those who ask in that way, so that who only resolves names does not
// have it in the program.
func (c *Conn) Wrap(layer func(net.Conn) net.Conn) { c.conn = layer(c.conn) }

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Strays returns how many datagrams have come that do not answer the question.
func (c *Conn) Strays() int { return c.strays }

// Exchange is as the function. A connection is good for one.
func (c *Conn) Exchange(ctx context.Context, query []byte) ([]byte, error) {
	asked, err := parseQuestion(query)
	if err != nil || binary.BigEndian.Uint16(query[2:])&flagResponse != 0 {
		return nil, ErrBadQuestion
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(Patience)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	sent := make([]byte, len(query), len(query)+2)
	copy(sent, query)
	id := uint16(rand.Uint32()) // the source of package rand is ChaCha8, which nobody can guess
	binary.BigEndian.PutUint16(sent, id)
	var answer []byte
	if c.transport == UDP {
		answer, err = c.overUDP(sent, id, asked)
	} else {
		answer, err = c.overStream(sent, id, asked)
	}
	if err != nil {
		return nil, because(ctx, err)
	}
	copy(answer[:2], query[:2])
	return answer, nil
}

// because adds why the context ended, where that is what ended the exchange.
func because(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return errors.Join(context.Cause(ctx), err)
}

func (c *Conn) overUDP(query []byte, id uint16, asked question) ([]byte, error) {
	if _, err := c.conn.Write(query); err != nil {
		return nil, err
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	for buf := *pooled; ; {
		n, err := c.conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], id, asked) {
			return append([]byte(nil), buf[:n]...), nil
		}
		if c.strays++; c.strays > strays {
			return nil, ErrFlooded
		}
	}
}

func (c *Conn) overStream(query []byte, id uint16, asked question) ([]byte, error) {
	if len(query) > datagramMax {
		return nil, ErrBadQuestion
	}
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, len(query)+2), uint16(len(query))), query...)
	if _, err := c.conn.Write(framed); err != nil { // in one packet, RFC 7766 section 8
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c.conn, length[:]); err != nil {
		return nil, cut(err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c.conn, answer); err != nil {
		return nil, cut(err)
	}
	if !answers(answer, id, asked) {
		return nil, ErrBadAnswer
	}
	return answer, nil
}

// cut says in words that the server closed the connection.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the server closed the connection before it answered: %w", io.ErrUnexpectedEOF)
	}
	return err
}
