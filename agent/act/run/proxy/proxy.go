// Package proxy is an HTTP proxy on the loopback interface that resolves names
// for programs which honour HTTPS_PROXY: it knows the method CONNECT, RFC 9110
// section 9.3.6, and nothing else.
//
// Only who knows its token may use it. Bound: a client has 10 s to say where to,
// connecting takes no longer than 10 s, and 1,024 connections are served at a
// time. A connection that stands lasts as long as both ends want.
package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	patience        = 10 * time.Second
	mostConnections = 1024
	mostHeader      = 64 << 10

	// stagger is when the next address of a name is tried beside the one before,
	// RFC 8305 section 8.
	stagger = 250 * time.Millisecond

	user = "lifeline" // HTTP basic authentication wants one
)

// Resolver is as the method of net.Resolver.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Server is the proxy.
type Server struct {
	Token string   // what a client must know
	Names Resolver // set before Serve

	listener *net.TCPListener

	connected, refused atomic.Int64
}

// Listen opens a proxy at a random port of 127.0.0.1, with a new token.
func Listen() (*Server, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return &Server{Token: rand.Text(), listener: listener}, nil
}

// FromFile returns the proxy that another process opened; the file remains the
// caller's.
func FromFile(f *os.File, token string) (*Server, error) {
	listener, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		listener.Close()
		return nil, errors.New("not a TCP socket")
	}
	return &Server{Token: token, listener: tcp}, nil
}

// File returns a copy of its descriptor, which the caller must close.
func (s *Server) File() (*os.File, error) { return s.listener.File() }

// Counts returns how many connections were made, and how many requests refused.
func (s *Server) Counts() (connected, refused int64) { return s.connected.Load(), s.refused.Load() }

// variables are the names under which programs look for a proxy.
var variables = []string{"HTTPS_PROXY", "https_proxy"}

// Environment returns the environment of a program that should use the proxy.
// One that has a proxy already keeps it: that one resolves the names then.
func (s *Server) Environment(env []string) []string {
	set := make(map[string]bool)
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		set[name] = value != ""
	}
	if set[variables[0]] || set[variables[1]] {
		return env
	}
	own := append([]string(nil), env...)
	for _, name := range variables {
		own = append(own, fmt.Sprintf("%s=http://%s:%s@%v", name, user, s.Token, s.listener.Addr()))
	}
	return own
}

// Serve serves until ctx is done.
func (s *Server) Serve(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, mostConnections)
	for {
		slots <- struct{}{}
		conn, err := s.listener.AcceptTCP()
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
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.serve(ctx, conn)
		})
	}
}

// serve serves one request.
func (s *Server) serve(ctx context.Context, client *net.TCPConn) {
	_ = client.SetDeadline(time.Now().Add(patience))
	buffered := bufio.NewReader(io.LimitReader(client, mostHeader))
	request, err := http.ReadRequest(buffered)
	if err != nil {
		s.refuse(client, http.StatusBadRequest, "")
		return
	}
	if !s.knows(request.Header.Get("Proxy-Authorization")) {
		s.refuse(client, http.StatusProxyAuthRequired, `Proxy-Authenticate: Basic realm="lifeline run"`+"\r\n")
		return
	}
	if request.Method != http.MethodConnect {
		s.refuse(client, http.StatusMethodNotAllowed, "Allow: CONNECT\r\n")
		return
	}
	server, err := s.dial(ctx, request.Host)
	if err != nil {
		s.refuse(client, http.StatusBadGateway, "")
		return
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() { server.Close() })()
	s.connected.Add(1)
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	_ = client.SetDeadline(time.Time{})
	early, _ := buffered.Peek(buffered.Buffered()) // what came with the request
	if _, err := server.Write(early); err != nil {
		return
	}
	relay(client, server)
}

func (s *Server) refuse(client net.Conn, code int, header string) {
	s.refused.Add(1)
	_, _ = fmt.Fprintf(client, "HTTP/1.1 %d %s\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n", code, http.StatusText(code), header)
}

// knows reports that a Proxy-Authorization has the token.
func (s *Server) knows(authorization string) bool {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+s.Token))
	return subtle.ConstantTimeCompare([]byte(authorization), []byte(want)) == 1
}

// dial connects to a host by its addresses, each a moment after the one before.
func (s *Server) dial(ctx context.Context, target string) (*net.TCPConn, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addrs := []netip.Addr{}
	if addr, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, addr)
	} else if addrs, err = s.Names.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, err
	}
	return race(ctx, addrs, port)
}

// race returns the first connection that stands.
func race(ctx context.Context, addrs []netip.Addr, port string) (*net.TCPConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type attempt struct {
		conn net.Conn
		err  error
	}
	results := make(chan attempt)
	failed, running := error(&net.AddrError{Err: "no address"}), 0
	for next := 0; ; {
		var turn <-chan time.Time
		if next < len(addrs) {
			if running == 0 {
				addr := addrs[next]
				next, running = next+1, running+1
				go connect(ctx, addr, port, func(c net.Conn, err error) { results <- attempt{c, err} })
				continue
			}
			turn = time.After(stagger)
		} else if running == 0 {
			return nil, failed
		}
		select {
		case <-turn:
			addr := addrs[next]
			next, running = next+1, running+1
			go connect(ctx, addr, port, func(c net.Conn, err error) { results <- attempt{c, err} })
		case r := <-results:
			running--
			if r.err == nil {
				go func() { // the others come to their end, as ctx does
					for range running {
						if late := <-results; late.conn != nil {
							late.conn.Close()
						}
					}
				}()
				return r.conn.(*net.TCPConn), nil
			}
			failed = r.err
		}
	}
}

func connect(ctx context.Context, addr netip.Addr, port string, tell func(net.Conn, error)) {
	tell(new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port)))
}

// relay copies both ways; the end of one way is passed on as such.
func relay(a, b *net.TCPConn) {
	var ways sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		ways.Go(func() {
			from, to := way[0], way[1]
			if _, err := io.Copy(to, from); err != nil {
				a.Close()
				b.Close()
				return
			}
			_ = to.CloseWrite()
		})
	}
	ways.Wait()
}
